"""Sizes that follow the number of the user's pictures: what conf/experiment/folder asks for by interpolation."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from storydalle.files.text import parsed


class Counted(NamedTuple):
    """What the train split holds."""

    stories: int = 1
    pictures: int = 2
    longest: int = 2  # pictures of the longest story


def register_resolvers() -> None:
    """Make known what a config may ask of the stories that it names as ``data.train``.

    ``${own:pictures}`` is a count. ``${by_pictures:{0:400,200:800}}`` is the value of the largest number that the
    count of pictures reaches. ``${stories_with:16}`` is the number of stories that hold about 16 pictures, one at
    least and all at most.
    """
    for name, resolver in (("own", _own), ("by_pictures", _by_pictures), ("stories_with", _stories_with)):
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _own(what: str, *, _root_: Any) -> int:
    return getattr(counted(_root_), what)


def _by_pictures(values: Mapping[int, Any], *, _root_: Any) -> Any:
    pictures = counted(_root_).pictures
    return values[max(bound for bound in values if bound <= pictures)]


def _stories_with(pictures: int, *, _root_: Any) -> int:
    found = counted(_root_)
    return max(1, min(found.stories, pictures * found.stories // found.pictures))


def counted(config: Any) -> Counted:
    """Counts of the training stories; the smallest where ``data.root`` is not set yet.

    They are the smallest for a set that cannot be opened, too: building the model then tells why.
    """
    if OmegaConf.select(config, "data.root") is None:
        return Counted()
    from hydra.errors import InstantiationException

    try:
        return _counted(json.dumps(OmegaConf.to_container(config.data.train, resolve=True), sort_keys=True))
    except InstantiationException:
        return Counted()


@lru_cache(maxsize=1)  # a config asks for several sizes
def _counted(data: str) -> Counted:
    from hydra.utils import instantiate

    stories = instantiate(parsed(data))
    return Counted(len(stories), len(stories.clips()), 1 + int(stories.story_lengths().max()))


def sizes_told(settings: Mapping[str, Any], given: frozenset[str]) -> str:
    """A line that tells which settings follow the number of pictures, and which the user has given instead."""
    sized = settings["sized"]
    values = {key: OmegaConf.select(OmegaConf.create(dict(settings)), key) for key in sized["settings"]}
    told = ", ".join(f"{key}={value}{' (as given)' if key in given else ''}" for key, value in values.items())
    return f"sized for {sized['pictures']} pictures in {sized['stories']} stories of train: {told}"
