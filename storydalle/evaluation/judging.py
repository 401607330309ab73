"""Frames judged under a protocol: each picture is seen once by each network, and every score shares what it saw.

``Truth`` is what a batch of stories shows and says, ``Judged`` what one system drew for it; both compute a network's
view when a score first asks for it. A ``Scorecard`` keeps the scores of one system.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, runtime_checkable
from typing import Protocol as Interface

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from storydalle.evaluation.protocol import Protocol
from storydalle.metrics.characters import CharacterScores
from storydalle.metrics.continuation import Consistency, CopyRate, PositionScores
from storydalle.metrics.frame_distances import PictureScores, frame_distances
from storydalle.metrics.frechet import FrechetDistance, FrechetStoryDistance
from storydalle.metrics.kernel_distance import KernelDistance, KernelResult
from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.networks.features import FeatureNetwork, feature_dim, features_of, one_by_one
from storydalle.metrics.networks.label_reader import LabelReader, read_frames
from storydalle.metrics.resampling import Interval
from storydalle.metrics.story_metric import StoryMetric
from storydalle.metrics.text_image import ClipT, EmbeddedCaptions, RPrecision, embedded_frames
from storydalle.metrics.toon import ToonScores
from storydalle.stories.story import StoryBatch


@runtime_checkable
class CharacterReader(Interface):
    weights_sha256: str | None

    def read(self, images: Float[Tensor, "n c h w"]) -> Int[Tensor, "n k"]: ...


class Judges(NamedTuple):
    """The networks of a protocol, each there if one of its scores asks for it.

    Without a classifier of their own, ``characters`` are those that the label reader reads.
    """

    features: FeatureNetwork | None = None
    labels: LabelReader | None = None
    characters: CharacterReader | None = None
    text: ImageTextNetwork | None = None


class Seen:
    """Frames ``(b, f, c, h, w)`` in [-1, 1] as the judges see them; what is behind a false mask counts nowhere.

    Each picture is seen alone (``one_by_one``).
    """

    def __init__(self, frames: Float[Tensor, "b f c h w"], judges: Judges) -> None:
        self.frames, self.judges = frames, judges

    def by_frame(self, see: Callable[[Tensor], Tensor]) -> Tensor:
        flat = one_by_one(see, rearrange(self.frames, "b f c h w -> (b f) c h w"))
        return rearrange(flat, "(b f) ... -> b f ...", b=len(self.frames))

    @cached_property
    def features(self) -> Float[Tensor, "b f d"]:
        network = self.judges.features
        assert network is not None
        return self.by_frame(lambda images: features_of(network, images))

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        assert self.judges.labels is not None
        return read_frames(self.judges.labels, self.frames.contiguous(), batch_size=1)

    @cached_property
    def characters(self) -> Int[Tensor, "b f k"]:
        if self.judges.characters is None:
            return self.labels["characters"]
        return self.by_frame(self.judges.characters.read)

    @cached_property
    def embeddings(self) -> Float[Tensor, "b f d"]:
        assert self.judges.text is not None
        return embedded_frames(self.judges.text, self.frames)


class Truth(NamedTuple):
    """A batch of stories at the protocol's resolution, with its true frames and its sources as the judges see them."""

    batch: StoryBatch
    frames: Seen
    sources: Seen  # one frame a story
    clusters: Mapping[str, str] = MappingProxyType({})  # of stories that share frames; others stand alone

    @classmethod
    def of(cls, batch: StoryBatch, judges: Judges) -> "Truth":
        return cls(batch, Seen(batch.frames, judges), Seen(batch.source[:, None], judges))

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
    """A story as the chance levels of another one need it."""

    cluster: str
    source: Tensor  # (c, h, w)
    source_features: Tensor | None  # (d)
    features: Tensor | None  # (f, d)


class Neighbours:
    """Hands each story the next one of another cluster, in the order of the split; the first ones follow the last.

    Stories come in batches and wait here until such a one has come, so that memory does not grow with their number.
    """

    def __init__(self, hand_on: Callable[[Any, Neighbour], None]) -> None:
        self.hand_on = hand_on
        self.waiting: list[tuple[Any, Neighbour]] = []
        self.first: list[Neighbour] = []  # of two clusters

    def add(self, story: Any, own: Neighbour) -> None:
        kept = []
        for waiting, neighbour in self.waiting:
            if neighbour.cluster == own.cluster:
                kept.append((waiting, neighbour))
            else:
                self.hand_on(waiting, own)
        self.waiting = [*kept, (story, own)]
        if len(self.first) < 2 and all(own.cluster != other.cluster for other in self.first):
            self.first.append(own)

    def finish(self) -> None:
        for waiting, neighbour in self.waiting:
            self.hand_on(waiting, next(other for other in self.first if other.cluster != neighbour.cluster))
        self.waiting = []


class Scorecard:
    """The scores of one system: ``metrics`` by their names in a protocol.

    ``clusters`` maps each story's id to its episode or book, without which stories stand alone.
    """

    def __init__(self, metrics: Mapping[str, Metric], clusters: Mapping[str, str], label: str | None = None) -> None:
        self.metrics, self.clusters, self.label = dict(metrics), clusters, label
        self.neighbours = Neighbours(self.compare)

    def update(self, drawn: Seen, truth: Truth) -> None:
        """Add a batch; batches come in the order of the split."""
        truth = truth._replace(clusters=self.clusters)
        for name, metric in self.metrics.items():
            if name in UPDATES:
                UPDATES[name](metric, drawn, truth)
        if self.metrics.keys() & {"copy_rate", "consistency"}:
            for i, story in enumerate(truth.batch.ids):
                self.neighbours.add(*self.views(drawn, truth, i, self.clusters.get(story, story)))

    def views(self, drawn: Seen, truth: Truth, i: int, cluster: str) -> tuple[tuple[str, Tensor, Neighbour], Neighbour]:
        exists = truth.batch.mask[i]
        features = source_features = None
        if "consistency" in self.metrics:
            features, source_features = drawn.features[i][exists], truth.sources.features[i, 0]
        own = Neighbour(cluster, truth.batch.source[i], source_features, features)
        return (truth.batch.ids[i], drawn.frames[i][exists], own), own

    def compare(self, story: tuple[str, Tensor, Neighbour], other: Neighbour) -> None:
        """Scores beside their chance levels, which the neighbour gives."""
        name, frames, own = story
        exists = torch.ones(1, len(frames), dtype=torch.bool)
        if "copy_rate" in self.metrics:
            self.metrics["copy_rate"].update(frames[None], own.source[None], other.source[None], exists, [name])
        if "consistency" in self.metrics:
            assert own.features is not None and other.features is not None
            assert own.source_features is not None and other.source_features is not None
            self.metrics["consistency"].update(
                *(values[None] for values in (own.features, own.source_features, other.features)),
                other.source_features[None],
                exists,
                torch.ones(1, len(other.features), dtype=torch.bool),
                [name],
            )

    def finish(self) -> None:
        """To be called behind the last batch."""
        self.neighbours.finish()

    def compute(self) -> dict[str, float]:
        """All scores by their names; what two metrics score is the later one's."""
        scores: dict[str, float] = {}
        for name, metric in self.metrics.items():
            found = metric.compute()
            if isinstance(found, KernelResult):
                key = distance_name(self.label, name)
                scores |= {key: found.mean, f"{key}_deviation": found.deviation}
            elif isinstance(found, Mapping):
                scores |= found
            else:
                scores[distance_name(self.label, name)] = float(found)
        return scores

    def compute_intervals(self, num_resamples: int = 1000) -> dict[str, Interval]:
        """95 % intervals of the scores that are sums over stories; a distance of distributions has none."""
        intervals: dict[str, Interval] = {}
        for metric in self.story_metrics_by_name().values():
            intervals |= metric.compute_intervals(clusters=self.clusters, num_resamples=num_resamples)
        return intervals

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for metric in self.story_metrics_by_name().values():
            counts |= metric.counts()
        return counts

    def story_metrics_by_name(self) -> dict[str, StoryMetric]:
        """Those that keep a row of sums a story."""
        return {name: metric for name, metric in self.metrics.items() if isinstance(metric, StoryMetric)}


# ------------------------------------------------------------------------------------------------ scores by name

DISTANCES = {"frechet": "fd", "kernel": "kd", "frechet_story": "fsd"}
INCEPTION_NAMES = {"frechet": "fid", "kernel": "kid", "frechet_story": "fsd"}


def distance_name(label: str | None, name: str) -> str:
    """``fid`` and ``kid`` on Inception's features alone; else as the network is called: ``toon_fd``, ``layout_kd``."""
    return INCEPTION_NAMES[name] if label is None else f"{label}_{DISTANCES[name]}"


def update_distance(metric: FrechetDistance | KernelDistance, drawn: Seen, truth: Truth) -> None:
    mask = truth.batch.mask
    for seen, is_real in ((truth.frames, True), (drawn, False)):
        features = seen.features[mask]
        if isinstance(metric, KernelDistance):
            metric.update(features, is_real, truth.frame_ids, truth.frame_clusters)
        else:
            metric.update(features, is_real)


def update_story_distance(metric: FrechetStoryDistance, drawn: Seen, truth: Truth) -> None:
    for seen, is_real in ((truth.frames, True), (drawn, False)):
        metric.update(seen.features, is_real, truth.batch.mask)


def update_drift(metric: PositionScores, drawn: Seen, truth: Truth) -> None:
    error = frame_distances(drawn.frames, truth.frames.frames, truth.batch.source).error
    metric.update(error, truth.batch.mask, truth.batch.ids)


def update_characters(metric: CharacterScores, drawn: Seen, truth: Truth) -> None:
    batch = truth.batch
    metric.update(
        drawn.characters, batch.labels["characters"], batch.mask, batch.labels.get("source_characters"), batch.ids
    )


UPDATES: dict[str, Callable[[Any, Seen, Truth], None]] = {
    "labels": lambda metric, drawn, truth: metric.update(
        drawn.labels, truth.batch.labels, truth.batch.mask, truth.batch.ids
    ),
    "characters": update_characters,
    "pixels": lambda metric, drawn, truth: metric.update(
        drawn.frames, truth.batch.frames, truth.batch.source, truth.batch.mask, truth.batch.ids
    ),
    "drift": update_drift,
    "frechet": update_distance,
    "kernel": update_distance,
    "frechet_story": update_story_distance,
    "r_precision": lambda metric, drawn, truth: metric.update(drawn.embeddings, truth.batch.mask, truth.batch.ids),
    "clip_t": lambda metric, drawn, truth: metric.update(drawn.embeddings, truth.batch.mask, truth.batch.ids),
}


def new_metrics(
    protocol: Protocol, judges: Judges, characters: Sequence[str], num_frames: int, captions: EmbeddedCaptions | None
) -> dict[str, Metric]:
    """Empty metrics of the protocol's scores."""
    dim = 0 if judges.features is None else feature_dim(judges.features)
    makers: dict[str, Callable[[], Metric]] = {
        "labels": ToonScores,
        "characters": lambda: CharacterScores(characters, num_frames),
        "pixels": PictureScores,
        "drift": lambda: PositionScores("error", num_frames),
        "frechet": lambda: FrechetDistance(dim),
        "kernel": lambda: KernelDistance(dim, subset_size=protocol.subset_size or 2, seed=protocol.seed),
        "frechet_story": lambda: FrechetStoryDistance(dim, seed=protocol.seed),
        "r_precision": lambda: RPrecision(
            given(captions), num_negatives=protocol.num_negatives or 1, seed=protocol.seed
        ),
        "clip_t": lambda: ClipT(given(captions)),
        "copy_rate": CopyRate,
        "consistency": Consistency,
    }
    assert tuple(makers) == METRICS
    return {name: makers[name]() for name in protocol.metrics}


def given(captions: EmbeddedCaptions | None) -> EmbeddedCaptions:
    assert captions is not None, "scores of texts are in a protocol that says which texts"
    return captions


METRICS = (*UPDATES, "copy_rate", "consistency")
