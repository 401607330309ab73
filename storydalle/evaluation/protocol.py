"""A protocol: everything that must agree before two numbers can be compared, as one frozen, hashed record."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from storydalle.evaluation.evaluation_settings import ProtocolSettings
from storydalle.files.records import canonical_json, protocol_hash, sha256_of_file, sha256_of_text
from storydalle.metrics.declared import Extent, by_name, needs_of
from storydalle.metrics.networks.features import feature_dim
from storydalle.metrics.seen import Networks
from storydalle.models import zoo
from storydalle.settings import mapping

if TYPE_CHECKING:
    from storydalle.evaluation.splits import Split

LABEL_READER = "label_reader"

SCORES = 2
"""Version of all scores: raise it when the computation of a score changes, so that older numbers have another hash.

2: the kernel distance compares frames of different stories; every frame is judged as the 8-bit picture that is saved;
probes take other inputs from the story before, in the order of the split.
"""
FRAME_CHOICE = "sha256 of the clip's name"
AVERAGING = "ratios of sums over stories; characters micro and macro"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that a protocol needs."""

    name: str
    sha256: str  # of its weights
    resize: str | None = None  # how images reach the network's own size, where that is a choice


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A measurement: its stories, its judges, and its scores.

    ``resolution`` is the size in pixels at which real and drawn frames are judged, and ``interpolation`` the way they
    are resized. ``texts`` names the texts that pictures are compared with. ``data`` holds the options that the choice
    of stories depends on, such as the window.
    """

    name: str
    dataset: str
    version: str
    data: Mapping[str, object]
    split: str
    num_stories: int
    stories: str  # sha256 of the ids, in order
    num_targets: int | None  # None where stories differ in length
    resolution: int
    metrics: tuple[str, ...]
    frame_choice: str = FRAME_CHOICE
    interpolation: str = "centre square, lanczos"
    averaging: str = AVERAGING
    texts: str | None = None
    features: Network | None = None
    labels: Network | None = None
    classifier: Network | None = None
    text_network: Network | None = None
    num_negatives: int | None = None
    subset_size: int | None = None  # frames of a side, of which the kernel distance compares many subsets
    scores: int = SCORES
    seed: int = 0  # of what the judging itself draws: negatives, subsets
    left_out: str | None = None  # sha256 of the ids of stories that were not drawn whole, where that was allowed

    def record(self) -> dict[str, object]:
        """The fields as json knows them."""
        return asdict(self) | {"data": dict(self.data), "metrics": sorted(self.metrics)}

    @property
    def hash(self) -> str:
        """sha256 of the record's canonical json."""
        return protocol_hash(self.record())


def sha256_of_ids(ids: Sequence[str]) -> str:
    return sha256_of_text(canonical_json(list(ids)))


# ------------------------------------------------------------------------------------------------ of a split


def protocol_of(asked: ProtocolSettings, split: "Split", networks: Networks) -> Protocol:
    """The protocol for a split, without scores that need more stories than it has."""
    stories, clusters = split.judged, split.clusters
    outlines = [stories.outline(index) for index in range(len(stories))]
    lengths = {len(outline.captions) for outline in outlines}
    features, text, known = networks.features, networks.text, by_name()
    cluster_of_frame = [clusters[outline.id] for outline in outlines for _ in outline.captions]
    extent = Extent(len(outlines), cluster_of_frame, 0 if features is None else feature_dim(features))
    metrics = [name for name in asked.metrics if known[name].is_enough(extent)]
    recorded = {field: value for name in metrics for field, value in known[name].recorded(extent).items()}
    needed = needs_of(metrics)
    resize = (asked.features or {}).get("resize")
    resize = None if resize is None else str(resize)
    return Protocol(
        name=asked.name,
        dataset=asked.dataset,
        version=stories.fingerprint(),
        data=options_of(split.data.settings.data.config),
        split=split.name,
        num_stories=len(outlines),
        stories=sha256_of_ids([outline.id for outline in outlines]),
        num_targets=lengths.pop() if len(lengths) == 1 else None,
        resolution=stories.resolution,
        interpolation=f"centre square, {asked.interpolation}",
        metrics=tuple(metrics),
        texts=asked.texts if text else None,
        features=Network(name=features.name, sha256=features.sha256, resize=resize) if features else None,
        labels=reader_record(label_reader_of(asked)) if "labels" in needed else None,
        classifier=classifier_record(asked, networks) if "classifier" in needed else None,
        text_network=Network(name=text.name, sha256=text.sha256) if text else None,
        num_negatives=recorded.get("num_negatives"),
        subset_size=recorded.get("subset_size"),
        left_out=sha256_of_ids(sorted(split.left_out)) if split.left_out else None,
    )


def label_reader_of(asked: ProtocolSettings) -> str:
    """The folder of the label reader among the shipped weights."""
    return asked.labels or LABEL_READER


def reader_record(name: str) -> Network:
    """The label reader of that name among the shipped weights."""
    return Network(name=name, sha256=sha256_of_file(zoo.zoo_folder() / name / zoo.WEIGHTS_NAME))


def classifier_record(asked: ProtocolSettings, networks: Networks) -> Network:
    if networks.characters is None:
        return reader_record(label_reader_of(asked))
    assert networks.characters.weights_sha256 is not None, "a classifier that was opened from a file"
    return Network(name=type(networks.characters).__name__, sha256=networks.characters.weights_sha256)


def options_of(data: Mapping[str, object]) -> dict[str, object]:
    """The settings of the data that the choice of stories depends on, without paths."""
    options = mapping("data.set", data.get("set", {"num_targets": data.get("num_targets")}))
    return {key: value for key, value in options.items() if key not in ("_target_", "root", "photos")}
