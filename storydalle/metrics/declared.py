"""A metric is declared once, on its class: protocols, judging, tables, plots and pages read the declaration.

  class Blue(StoryMetric):
      names = ("blue",)
      asked_as = "blue"                               # its name in a protocol's list
      columns = (Column("blue", "share of blue", PICTURES),)

      def update(self, frames, mask, ids=None): ...   # as any metric of this room

      def judge(self, drawn, truth):
          self.update(drawn.frames, truth.batch.mask, truth.batch.ids)

A file in this folder with such a class is all that ``evaluate`` needs; a protocol lists the metric by its name.
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

COMPARED, DIAGNOSED = "compared", "diagnosed"
"""Tables of two systems on the same stories, and of one system under other inputs."""
SCENE, GUESTS = "scene", "guests"
"""Tables of ToonSV alone."""
NONE: Mapping[str, str] = MappingProxyType({})


class Column(NamedTuple):
    """A score in a table. A star in score and heading stands for the label of a network."""

    score: str
    heading: str
    table: str
    place: int = 0  # columns are sorted by this; equal ones are in the order of metrics


class Ranking(NamedTuple):
    """The order of stories, best first: by the mean of some scores, times ``sign``."""

    scores: tuple[str, ...]
    words: str
    sign: int = 1


class Extent(NamedTuple):
    """The amount of data to score."""

    num_stories: int
    cluster_of_frame: Sequence[str]  # the episode or book of each frame
    feature_dim: int  # 0 without a feature network


class Setting(NamedTuple):
    """Facts about a split and its protocol, from which a metric is built."""

    characters: Sequence[str]
    num_frames: int  # of the longest story
    feature_dim: int
    captions: EmbeddedCaptions | None
    num_negatives: int | None
    subset_size: int | None
    seed: int


class DeclaredMetric(Metric):
    """The base of all metrics: class attributes declare everything that other parts need to know."""

    full_state_update = False
    higher_is_better: bool | None = None
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    """Scores for which lower is better, in a metric that also has others."""
    asked_as: ClassVar[str | None] = None
    """Its name in the list of a protocol; None if a protocol cannot list it."""
    rank: ClassVar[int] = 1000
    """Metrics are sorted by this; equal ranks by the names of classes."""
    needs: ClassVar[tuple[str, ...]] = ()
    """The networks that it needs: features, labels, classifier, text_network."""
    takes_many: ClassVar[bool] = False
    """True if a hundred stories are too few for it."""
    meets_another: ClassVar[bool] = False
    """True if each story is judged together with another one (``judge_beside``), which gives the chance level."""
    columns: ClassVar[tuple[Column, ...]] = ()
    legend: ClassVar[Mapping[str, str]] = NONE
    """Text under a table, by table."""
    families: ClassVar[Mapping[str, str]] = NONE
    """Regular expressions for the full names of its scores in a report, by family."""
    details: ClassVar[str] = ""
    """A regular expression for scores that a report shows only on request."""
    curves: ClassVar[Mapping[str, str]] = NONE
    """Titles of plots over the position in the story, by the beginning of the scores' names."""
    bars: ClassVar[Mapping[str, str]] = NONE
    """Titles of bar plots, by the beginning of the scores' names."""
    ranking: ClassVar[Ranking | None] = None
    explanations: ClassVar[Mapping[str, str]] = NONE
    """Two sentences about a score, by its name; ``<score>_at_<i>`` and ``<score>_slope`` hold for all scores."""
    questions: ClassVar[Mapping[str, str]] = NONE
    """Headings, by score, of the sections in which a page explains scores with a chance level."""

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """True if there is enough data for the scores."""
        return True

    @classmethod
    def recorded(cls, extent: Extent) -> dict[str, int]:
        """Fields that this metric adds to the protocol's record."""
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
    """Import every file in this folder, so that its metrics are known."""
    room = importlib.import_module("storydalle.metrics")
    for module in pkgutil.iter_modules(room.__path__):
        if not module.ispkg:
            importlib.import_module(f"{room.__name__}.{module.name}")


def all_below(classes: Iterable[type[DeclaredMetric]]) -> Iterator[type[DeclaredMetric]]:
    """The classes and all their subclasses."""
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
    """The metrics that a protocol can list."""
    asked = [each for each in declared() if each.__dict__.get("asked_as")]
    found = {str(each.asked_as): each for each in asked}
    assert len(found) == len(asked), f"two metrics are asked for by one name: {asked}"
    return found


def needs_of(metrics: Iterable[str]) -> set[str]:
    """The networks that some metrics need."""
    known = by_name()
    return {need for name in metrics for need in known[name].needs}


def columns_of(table: str, more: Sequence[Column] = ()) -> dict[str, str]:
    """Headings by score; ``more`` are columns of values that are not metrics."""
    found = [column for each in declared() for column in each.columns]
    headings: dict[str, str] = {}
    for column in sorted([*found, *more], key=lambda column: column.place):
        if column.table == table:
            headings.setdefault(column.score, column.heading)
    return headings


def legend_of(table: str, more: Sequence[str] = ()) -> str:
    """The text of all metrics under a table, each sentence once."""
    said = [each.legend[table] for each in declared() if table in each.legend]
    return "; ".join(dict.fromkeys([*said, *more])) + "."


def explanation(name: str) -> str:
    """The two sentences about a score, by its full name; ``ValueError`` for a score without an explanation."""
    explained = {score: text for each in declared() for score, text in each.explanations.items()}
    if re.fullmatch(r".*_at_\d+", name):
        name = "<score>_at_<i>"
    elif name.endswith("_slope"):
        name = "<score>_slope"
    if name not in explained:
        raise ValueError(f"no explanation of {name!r}: there are those of {', '.join(explained)}")
    return explained[name]
