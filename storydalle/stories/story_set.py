"""``StorySet``: stories as records, and the pictures of their clips, read off a data set's own files.

A set is named once (``conf/data``), opened from the folder that a user got from its authors, and checked: what is
missing or damaged becomes a named ``Problem`` or one ``ValueError``, never a silent change of the number of stories.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from PIL import Image

from storydalle.files.paths import user_path


class Problem(NamedTuple):
    """Something that is wrong with a copy of a set: where, and what."""

    where: str  # a file below the root, or the key of a clip or story
    what: str  # "missing", "truncated", ...: one of few words first, then details


@dataclass(frozen=True)
class StoryRecord:
    """A story before its pictures are read: ``clips[0]`` shows the source, the others one target each."""

    id: str  # unique within the set, and the same in every copy of it
    clips: tuple[str, ...]
    captions: tuple[str, ...]  # one a clip; "" where the set has none (often the source's)
    group: str  # what stories may share besides clips: an episode, a book, a video
    characters: tuple[tuple[int, ...], ...] | None = None  # a clip's row of 0 and 1 over the set's ``characters``

    def __post_init__(self) -> None:
        assert len(self.clips) == len(self.captions) > 1
        assert self.characters is None or len(self.characters) == len(self.clips)


class StorySet(ABC):
    """A story data set, opened. Subclasses read all annotations when they are made, and no picture.

    Raises ValueError, naming the file and the remedy, where an annotation file is missing or has another layout.
    """

    name: ClassVar[str]
    whole: ClassVar[str] = "whole stories"  # what stories are cut from, as the set calls it
    has_pictures: ClassVar[bool] = True
    characters: Sequence[str] = ()
    to_fill_a_split: ClassVar[str] = "choose another"
    official_counts: ClassVar[Mapping[str, int]] = {}  # stories of each split, as its authors or papers state them

    def __init__(self, root: str | Path | None) -> None:
        if root is None:
            raise ValueError(f"data.root is not set: give the folder of your copy of {self.name}, data.root=DIR")
        self.root = user_path(root)
        self._records: dict[str, list[StoryRecord]] = {}  # of each split; subclasses fill it when they are made
        self.problems: list[Problem] = []  # found in the annotations; pictures are checked when they are read
        self.notes: list[str] = []  # of the whole copy, what its user should know at every use

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._records)

    @property
    def problem_notes(self) -> list[str]:
        """Lines about the problems where they are not listed; none by default."""
        return []

    @property
    def empty_splits(self) -> tuple[str, ...]:
        """Splits that a copy of this set may have and this one lacks."""
        return ()

    def records(self, split: str) -> list[StoryRecord]:
        """The stories of a split, always in the same order; ValueError where the set has none."""
        if not self._records.get(split):
            filled = ", ".join(other for other, records in self._records.items() if records)
            raise ValueError(
                f"split {split} of {self.name} has no story ({filled or 'none'} have): {self.to_fill_a_split}"
            )
        return list(self._records[split])

    @abstractmethod
    def pictures(self, clip: str) -> list[Image.Image]:
        """All frames of a clip, RGB, in time; raises ClipError for a missing or damaged one."""

    @abstractmethod
    def clip_file(self, clip: str) -> Path:
        """The file that holds a clip."""

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """The files that decide which stories there are."""

    def official_count(self, split: str) -> int | None:
        """The stories that its authors or papers state of a split; None where this copy's is cut otherwise."""
        return self.official_counts.get(split)

    def unusable(self, hashes: Mapping[str, str]) -> list[Problem]:
        """Clips, as ``where``, whose stories are to be left out for what only the hashes of all clips can show."""
        return []

    def contents(self) -> Mapping[str, int]:
        """Counts of what the copy holds before stories are cut or left out, such as its books."""
        return {}

    def credit(self, record: StoryRecord) -> str:
        """The credit that stands beside the pictures of a story when they are shown."""
        return ""


def find_root(
    root: Path, name: str, markers: Sequence[str], remedy: str, holds: Callable[[Path], bool] | None = None
) -> Path:
    """``root`` where it holds one of ``markers`` (glob patterns), or what ``holds`` knows them by.

    Raises ValueError where it does not, saying where the set seems to be: one level up, or up to two down.
    """
    if not root.is_dir():
        raise ValueError(f"data.root={root} is no folder: give the folder of your copy of {name}")

    def has_marker(folder: Path) -> bool:
        return any(next(folder.glob(marker), None) is not None for marker in markers)

    holds = holds or has_marker

    def seems(folder: Path) -> bool:
        with suppress(OSError):  # a folder of somebody else's
            return holds(folder)
        return False

    if holds(root):
        return root
    below = (folder for pattern in ("*", "*/*") for folder in sorted(root.glob(pattern)) if folder.is_dir())
    near = next((folder for folder in (root.resolve().parent, *below) if seems(folder)), None)
    hint = f"it seems to be in {near}: give data.root={near}" if near else remedy
    raise ValueError(f"data.root={root} holds no {name} ({' or '.join(markers)} is missing); {hint}")


def fixed_choice(key: str, num_choices: int) -> int:
    """One of ``num_choices``, by a hash of the key: the frame of a clip that every evaluation sees."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % num_choices
