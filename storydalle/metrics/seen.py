"""Frames with the outputs of the judging networks: each network sees each picture once, and all scores share it.

``Truth`` has the true frames and captions of a batch of stories, ``Seen`` frames that were drawn for it. A network's
output is computed when a score first needs it, and once for equal pictures of all rows of a batch.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.networks.feature_store import picture_key
from storydalle.metrics.networks.features import GROUP, FeatureNetwork, in_groups
from storydalle.metrics.networks.label_reader import LabelReader
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


Named = dict[str, Tensor]
Outputs = dict[str, dict[bytes, Named]]  # of each network, by its role, for each picture


class Seen:
    """Frames ``(b, f, c, h, w)`` in [-1, 1] with the outputs of networks; scores ignore frames with a false mask.

    Outputs of networks are those of ``in_groups``; those in ``known`` are not computed again.
    """

    def __init__(self, frames: Float[Tensor, "b f c h w"], networks: Networks, known: Outputs | None = None) -> None:
        self.frames, self.networks = frames, networks
        self.known: Outputs = {} if known is None else known

    @cached_property
    def keys(self) -> list[bytes]:
        return [picture_key(image) for image in self.frames.flatten(0, 1)]

    def outputs(self, role: str, see: Callable[[Tensor], Named]) -> Named:
        """The named outputs of a network for each frame."""
        known = self.known.setdefault(role, {})
        new = {key: place for place, key in enumerate(self.keys) if key not in known}
        groups = in_groups(see, self.frames.flatten(0, 1)[list(new.values())])
        rows = ({name: value[i] for name, value in group.items()} for group in groups for i in range(GROUP))
        known |= dict(zip(new, rows, strict=False))  # the last group may be filled up
        outputs = [known[key] for key in self.keys]
        in_frames = self.frames.shape[:2]
        return {name: torch.stack([each[name] for each in outputs]).unflatten(0, in_frames) for name in outputs[0]}

    def output(self, role: str, see: Callable[[Tensor], Tensor]) -> Tensor:
        return self.outputs(role, lambda images: {role: see(images)})[role]

    @cached_property
    def features(self) -> Float[Tensor, "b f d"]:
        network = self.networks.features
        assert network is not None
        return self.output("features", network.features)

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        assert self.networks.labels is not None
        return self.outputs("labels", self.networks.labels.read)

    @cached_property
    def characters(self) -> Int[Tensor, "b f k"]:
        if self.networks.characters is None:
            return self.labels["characters"]
        return self.output("characters", self.networks.characters.read)

    @cached_property
    def embeddings(self) -> Float[Tensor, "b f d"]:
        network, features = self.networks.text, self.networks.features
        assert network is not None
        if features is None or features.sha256 != network.sha256:
            return self.output("text", network.embed_images)
        rows = [network.projected(each) for each in self.features.flatten(0, 1).split(1)]
        return torch.cat(rows).unflatten(0, self.frames.shape[:2])


class Truth(NamedTuple):
    """A batch of stories at the protocol's resolution, with the networks' outputs for its true frames and sources."""

    batch: StoryBatch
    frames: Seen
    sources: Seen  # one frame a story
    clusters: Mapping[str, str] = MappingProxyType({})  # of stories that share frames; others stand alone

    @classmethod
    def of(cls, batch: StoryBatch, networks: Networks) -> "Truth":
        frames = Seen(batch.frames, networks)
        return cls(batch, frames, Seen(batch.source[:, None], networks, frames.known))

    def seen(self, frames: Float[Tensor, "b f c h w"]) -> Seen:
        """Frames that were drawn for the batch."""
        return Seen(frames, self.frames.networks, self.frames.known)

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
