"""A metric declares itself once: protocols, judging, tables, plots and pages read it off the class.

  class Blue(StoryMetric):
      names = ("blue",)
      asked_as = "blue"                               # its name in a protocol's list
      columns = (Column("blue", "share of blue", PICTURES),)

      def update(self, frames, mask, ids=None): ...   # as any metric of this room

      def judge(self, drawn, truth):
          self.update(drawn.frames, truth.batch.mask, truth.batch.ids)

A file of this room that holds such a class is all that ``evaluate`` needs; a protocol asks for it by its name.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from torch import Tensor
from torchmetrics import Metric

from storydalle.metrics.embeddings import EmbeddedCaptions
from storydalle.metrics.seen import Neighbour, Seen, Truth

CHARACTERS, PICTURES, CONTINUATION = "Characters", "Pictures", "Continuation"
"""Tables of an evaluation, each with its legend."""
COMPARED, DIAGNOSED = "compared", "diagnosed"
"""Tables of two systems on the same stories, and of one system under other inputs."""
SCENE, GUESTS = "scene", "guests"
"""Tables of ToonSV alone."""
FAMILIES = (
    *(CHARACTERS, "Characters by number and by source", "Setting and action", "Guests and hats"),
    *(PICTURES, CONTINUATION),
)
"""Families of a report, in its order; a family that is not here stands behind these."""

NONE: Mapping[str, str] = MappingProxyType({})


class Column(NamedTuple):
    """A score in a table. A star stands for a network's label, in the score and in the heading."""

    score: str
    heading: str
    table: str
    place: int = 0  # the lower, the further left; in one place metrics keep their order


class Ranking(NamedTuple):
    """How stories are put in order, best first: by the mean of some scores, or of their opposites (``sign``)."""

    scores: tuple[str, ...]
    words: str
    sign: int = 1


class Extent(NamedTuple):
    """How much there is to score."""

    num_stories: int
    cluster_of_frame: Sequence[str]  # the episode or book of each frame
    feature_dim: int  # 0 without a feature network


class Setting(NamedTuple):
    """Facts on a split and its protocol, for a metric that is made for them."""

    characters: Sequence[str]
    num_frames: int  # of the longest story
    feature_dim: int
    captions: EmbeddedCaptions | None
    num_negatives: int | None
    subset_size: int | None
    seed: int


class DeclaredMetric(Metric):
    """The base of all metrics: each says here whatever others have to know of it."""

    full_state_update = False
    higher_is_better: bool | None = None
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    """Scores of which less is better, of a metric that has others too."""
    asked_as: ClassVar[str | None] = None
    """Its name in a protocol's list; None where no protocol can ask for it."""
    rank: ClassVar[int] = 1000
    """Metrics stand in this order, and those of one rank by their classes' names."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Networks of a protocol that it reads frames by: features, labels, classifier, text_network."""
    takes_many: ClassVar[bool] = False
    """True where a hundred stories are too few for it."""
    meets_another: ClassVar[bool] = False
    """True where each story is judged beside another one (``judge_beside``), which gives its chance level."""
    columns: ClassVar[tuple[Column, ...]] = ()
    legend: ClassVar[Mapping[str, str]] = NONE
    """Words under a table, by the table."""
    families: ClassVar[Mapping[str, str]] = NONE
    """In a report: patterns of its scores' whole names, by family."""
    details: ClassVar[str] = ""
    """A pattern of scores that a report shows on demand alone."""
    curves: ClassVar[Mapping[str, str]] = NONE
    """Titles of plots by position in the story, by the beginnings of the scores' names."""
    bars: ClassVar[Mapping[str, str]] = NONE
    """Titles of plots by name, likewise."""
    ranking: ClassVar[Ranking | None] = None
    explanations: ClassVar[Mapping[str, str]] = NONE
    """Two sentences on a score, by its name; ``<score>_at_<i>`` and ``<score>_slope`` stand for every score's."""
    questions: ClassVar[Mapping[str, str]] = NONE
    """Headings, by score, under which a page explains scores that have a chance level."""

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """Tell whether there is as much as the scores need."""
        return True

    @classmethod
    def recorded(cls, extent: Extent) -> dict[str, int]:
        """Fields of the protocol's record that are this metric's own."""
        return {}

    @classmethod
    def made(cls, setting: Setting) -> "DeclaredMetric":
        """An empty metric for a split."""
        return cls()

    def judge(self, drawn: Seen, truth: Truth) -> None:
        """Add a batch of drawn stories."""
        raise NotImplementedError

    def judge_beside(self, name: str, frames: Tensor, own: Neighbour, other: Neighbour) -> None:
        """Add one drawn story, ``(f, c, h, w)``; ``other`` is a story of another episode or book."""
        raise NotImplementedError

    def scores(self, label: str | None) -> dict[str, float]:
        """Scores by their full names; ``label`` is the feature network's."""
        return self.compute()


# ------------------------------------------------------------------------------------------------ all of them


@cache
def import_room() -> None:
    """Import every file of this room, so that its metrics are known."""
    room = importlib.import_module("storydalle.metrics")
    for module in pkgutil.iter_modules(room.__path__):
        if not module.ispkg:
            importlib.import_module(f"{room.__name__}.{module.name}")


def all_below(classes: Iterable[type[DeclaredMetric]]) -> Iterator[type[DeclaredMetric]]:
    """The classes, and those that are made of them."""
    for each in classes:
        yield each
        yield from all_below(each.__subclasses__())


def declared() -> list[type[DeclaredMetric]]:
    """Every metric, in order."""
    import_room()
    return sorted(
        dict.fromkeys(all_below(DeclaredMetric.__subclasses__())), key=lambda each: (each.rank, each.__name__)
    )


def by_name() -> dict[str, type[DeclaredMetric]]:
    """The metrics that a protocol can ask for."""
    asked = [each for each in declared() if each.__dict__.get("asked_as")]
    found = {str(each.asked_as): each for each in asked}
    assert len(found) == len(asked), f"two metrics are asked for by one name: {asked}"
    return found


def needs_of(metrics: Iterable[str]) -> set[str]:
    """The networks that some metrics read frames by."""
    known = by_name()
    return {need for name in metrics for need in known[name].needs}


def columns_of(table: str, more: Sequence[Column] = ()) -> dict[str, str]:
    """Headings by score; ``more`` are columns of what is no metric."""
    found = [column for each in declared() for column in each.columns]
    headings: dict[str, str] = {}
    for column in sorted([*found, *more], key=lambda column: column.place):
        if column.table == table:
            headings.setdefault(column.score, column.heading)
    return headings


def legend_of(table: str, more: Sequence[str] = ()) -> str:
    """The words of all metrics under a table, each sentence once."""
    said = [each.legend[table] for each in declared() if table in each.legend]
    return "; ".join(dict.fromkeys([*said, *more])) + "."


def family_patterns() -> dict[str, str]:
    """A report's families in order, each with the pattern of its scores' names."""
    patterns: dict[str, list[str]] = {title: [] for title in FAMILIES}
    for each in declared():
        for title, pattern in each.families.items():
            patterns.setdefault(title, []).append(pattern)
    return {title: "|".join(dict.fromkeys(each)) for title, each in patterns.items() if each}


def details() -> list[str]:
    """Patterns of scores that a report shows on demand alone."""
    return list(dict.fromkeys(each.details for each in declared() if each.details))


def explanation(name: str) -> str:
    """The two sentences on a score, by its full name; raises ``ValueError`` for a score that nobody explains."""
    explained = {score: text for each in declared() for score, text in each.explanations.items()}
    if re.fullmatch(r".*_at_\d+", name):
        name = "<score>_at_<i>"
    elif name.endswith("_slope"):
        name = "<score>_slope"
    if name not in explained:
        raise ValueError(f"no explanation of {name!r}: there are those of {', '.join(explained)}")
    return explained[name]
