"""Captions and frames in a network's common space: those of a split are embedded once and shared by its metrics."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.networks.features import seen_in_groups


class EmbeddedCaptions(NamedTuple):
    """Embeddings of the different captions of a split, and the captions of each story's frames."""

    texts: list[str]
    embeddings: Float[Tensor, "u d"]  # of length 1, in double precision
    of_story: dict[str, list[int]]  # by id, one a frame

    @classmethod
    def of(
        cls, captions: Mapping[str, Sequence[str]], embed_captions: Callable[[list[str]], Tensor]
    ) -> "EmbeddedCaptions":
        """Embed captions: those of each story's frames, in order, by story id.

        ``embed_captions`` is a network's, or looks up earlier embeddings. Captions that differ only in case or spaces
        count as one.
        """
        keys: dict[str, int] = {}
        texts: list[str] = []
        for text in chain.from_iterable(captions.values()):
            if keys.setdefault(plain(text), len(texts)) == len(texts):
                texts.append(text)
        if not texts:
            raise ValueError("no captions: text and pictures are compared on stories that have some")
        embeddings = embed_captions(texts)
        if embeddings.shape[0] != len(texts):
            raise ValueError(f"{embeddings.shape[0]} embeddings of {len(texts)} captions: embed_captions loses some")
        embeddings = F.normalize(embeddings.clone().double(), dim=-1)  # the clone may be used outside inference mode
        return cls(texts, embeddings, {name: [keys[plain(text)] for text in told] for name, told in captions.items()})


def plain(text: str) -> str:
    """A caption in lower case, with single spaces; captions that are equal in this form count as one."""
    return " ".join(text.lower().split())


def embedded_frames(network: ImageTextNetwork, frames: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b f d"]:
    """Embeddings of frames in [-1, 1], seen ``in_groups``."""
    return seen_in_groups(network.embed_images, frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
