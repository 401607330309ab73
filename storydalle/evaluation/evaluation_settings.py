"""The settings of an evaluation, read and checked once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from storydalle.mistakes import UserError, check_number, nearest
from storydalle.models.kinds import RERANKERS
from storydalle.settings import Count, OneOf, Seed, filled, mapping
from storydalle.stories.resizing import INTERPOLATIONS, LANCZOS


@dataclass(frozen=True)
class ProtocolSettings:
    """A file of ``conf/protocol``; ``metrics`` are without those that are left out."""

    name: str
    dataset: str
    splits: tuple[str, ...]
    num_stories: int | None
    resolution: int
    metrics: tuple[str, ...]
    texts: str | None
    features: Mapping[str, object] | None
    classifier: str | None
    text_network: str | None
    labels: str | None = None
    interpolation: str = LANCZOS


@dataclass(frozen=True)
class DataSettings:
    name: str
    config: Mapping[str, object]  # the whole group, of which the stories are made

    @property
    def num_targets(self) -> int | None:
        """Of a story that is drawn; None if they differ in length, as those of toon2 can."""
        number = self.config["num_targets"]
        if number is not None or self.name != "toon2":
            check_number("data.num_targets", number, 1, whole=True)
        assert number is None or isinstance(number, int)
        return number


@dataclass(frozen=True)
class EvaluationSettings:
    """The settings of ``storydalle evaluate``; ``conf/evaluate.yaml`` explains each of them."""

    data: DataSettings
    protocol: ProtocolSettings
    model: tuple[str, ...]
    text_to_image: str | None
    images: tuple[str, ...]
    layout: str | None
    stories_per_batch: int | None
    allow_partial: bool
    compare: str | None
    splits: tuple[str, ...]
    num_stories: Count | None
    batch_size: Count
    num_candidates: Count
    reranker: Annotated[str, OneOf(RERANKERS)]
    save: Path | None
    export: str | None
    diagnose: Count | None
    seed: Seed
    runs: Path
    out: str | None
    readme: tuple[str, ...]
    card: bool
    assertions: Path | None  # of the frames of ``images``, instead of scores
    leave_out: tuple[str, ...] = ()  # of the protocol's scores, which ``protocol.metrics`` has no more

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "EvaluationSettings":
        """Settings from a config's values; raises ``UserError`` for combinations that make no sense."""
        lists = {name: names_of(values[name]) for name in ("model", "images", "splits", "readme", "leave_out")}
        config = mapping("data", values["data"])
        data = {"name": config["name"], "config": config}
        if "protocol" not in values:
            raise UserError(
                f"no protocol is for data={data['name']}, so it cannot be evaluated; choose another data=NAME"
            )
        protocol = {**mapping("protocol", values["protocol"]), "metrics": checked_metrics(values)}
        return filled(cls, {**values, **lists, "data": data, "protocol": protocol})

    def __post_init__(self) -> None:
        if self.compare is not None and (self.images or self.card):
            raise UserError("compare= scores the models of several runs: leave out images= and card=")
        if self.assertions is not None and (self.model or not self.images):
            raise UserError(
                f"assertions={self.assertions} are checked on pictures: give images=FOLDER, as generate writes it, and "
                "no model"
            )
        if self.card and len(self.model) > 1:
            raise UserError(f"card=true fills the card of one model, and {len(self.model)} are given; give one")
        if self.export is not None and not self.images:
            raise UserError(f"export={self.export} copies the frames of images=: draw them first with save=DIR")
        if self.card and (self.data.name != "toon" or self.images):
            raise UserError(
                "card=true fills the card of a model for ToonSV, whose scores need no other data; leave it out"
            )


def checked_metrics(values: Mapping[str, object]) -> list[str]:
    """The protocol's metrics without those that are left out, once the protocol fits the data."""
    from storydalle.metrics.declared import by_name  # and with it torch

    protocol, data = mapping("protocol", values["protocol"]), mapping("data", values["data"])["name"]
    asked = names_of(protocol["metrics"])
    if protocol["dataset"] != data:
        raise UserError(
            f"protocol={protocol['name']} is for data={protocol['dataset']}, but data={data} was given: "
            f"give data={protocol['dataset']}, or another protocol"
        )
    left_out, known = names_of(values["leave_out"]), by_name()
    for name in (*asked, *left_out):
        if name not in known:
            raise UserError(f"no score {name!r} in a protocol; {nearest(str(name), known)}")
    if (way := protocol.get("interpolation", LANCZOS)) not in INTERPOLATIONS:
        raise UserError(f"no protocol.interpolation={way}; {nearest(str(way), list(INTERPOLATIONS))}")
    metrics = [name for name in asked if name not in left_out]
    if not metrics:
        raise UserError(f"leave_out={left_out} leaves nothing to score in protocol {protocol['name']}")
    return metrics


def names_of(value: object) -> list[str]:
    """One name or several, or none, as a list."""
    return [] if value is None else [str(name) for name in (value if isinstance(value, list) else [value])]
