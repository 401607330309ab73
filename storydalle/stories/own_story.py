"""A story of the user, as ``FolderStories`` reads it, and the checks of frames and texts for every layout."""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import NamedTuple

from storydalle.files.text import clean

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {**{split: split for split in SPLITS}, "validation": "val"}  # folder -> split
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
Names = tuple[tuple[str, ...], ...]  # of the characters of each frame


class RefusedStory(ValueError):
    """A story or row that is left out; the message becomes a ``Problem``'s ``what``, ``where`` its place if known."""

    def __init__(self, what: str, line: int | None = None, where: str | None = None) -> None:
        super().__init__(what)
        self.line, self.where = line, where


class OwnStory(NamedTuple):
    """A story before it is cut into windows."""

    id: str
    where: str  # the file and line that tell it
    split: str | None
    frames: tuple[str, ...]  # below the root
    captions: tuple[str, ...]  # one a frame
    characters: Names | None = None
    name_places: Mapping[str, str] = MappingProxyType({})  # where each name stands first


# ------------------------------------------------------------------------------------------------ texts


def checked_captions(captions: Sequence[str], num_frames: int) -> tuple[str, ...]:
    """One caption a frame; only that of the source may be empty.

    One caption less than frames is refused: either the source has none, or one was forgotten.
    """
    cleaned = tuple(clean(caption) for caption in captions)
    if num_frames < 2:
        raise RefusedStory(f"short story: {num_frames} frames; a story has 2 or more")
    if len(cleaned) == num_frames - 1:
        raise RefusedStory(
            f"two readings: {len(cleaned)} captions for {num_frames} frames; add the one that is missing, or an empty "
            "first one where the source has none",
            line=1,
        )
    if len(cleaned) != num_frames:
        raise RefusedStory(f"wrong number of captions: {len(cleaned)} for {num_frames} frames; give one a frame")
    if "" in cleaned[1:]:
        number = cleaned.index("", 1) + 1
        raise RefusedStory(f"no caption: the {number}. of {num_frames} is empty", line=number)
    return cleaned


def checked_names(value: object, num_frames: int) -> Names:
    """Names of characters, a list for each frame."""
    if not isinstance(value, list) or len(value) != num_frames:
        raise RefusedStory(f"characters: {value!r} is no list of {num_frames} lists of names, one a frame")
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in value):
        raise RefusedStory(f"characters: {value!r} holds something else than lists of names")
    return tuple(tuple(filter(None, map(clean, names))) for names in value)


def checked_split(value: object, of_folder: str | None) -> str | None:
    """The split that a row names, or else that of the folder which it lies in."""
    if value is not None and value not in SPLITS:
        raise RefusedStory(f"unknown split: {value!r} is none of {', '.join(SPLITS)}")
    if None not in (value, of_folder) and value != of_folder:
        raise RefusedStory(f"two splits: {value} in the folder of {of_folder}")
    return value or of_folder


def spelled_twice(places: Iterable[tuple[str, str]]) -> str | None:
    """A message about the first two names that differ only by case or spaces; None if there are no such names."""
    seen: dict[str, tuple[str, str]] = {}
    for name, place in places:
        key = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        first = seen.setdefault(key, (name, place))
        if first[0] != name:
            return f"{first[0]!r} ({first[1]}) and {name!r} ({place}) differ by case or spaces only: write one of them"
    return None


# ------------------------------------------------------------------------------------------------ frames


def below_root(frame: str, prefix: str = "") -> str:
    """A frame's path below the root in its shortest form; refuses one that is absolute or climbs out of the root.

    ``prefix`` is the path of the folder that it is relative to. A backslash separates folders like a slash, for tables
    written on Windows.
    """
    path = frame.replace("\\", "/")
    shortest = os.path.normpath(prefix + path)
    is_absolute = path.startswith("/") or PureWindowsPath(path).drive
    if not frame or "\0" in frame or is_absolute or Path(shortest).parts[:1] == ("..",):
        raise RefusedStory(
            f"outside the root: {frame!r}; paths are relative to the folder of their table and stay in it"
        )
    return Path(shortest).as_posix()


def is_picture(file: Path) -> bool:
    """True for the name of a picture; a broken link is one too, and is reported as missing when it is read."""
    return file.suffix.lower() in PICTURES and not file.name.startswith(".") and not file.is_dir()


def natural_order(name: str) -> tuple[list[tuple[str, int]], str]:
    """A sort key by which "2.png" comes before "10.png"; names of the same numbers are in plain order."""
    return [(text.casefold(), int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)], name


def in_order(names: Sequence[str], is_whole: bool = True) -> list[str]:
    """File names, ordered by the number in them; refused if numbers have a gap, occur twice or give two orders.

    If names have several numbers, the one that goes up in steps of one counts. ``is_whole``: no other story is numbered
    together with this one, so its first number must be 0 or 1, or above 9 as cameras number pictures.
    """
    if not names:
        return []
    numbers = {name: [int(digits) for digits in re.findall(r"[0-9]{1,18}", Path(name).stem)] for name in sorted(names)}
    if unnumbered := next((name for name, found in numbers.items() if not found), None):
        raise RefusedStory(f"no number: {unnumbered}; frames are in the order of the numbers in their names")
    places = range(min(map(len, numbers.values())))
    readings = [{name: found[place] for name, found in numbers.items()} for place in places]
    distinct = [reading for reading in readings if len(set(reading.values())) == len(names)]
    if not distinct:
        first, second = _same(max(readings, key=lambda reading: len(set(reading.values()))))
        raise RefusedStory(f"a frame twice: {first} and {second}")
    counting = [reading for reading in distinct if gap_in(reading.values(), is_whole) is None]
    orders = sorted({tuple(sorted(reading, key=reading.__getitem__)) for reading in counting})
    if not orders:
        gap = gap_in(distinct[0].values(), is_whole)
        assert gap is not None
        after = next(name for name, number in distinct[0].items() if number == gap.stop)
        raise RefusedStory(f"gap in numbering: {missing(gap)} before {after}")
    if len(orders) > 1:
        one, other = (", ".join(order[:3]) for order in orders[:2])
        raise RefusedStory(f"two orders: {one} or {other}; keep one number in their names")
    return list(orders[0])


def gap_in(numbers: Iterable[int], is_whole: bool = True) -> range | None:
    """The first missing numbers; None if none is missing. ``is_whole`` as in ``in_order``."""
    ordered = sorted(numbers)
    if is_whole and ordered[0] <= 9:
        ordered.insert(0, min(ordered[0], 1) - 1)
    return next((range(low + 1, high) for low, high in pairwise(ordered) if high > low + 1), None)


def missing(gap: range) -> str:
    return f"{gap[0]} is missing" if len(gap) == 1 else f"{gap[0]} to {gap[-1]} are missing"


def _same(reading: Mapping[str, int]) -> tuple[str, str]:
    """The first two names with the same number."""
    seen: dict[int, str] = {}
    for name, number in reading.items():
        if seen.setdefault(number, name) != name:
            return seen[number], name
    raise AssertionError("all numbers differ")
