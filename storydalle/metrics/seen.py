"""Frames with the outputs of the judging networks: each network sees each picture once, and all scores share it.

``Truth`` has the true frames and captions of a batch of stories, ``Seen`` frames that were drawn for it. A network's
output is computed when a score first needs it.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.metrics.embeddings import embedded_frames
from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.networks.features import FeatureNetwork, features_of, one_by_one
from storydalle.metrics.networks.label_reader import LabelReader, read_frames
from storydalle.stories.story import StoryBatch


@runtime_checkable
class CharacterReader(Protocol):
    weights_sha256: str | None

    def read(self, images: Float[Tensor, "n c h w"]) -> Int[Tensor, "n k"]: ...


class Networks(NamedTuple):
    """The networks of a protocol; those that no score needs are None.

    Without a classifier ``characters``, the label reader reads characters.
    """

    features: FeatureNetwork | None = None
    labels: LabelReader | None = None
    characters: CharacterReader | None = None
    text: ImageTextNetwork | None = None


class Seen:
    """Frames ``(b, f, c, h, w)`` in [-1, 1] with the outputs of networks; scores ignore frames with a false mask.

    Networks see each picture alone (``one_by_one``).
    """

    def __init__(self, frames: Float[Tensor, "b f c h w"], networks: Networks) -> None:
        self.frames, self.networks = frames, networks

    def by_frame(self, see: Callable[[Tensor], Tensor]) -> Tensor:
        flat = one_by_one(see, rearrange(self.frames, "b f c h w -> (b f) c h w"))
        return rearrange(flat, "(b f) ... -> b f ...", b=len(self.frames))

    @cached_property
    def features(self) -> Float[Tensor, "b f d"]:
        network = self.networks.features
        assert network is not None
        return self.by_frame(lambda images: features_of(network, images))

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        assert self.networks.labels is not None
        return read_frames(self.networks.labels, self.frames.contiguous(), batch_size=1)

    @cached_property
    def characters(self) -> Int[Tensor, "b f k"]:
        if self.networks.characters is None:
            return self.labels["characters"]
        return self.by_frame(self.networks.characters.read)

    @cached_property
    def embeddings(self) -> Float[Tensor, "b f d"]:
        assert self.networks.text is not None
        return embedded_frames(self.networks.text, self.frames)


class Truth(NamedTuple):
    """A batch of stories at the protocol's resolution, with the networks' outputs for its true frames and sources."""

    batch: StoryBatch
    frames: Seen
    sources: Seen  # one frame a story
    clusters: Mapping[str, str] = MappingProxyType({})  # of stories that share frames; others stand alone

    @classmethod
    def of(cls, batch: StoryBatch, networks: Networks) -> "Truth":
        return cls(batch, Seen(batch.frames, networks), Seen(batch.source[:, None], networks))

    @property
    def frame_ids(self) -> list[str]:
        """A name of each frame that exists, in the order of ``mask``."""
        return [f"{name}#{frame}" for name, frame in self.frames_of_stories()]

    @property
    def frame_clusters(self) -> list[str]:
        """The cluster of each frame's story, or the story itself, in the same order."""
        return [self.clusters.get(name, name) for name, _ in self.frames_of_stories()]

    def frames_of_stories(self) -> list[tuple[str, int]]:
        rows = zip(self.batch.ids, self.batch.mask.tolist(), strict=True)
        return [(name, frame) for name, row in rows for frame, exists in enumerate(row, start=1) if exists]


class Neighbour(NamedTuple):
    """The part of a story that the chance levels of another one need."""

    cluster: str
    source: Float[Tensor, "c h w"]
    source_features: Float[Tensor, " d"] | None
    features: Float[Tensor, "f d"] | None
