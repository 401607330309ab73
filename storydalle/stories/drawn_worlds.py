"""The data sets that this package draws itself, by their names in ``conf/data``."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from storydalle.stories import toon, toonsv
from storydalle.stories.toon import ToonSV
from storydalle.stories.toonsv import ToonSV2


class World(NamedTuple):
    """Drawn stories, their splits, the columns of their label "characters", and a split's counts of each label."""

    stories: Callable[..., ToonSV | ToonSV2]
    splits: Collection[str]
    characters: tuple[str, ...]
    counts: Callable[[str], dict[str, dict[str, int]]]


WORLDS = {
    "toon": World(ToonSV, ToonSV.splits, toon.CHARACTERS, toon.counts),
    "toon2": World(ToonSV2, ToonSV2.splits, toonsv.COLUMNS, toonsv.counts),
}
