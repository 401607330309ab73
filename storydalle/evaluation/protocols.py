"""A protocol of ``conf/protocol`` made real: its networks opened, its record filled, its scores made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from storydalle.evaluation.judging import Scorecard, new_metrics
from storydalle.evaluation.protocol import Network, Protocol, sha256_of_ids
from storydalle.files.paths import user_path
from storydalle.files.records import sha256_of_file
from storydalle.metrics.declared import Extent, by_name
from storydalle.metrics.embeddings import EmbeddedCaptions
from storydalle.metrics.networks.character_classifier import CharacterClassifier, released_classifier
from storydalle.metrics.networks.clip import open_image_text_network
from storydalle.metrics.networks.feature_store import StoredFeatures
from storydalle.metrics.networks.features import (
    ColorLayout,
    FeatureNetwork,
    InceptionFeatures,
    TextNetworkFeatures,
    feature_dim,
)
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.metrics.seen import Judges
from storydalle.mistakes import UserError, nearest
from storydalle.models import kinds
from storydalle.stories.resizing import INTERPOLATIONS, LANCZOS
from storydalle.stories.story import Stories

LABEL_READER, COLOR_LAYOUT, INCEPTION = "label_reader", "color_layout", "inception"


def check_protocol(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol's settings, with the scores that are left out taken away."""
    protocol = settings["protocol"]
    data = settings["data"]["name"]
    if protocol["dataset"] != data:
        raise UserError(
            f"protocol={protocol['name']} is of data={protocol['dataset']}, and data={data} was given: "
            f"give data={protocol['dataset']}, or another protocol"
        )
    left_out = names_of(settings["leave_out"])
    known = by_name()
    for name in (*protocol["metrics"], *left_out):
        if name not in known:
            raise UserError(f"no score {name!r} in a protocol; {nearest(str(name), known)}")
    if (way := protocol.get("interpolation", LANCZOS)) not in INTERPOLATIONS:
        raise UserError(f"no protocol.interpolation={way}; {nearest(str(way), list(INTERPOLATIONS))}")
    metrics = [name for name in protocol["metrics"] if name not in left_out]
    if not metrics:
        raise UserError(f"leave_out={left_out} leaves no score of protocol {protocol['name']}")
    return protocol | {"metrics": metrics}


def names_of(value: Any) -> list[str]:
    return [] if value is None else [str(name) for name in (value if isinstance(value, list) else [value])]


# ------------------------------------------------------------------------------------------------ networks


def open_judges(protocol: Mapping[str, Any], characters: Sequence[str], cache: Path) -> Judges:
    """The networks that the protocol's scores ask for; what is missing is told with the file to bring.

    What the feature network sees is kept in ``cache``, so that the same pictures are not seen twice.
    """
    needed = needs_of(protocol["metrics"])
    if "classifier" in needed and protocol["classifier"] == LABEL_READER:  # which is then read once for both
        needed = needed - {"classifier"} | {"labels"}
    return Judges(
        features=opened(protocol, "features", lambda given: open_features(given, cache), needed),
        labels=opened(protocol, "labels", open_label_reader, needed),
        characters=opened(protocol, "classifier", lambda given: open_classifier(given, characters), needed),
        text=opened(protocol, "text_network", open_text_network, needed),
    )


def needs_of(metrics: Iterable[str]) -> set[str]:
    """The networks that some metrics read frames by."""
    known = by_name()
    return {need for name in metrics for need in known[name].needs}


def opened(protocol: Mapping[str, Any], role: str, open_network: Callable[[Any], Any], needed: Iterable[str]) -> Any:
    if role not in needed:
        return None
    asking = [name for name in protocol["metrics"] if role in by_name()[name].needs]
    remedy = f"leave_out='[{','.join(asking)}]' leaves out what it scores"
    given = protocol.get(role)
    if given is None and role != "labels":
        raise UserError(
            f"protocol {protocol['name']} scores {' and '.join(asking)} and has no {role}: "
            f"give protocol.{role}=..., or {remedy}"
        )
    try:
        return open_network(given)
    except (ValueError, OSError) as error:
        raise UserError(f"{error}; or {remedy}") from error


def open_label_reader(_: Any = None) -> LabelReader:
    return LabelReader.from_pretrained(kinds.zoo_folder() / LABEL_READER)


def open_features(given: Mapping[str, Any], cache: Path) -> FeatureNetwork:
    name = str(given["network"])
    if name == COLOR_LAYOUT:
        return ColorLayout()
    if name == INCEPTION:
        return StoredFeatures(InceptionFeatures(given.get("weights"), given.get("resize", "clean")), cache)
    return StoredFeatures(TextNetworkFeatures(open_text_network(name)), cache)


def open_text_network(given: Any) -> Any:
    folder = kinds.zoo_folder() / str(given)
    return open_image_text_network(folder if folder.is_dir() else user_path(given))


def open_classifier(given: Any, characters: Sequence[str]) -> Any:
    """A folder of ours, or a file as its authors share it."""
    path = user_path(given)
    classifier = CharacterClassifier.from_pretrained(path) if path.is_dir() else released_classifier(path, characters)
    if classifier.names != tuple(characters):
        raise ValueError(
            f"classifier {path} reads {', '.join(classifier.names)}, and the set has {', '.join(characters)}: "
            "give one that was trained on this set"
        )
    return classifier


# ------------------------------------------------------------------------------------------------ record


def protocol_of(
    settings: Mapping[str, Any],
    stories: Stories,
    split: str,
    judges: Judges,
    clusters: Mapping[str, str],
    left_out: Sequence[str] = (),
) -> Protocol:
    """The record of what is measured on these stories; ``left_out`` are those whose pictures are not whole."""
    chosen = settings["protocol"]
    outlines = [stories.outline(index) for index in range(len(stories))]
    lengths = {len(outline.captions) for outline in outlines}
    cluster_of_frame = [clusters[outline.id] for outline in outlines for _ in outline.captions]
    features, text = judges.features, judges.text
    extent = Extent(len(outlines), cluster_of_frame, 0 if features is None else feature_dim(features))
    known = by_name()
    metrics = [name for name in chosen["metrics"] if known[name].is_enough(extent)]
    needed = needs_of(metrics)
    recorded = {field: value for name in metrics for field, value in known[name].recorded(extent).items()}
    return Protocol(
        name=chosen["name"],
        dataset=chosen["dataset"],
        version=stories.fingerprint(),
        data=options_of(settings["data"]),
        split=split,
        num_stories=len(outlines),
        stories=sha256_of_ids([outline.id for outline in outlines]),
        num_targets=lengths.pop() if len(lengths) == 1 else None,
        resolution=stories.resolution,
        interpolation=f"centre square, {chosen.get('interpolation', LANCZOS)}",
        metrics=tuple(metrics),
        texts=chosen["texts"] if text else None,
        features=Network(name=features.name, sha256=features.sha256, resize=chosen["features"].get("resize"))
        if features
        else None,
        labels=label_reader_record() if "labels" in needed else None,
        classifier=classifier_record(judges) if "classifier" in needed else None,
        text_network=Network(name=text.name, sha256=text.sha256) if text else None,
        num_negatives=recorded.get("num_negatives"),
        subset_size=recorded.get("subset_size"),
        left_out=sha256_of_ids(sorted(left_out)) if left_out else None,
    )


def label_reader_record() -> Network:
    return Network(name=LABEL_READER, sha256=sha256_of_file(kinds.zoo_folder() / LABEL_READER / kinds.WEIGHTS))


def classifier_record(judges: Judges) -> Network:
    if judges.characters is None:
        return label_reader_record()
    assert judges.characters.weights_sha256 is not None, "a classifier that was opened from a file"
    return Network(name=type(judges.characters).__name__, sha256=judges.characters.weights_sha256)


def options_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What of the data's settings decides which stories there are, but not where they lie."""
    options = data.get("set", {"num_targets": data.get("num_targets")})
    return {key: value for key, value in options.items() if key not in ("_target_", "root", "photos")}


class Scoring(NamedTuple):
    """What the rows of a split share."""

    protocol: Protocol
    judges: Judges
    characters: Sequence[str]
    num_frames: int  # of the longest story
    clusters: Mapping[str, str]
    captions: EmbeddedCaptions | None

    def scorecard(self) -> Scorecard:
        """Empty scores of one row."""
        metrics = new_metrics(self.protocol, self.judges, self.characters, self.num_frames, self.captions)
        label = self.judges.features.label if self.judges.features else None
        return Scorecard(metrics, self.clusters, label)


def captions_of(texts: str, stories: Stories, judges: Judges) -> EmbeddedCaptions:
    """What each frame is compared with: its caption, or its own description where the set has one."""
    outlines = (stories.outline(index) for index in range(len(stories)))
    told = {
        outline.id: outline.descriptions[1:] if texts == "descriptions" and outline.descriptions else outline.captions
        for outline in outlines
    }
    assert judges.text is not None
    return EmbeddedCaptions.of(told, judges.text.embed_captions)
