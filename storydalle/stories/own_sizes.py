"""Sizes that follow the number of the user's pictures: what conf/experiment/folder asks for by interpolation."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from storydalle.files import dotted

if TYPE_CHECKING:  # which would bring torch along
    from storydalle.stories.story import Stories


class Counted(NamedTuple):
    """Numbers of the train split; by default the smallest that train."""

    stories: int = 1
    pictures: int = 2
    longest: int = 2  # pictures of the longest story


def count(stories: "Stories") -> Counted:
    return Counted(len(stories), len(stories.clips()), 1 + int(stories.story_lengths().max()))


def own(counted: Counted, name: str) -> int:
    """``${own:pictures}``: a count."""
    return counted._asdict()[name]


def by_pictures(counted: Counted, values: Mapping[int, object]) -> object:
    """``${by_pictures:{0:400,200:800}}``: the value of the largest number that the count of pictures reaches."""
    return values[max(bound for bound in values if bound <= counted.pictures)]


def stories_with(counted: Counted, pictures: int) -> int:
    """``${stories_with:16}``: how many stories hold about 16 pictures, one at least and all at most."""
    return max(1, min(counted.stories, pictures * counted.stories // counted.pictures))


RESOLVERS: dict[str, Callable[..., object]] = {"own": own, "by_pictures": by_pictures, "stories_with": stories_with}


def sizes_told(settings: Mapping[str, object], given: frozenset[str]) -> str:
    """A line that tells which settings follow the number of pictures, and which the user has given instead."""
    sized = settings["sized"]
    assert isinstance(sized, Mapping)
    values = {key: dotted.value_at(settings, key) for key in sized["settings"]}
    told = ", ".join(f"{key}={value}{' (as given)' if key in given else ''}" for key, value in values.items())
    return f"sized for {sized['pictures']} pictures in {sized['stories']} stories of train: {told}"
