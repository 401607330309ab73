"""The interface of every backbone to the retrofit, to sampling and to training, whatever its architecture."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from storydalle.configured import Configured
from storydalle.files.registry import Registry
from storydalle.models.kept import KeptByBlock, StepSizes

Hook = Callable[[Tensor], Tensor]


class Logits(NamedTuple):
    """Predictions of a sequence. ``text`` is None while sampling, and of a backbone that predicts no text."""

    text: Float[Tensor, "b t_minus_1 v_text"] | None  # position i predicts token i + 1 of `text_targets`
    image: Float[Tensor, "b l v_image"]  # position i predicts code i
    text_targets: Int[Tensor, "b t_minus_1"] | None  # the tokens left after columns of padding were dropped


class Words(NamedTuple):
    """Sizes of the caption tokenizer that a backbone is built for."""

    text_vocab_size: int
    text_length: int
    pad_id: int


class Codes(NamedTuple):
    """Sizes of the image tokenizer that a backbone is built for."""

    num_codes: int  # size of the codebook
    image_length: int  # codes of one picture
    codes_of: str  # the tokenizer's kind


@runtime_checkable
class DecodingCache(Protocol):
    """The state between two steps of decoding; only the backbone that made it looks inside."""

    def repeat(self, num_candidates: int) -> None:
        """Give every row ``num_candidates`` copies: the prompt is prefilled once and shared by its candidates."""

    def place(self, positions: Int[Tensor, "r n"]) -> None:
        """The next codes stand at these raster positions, in each row at its own; codes read there are replaced.

        For prompts that were not repeated. The last code of a frame is never read.
        """


class Backbone(Configured, nn.Module, ABC):
    """A text-to-image transformer that knows nothing of stories.

    A story enters in two places: ``prefix`` embeddings ahead of the text, and one hook a block, whose result is added
    to the residual stream at the positions that predict a code. ``kind`` names the class in files.
    With ``activation_checkpointing`` only the input of each block is kept; the backward pass computes the rest again.
    """

    kind: ClassVar[str]
    predicts_text: ClassVar[bool]  # True where there are logits of the text to train on
    text_vocab_size: int
    num_codes: int  # codes that can be predicted and drawn
    text_length: int
    image_length: int
    dim: int
    depth: int  # blocks that call a hook
    num_heads: int
    pad_id: int | None
    codes_of: str | None  # the kind of the image tokenizer, if known: its sizes do not tell it
    activation_checkpointing: bool = False

    @classmethod
    @abstractmethod
    def sized(cls, words: Words, codes: Codes, **sizes: object) -> "Backbone":
        """A fresh backbone for tokens and codes of these tokenizers; ``sizes`` are arguments of the constructor."""

    @abstractmethod
    def forward(
        self,
        tokens: Int[Tensor, "b t"] | None,
        codes: Int[Tensor, "b l"] | None = None,
        prefix: Float[Tensor, "b p d"] | None = None,
        hooks: Sequence[Hook | None] | None = None,
        cache: Any = None,  # of the class's own ``new_cache``
    ) -> Logits:
        """Logits of the next tokens and codes; the same call trains (no cache), prefills and decodes.

        Training: all ``tokens`` and all ``codes`` (the last code is not read, since nothing follows it).
        Prefill: ``tokens`` and a cache of ``new_cache``, no codes. Decoding: the newest code of each row and the cache,
        or the codes at the positions where the cache was told to ``place`` them.
        Raises ValueError if the captions are not exactly ``text_length`` long.
        """

    @abstractmethod
    def new_cache(self, num_rows: int, num_columns: int) -> DecodingCache:
        """An empty cache for prompts of so many columns: the prefix, and the text columns that are computed."""

    @abstractmethod
    def embed_tokens(self, tokens: Int[Tensor, "*b t"]) -> Float[Tensor, "*b t d"]:
        """Embeddings of text tokens, without positions."""

    @abstractmethod
    def embed_codes(self, codes: Int[Tensor, "b l"], start: int = 0) -> Float[Tensor, "b l d"]:
        """Embeddings of the codes at raster positions ``start``, ``start + 1``, ... of a frame."""

    @abstractmethod
    def used_columns(self, tokens: Int[Tensor, "b t"]) -> Int[Tensor, " t_used"]:
        """Indices of the text columns that have to be computed."""

    @property
    @abstractmethod
    def word_tables(self) -> list[nn.Embedding | nn.Linear]:
        """The layers with a row for each text token: the embedding and, where text is predicted, its head."""

    def add_tokens(self, num_tokens: int) -> None:
        """Make room for ``num_tokens`` more text tokens; their ids follow the old ones, and no old row changes."""
        for table in self.word_tables:
            add_rows(table, num_tokens)
        self.text_vocab_size += num_tokens
        self.settings = replace(self.settings, **{"text_vocab_size": self.text_vocab_size})

    @property
    @abstractmethod
    def code_table(self) -> Float[Tensor, "v d"]:
        """The embedding of every code, without positions."""

    @property
    @abstractmethod
    def all_blocks(self) -> list[nn.Module]:
        """An encoder's blocks first, then the ``depth`` others; sharded training gathers one of them at a time."""

    @abstractmethod
    def kept(self, step: StepSizes, num_prefix: int) -> list[KeptByBlock]:
        """The memory that each of ``all_blocks`` needs in a training step."""

    @property
    @abstractmethod
    def step_layers(self) -> list[tuple[nn.Linear, ...]]:
        """The products of a step of decoding; those that a view for decoding joins stand together."""

    @property
    @abstractmethod
    def hidden_tensors(self) -> float | int:
        """Tensors, as wide as the model, that the feed-forward network of a block holds at a time."""

    @property
    def device(self) -> torch.device:
        return self.code_table.device

    @property
    def column_bytes(self) -> int:
        """Bytes of the keys and values of one column in all blocks."""
        return 2 * self.depth * self.dim * self.code_table.element_size()

    def check_captions(self, tokens: Int[Tensor, "b t"]) -> None:
        if tokens.shape[1] != self.text_length:
            raise ValueError(f"captions have {tokens.shape[1]} tokens, the backbone takes {self.text_length}; pad them")


def add_rows(table: nn.Embedding | nn.Linear, num_rows: int) -> None:
    """Append fresh rows from N(0, 0.02) to an embedding or to a linear layer without bias."""
    old = table.weight.detach()
    fresh = nn.init.normal_(old.new_empty(num_rows, old.shape[1]), std=0.02)
    table.weight = nn.Parameter(torch.cat([old, fresh]), requires_grad=table.weight.requires_grad)
    if isinstance(table, nn.Embedding):
        table.num_embeddings += num_rows
    else:
        table.out_features += num_rows


def through(block: nn.Module, *inputs: object, recompute: bool) -> Tensor:
    """Call a block; with ``recompute`` the backward pass computes it again instead of keeping what is inside."""
    if recompute and torch.is_grad_enabled():
        # Nothing in a block is random, so the state of the random generator need not be kept.
        return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    return block(*inputs)


def init_weights(module: nn.Module) -> None:
    """minDALL-E's initialisation of one module: N(0, 0.02) for matrices and tables, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def open_backbone(config: Mapping[str, object]) -> Backbone:
    """A fresh backbone of the kind and with the settings that ``config`` names."""
    found, settings = BACKBONES.split(config)
    return found(**settings)


BACKBONES: Registry[Backbone] = Registry(
    "a backbone",
    {
        "dalle": "storydalle.models.backbones.dalle.DALLE",
        "mega": "storydalle.models.backbones.mega.MegaDALLE",
    },
    unnamed="dalle",  # files from the time when there was no other kind do not name it
)
