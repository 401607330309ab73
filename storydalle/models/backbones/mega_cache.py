"""The decoding state of MegaDALLE."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from storydalle.models.layers import KeyValues


class Memory(NamedTuple):
    """Keys and values of a caption, or of the codes so far."""

    key: Float[Tensor, "b heads m head_dim"]
    value: Float[Tensor, "b heads m head_dim"]


class Text(NamedTuple):
    """A read caption, as every decoder layer attends to it."""

    memories: list[Memory]  # one a layer
    visible: Bool[Tensor, "b 1 1 m"]


class MegaCache:
    """The decoding state: the caption as it was read at prefill, and the keys and values of the inputs so far.

    Candidates share the caption of their prompt: repeating copies the inputs alone.
    """

    def __init__(self, num_rows: int, num_heads: int, length: int, weights: Sequence[Float[Tensor, "d _"]]) -> None:
        """``weights`` are one of each layer, as ``KeyValues`` takes it; ``length`` is the number of inputs."""
        self.layers = [KeyValues(num_rows, num_heads, length, weight) for weight in weights]
        self.text: Text | None = None
        self.length = 0  # inputs of the decoder read so far: the start code and codes
        self.columns: Int[Tensor, "r n"] | None = None  # of the next inputs; by default they follow the last

    def place(self, positions: Int[Tensor, "r n"]) -> None:
        self.columns = 1 + positions  # the start code comes first
        for layer in self.layers:
            layer.place(self.columns)

    def repeat(self, num_candidates: int) -> None:
        for layer in self.layers:
            layer.repeat(num_candidates)
