"""A row's scores under a protocol: each metric sees what its networks see, and stories meet those of other clusters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from storydalle.evaluation.protocol import Protocol
from storydalle.metrics.declared import DeclaredMetric, Setting, by_name
from storydalle.metrics.embeddings import EmbeddedCaptions
from storydalle.metrics.networks.features import feature_dim
from storydalle.metrics.resampling import Interval
from storydalle.metrics.seen import Judges, Neighbour, Seen, Truth
from storydalle.metrics.story_metric import StoryMetric


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

    def __init__(
        self, metrics: Mapping[str, DeclaredMetric], clusters: Mapping[str, str], label: str | None = None
    ) -> None:
        self.metrics, self.clusters, self.label = dict(metrics), clusters, label
        self.neighbours = Neighbours(self.compare)

    def update(self, drawn: Seen, truth: Truth) -> None:
        """Add a batch; batches come in the order of the split."""
        truth = truth._replace(clusters=self.clusters)
        for metric in self.metrics.values():
            if not metric.meets_another:
                metric.judge(drawn, truth)
        if self.meeting():
            for i, story in enumerate(truth.batch.ids):
                self.neighbours.add(*self.views(drawn, truth, i, self.clusters.get(story, story)))

    def views(self, drawn: Seen, truth: Truth, i: int, cluster: str) -> tuple[tuple[str, Tensor, Neighbour], Neighbour]:
        exists = truth.batch.mask[i]
        features = source_features = None
        if any("features" in metric.needs for metric in self.meeting()):
            features, source_features = drawn.features[i][exists], truth.sources.features[i, 0]
        own = Neighbour(cluster, truth.batch.source[i], source_features, features)
        return (truth.batch.ids[i], drawn.frames[i][exists], own), own

    def compare(self, story: tuple[str, Tensor, Neighbour], other: Neighbour) -> None:
        """Scores beside their chance levels, which the neighbour gives."""
        name, frames, own = story
        for metric in self.meeting():
            metric.judge_beside(name, frames, own, other)

    def meeting(self) -> list[DeclaredMetric]:
        """The metrics that judge each story beside another one."""
        return [metric for metric in self.metrics.values() if metric.meets_another]

    def finish(self) -> None:
        """To be called behind the last batch."""
        self.neighbours.finish()

    def compute(self) -> dict[str, float]:
        """All scores by their names; what two metrics score is the later one's."""
        scores: dict[str, float] = {}
        for metric in self.metrics.values():
            scores |= metric.scores(self.label)
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


def new_metrics(
    protocol: Protocol, judges: Judges, characters: Sequence[str], num_frames: int, captions: EmbeddedCaptions | None
) -> dict[str, DeclaredMetric]:
    """Empty metrics of the protocol's scores."""
    setting = Setting(
        characters,
        num_frames,
        0 if judges.features is None else feature_dim(judges.features),
        captions,
        protocol.num_negatives,
        protocol.subset_size,
        protocol.seed,
    )
    known = by_name()
    return {name: known[name].made(setting) for name in protocol.metrics}
