"""Judges: the networks that a protocol's scores need, and the scores on a split."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from storydalle.evaluation.evaluation_settings import ProtocolSettings
from storydalle.evaluation.protocol import LABEL_READER, Protocol, label_reader_of, protocol_of
from storydalle.evaluation.splits import Split
from storydalle.files.paths import user_path
from storydalle.metrics.declared import DeclaredMetric, Setting, by_name, needs_of
from storydalle.metrics.embeddings import EmbeddedCaptions
from storydalle.metrics.networks.character_classifier import CharacterClassifier, released_classifier
from storydalle.metrics.networks.clip import ImageTextNetwork, open_image_text_network
from storydalle.metrics.networks.feature_store import StoredFeatures
from storydalle.metrics.networks.features import (
    ColorLayout,
    FeatureNetwork,
    InceptionFeatures,
    TextNetworkFeatures,
    feature_dim,
)
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.metrics.resampling import Interval
from storydalle.metrics.seen import Neighbour, Networks, Seen, Truth
from storydalle.metrics.story_metric import StoryMetric
from storydalle.mistakes import UserError
from storydalle.models import zoo
from storydalle.stories.story import Stories

COLOR_LAYOUT, INCEPTION = "color_layout", "inception"
Opened = TypeVar("Opened")
Waiting = TypeVar("Waiting")


class Judges(NamedTuple):
    """A protocol and the networks that it needs."""

    asked: ProtocolSettings
    networks: Networks

    def on(self, split: Split) -> "SplitJudges":
        """The judges for one split; scores that need more stories than it has are left out."""
        protocol = protocol_of(self.asked, split, self.networks)
        captions = None
        if protocol.texts is not None and "text_network" in needs_of(protocol.metrics):
            captions = captions_of(protocol.texts, split.judged, self.networks)
        return SplitJudges(protocol, self.networks, split.data.characters, split.num_frames, split.clusters, captions)


class SplitJudges(NamedTuple):
    """Everything that is needed to score the rows of a split."""

    protocol: Protocol
    networks: Networks
    characters: Sequence[str]
    num_frames: int  # of the longest story
    clusters: Mapping[str, str]
    captions: EmbeddedCaptions | None

    def scorecard(self) -> "Scorecard":
        """Empty scores of one row."""
        metrics = new_metrics(self.protocol, self.networks, self.characters, self.num_frames, self.captions)
        label = self.networks.features.label if self.networks.features else None
        return Scorecard(metrics, self.clusters, label)


def captions_of(texts: str, stories: Stories, networks: Networks) -> EmbeddedCaptions:
    """The text to compare each frame with: its caption, or its own description if the set has one."""
    outlines = (stories.outline(index) for index in range(len(stories)))
    told = {
        outline.id: outline.descriptions[1:] if texts == "descriptions" and outline.descriptions else outline.captions
        for outline in outlines
    }
    assert networks.text is not None
    return EmbeddedCaptions.of(told, networks.text.embed_captions)


# ------------------------------------------------------------------------------------------------ networks


def open_judges(protocol: ProtocolSettings, characters: Sequence[str], cache: Path) -> Judges:
    """Open the networks that the protocol's scores need; if one is missing, the error names the file to get.

    Features are stored in ``cache``, so that they are computed only once for each picture.
    """
    needed = needs_of(protocol.metrics)
    if "classifier" in needed and protocol.classifier == label_reader_of(protocol):  # which is then read once for both
        needed = needed - {"classifier"} | {"labels"}
    networks = Networks(
        features=opened("features", protocol, lambda given: open_features(given, cache), needed),
        labels=opened("labels", protocol, open_label_reader, needed),
        characters=opened("classifier", protocol, lambda given: open_classifier(given, characters), needed),
        text=opened("text_network", protocol, open_text_network, needed),
    )
    return Judges(protocol, networks)


def opened(
    role: str, protocol: ProtocolSettings, open_network: Callable[..., Opened], needed: set[str]
) -> Opened | None:
    """Open the network of a role as the protocol names it; None where no score needs it."""
    if role not in needed:
        return None
    known = by_name()
    asking = [name for name in protocol.metrics if role in known[name].needs]
    remedy = f"leave_out='[{','.join(asking)}]' leaves out what it scores"
    given = getattr(protocol, role)
    if given is None and role != "labels":
        raise UserError(
            f"protocol {protocol.name} scores {' and '.join(asking)} and has no {role}: "
            f"give protocol.{role}=..., or {remedy}"
        )
    try:
        return open_network(given)
    except (ValueError, OSError) as error:
        raise UserError(f"{error}; or {remedy}") from error


def open_label_reader(given: object) -> LabelReader:
    return LabelReader.from_pretrained(zoo.zoo_folder() / str(given or LABEL_READER))


def open_features(given: Mapping[str, object], cache: Path) -> FeatureNetwork:
    name = str(given["network"])
    if name == COLOR_LAYOUT:
        return ColorLayout()
    if name == INCEPTION:
        weights = given.get("weights")
        resize = str(given.get("resize", "clean"))
        return StoredFeatures(InceptionFeatures(None if weights is None else str(weights), resize), cache)
    return StoredFeatures(TextNetworkFeatures(open_text_network(name)), cache)


def open_text_network(given: object) -> ImageTextNetwork:
    folder = zoo.zoo_folder() / str(given)
    return open_image_text_network(folder if folder.is_dir() else user_path(given))


def open_classifier(given: object, characters: Sequence[str]) -> CharacterClassifier:
    """A classifier in a folder of this package, or in a file that its authors share."""
    path = user_path(given)
    classifier = CharacterClassifier.from_pretrained(path) if path.is_dir() else released_classifier(path, characters)
    if classifier.names != tuple(characters):
        raise ValueError(
            f"classifier {path} reads {', '.join(classifier.names)}, and the set has {', '.join(characters)}: "
            "give one that was trained on this set"
        )
    return classifier


# ------------------------------------------------------------------------------------------------ scores


class Neighbours(Generic[Waiting]):
    """Gives each story the next one of another cluster, in the order of the split; after the last come the first.

    Stories arrive in batches and wait here for such a story, so memory does not grow with their number.
    """

    def __init__(self, hand_on: Callable[[Waiting, Neighbour], None]) -> None:
        self.hand_on = hand_on
        self.waiting: list[tuple[Waiting, Neighbour]] = []
        self.first: list[Neighbour] = []  # of two clusters

    def add(self, story: Waiting, own: Neighbour) -> None:
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

    ``clusters`` maps each story's id to its episode or book; without it stories are independent.
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
        """Add a story with its neighbour, which gives the chance levels."""
        name, frames, own = story
        for metric in self.meeting():
            metric.judge_beside(name, frames, own, other)

    def meeting(self) -> list[DeclaredMetric]:
        """The metrics that judge each story together with another one."""
        return [metric for metric in self.metrics.values() if metric.meets_another]

    def finish(self) -> None:
        """Call this after the last batch."""
        self.neighbours.finish()

    def compute(self) -> dict[str, float]:
        """All scores by name; if two metrics have the same score, the later one counts."""
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

    def story_values(self) -> dict[str, Float[np.ndarray, " g"]]:
        """The part of each story, or of each episode or book, in each score that is a function of sums over stories."""
        values: dict[str, Tensor] = {}
        for metric in self.story_metrics_by_name().values():
            values |= metric.story_values(self.clusters)
        return {name: each.numpy() for name, each in values.items()}

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for metric in self.story_metrics_by_name().values():
            counts |= metric.counts()
        return counts

    def story_metrics_by_name(self) -> dict[str, StoryMetric]:
        """The metrics that keep one row of sums a story."""
        return {name: metric for name, metric in self.metrics.items() if isinstance(metric, StoryMetric)}


def new_metrics(
    protocol: Protocol,
    networks: Networks,
    characters: Sequence[str],
    num_frames: int,
    captions: EmbeddedCaptions | None,
) -> dict[str, DeclaredMetric]:
    """Empty metrics of the protocol's scores."""
    setting = Setting(
        characters,
        num_frames,
        0 if networks.features is None else feature_dim(networks.features),
        captions,
        protocol.num_negatives,
        protocol.subset_size,
        protocol.seed,
    )
    known = by_name()
    return {name: known[name].made(setting) for name in protocol.metrics}
