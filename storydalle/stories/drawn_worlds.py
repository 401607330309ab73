"""The data sets that this package draws itself, by their names in ``conf/data``."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from storydalle.stories import toon, toonsv
from storydalle.stories.toon import ToonSV, captions
from storydalle.stories.toon.world import MOST_GUESTS, MOST_SHOWN
from storydalle.stories.toonsv import ToonSV2, casting, vocabulary


class World(NamedTuple):
    """A drawn world: its stories, what their labels mean, how many it shows, and its words."""

    name: str
    title: str
    stories: Callable[..., ToonSV | ToonSV2]
    splits: Collection[str]
    characters: tuple[str, ...]  # the columns of the label "characters"
    counts: Callable[[str], dict[str, dict[str, int]]]  # of a split: of each label
    most_shown: int  # characters of a frame
    most_guests: int  # of a story
    shares: str  # what the characters of a frame have in common
    vocabulary: Callable[[], dict[str, dict[str, tuple[str, ...]]]]  # phrases by a heading and by what they tell


WORLDS = {
    "toon": World(
        name="toon",
        title=ToonSV.title,
        stories=ToonSV,
        splits=ToonSV.splits,
        characters=toon.CHARACTERS,
        counts=toon.counts,
        most_shown=MOST_SHOWN,
        most_guests=MOST_GUESTS,
        shares="All of a frame do the same, and one of them can hold a thing; guests wear no hats.",
        vocabulary=captions.vocabulary,
    ),
    "toon2": World(
        name="toon2",
        title=ToonSV2.title,
        stories=ToonSV2,
        splits=ToonSV2.splits,
        characters=toonsv.COLUMNS,
        counts=toonsv.counts,
        most_shown=casting.MOST,
        most_guests=max(casting.NUM_GUESTS),
        shares="Each does something of its own, and can hold a thing and wear a hat; guests wear no hats.",
        vocabulary=vocabulary.vocabulary,
    ),
}
