"""``StorySet``: stories as records, and the pictures of their clips, from a data set's own files.

A set is named in ``conf/data``, opened from the folder that a user got from its authors, and checked. Whatever is
missing or damaged becomes a ``Problem`` or a ``ValueError``; it never changes the number of stories silently.
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
    """A problem in a copy of a set: where, and what."""

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
    """An opened data set. Subclasses read all annotations, but no pictures, in their constructor.

    Raises ValueError, naming the file and the remedy, if an annotation file is missing or has another layout.
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
        """Lines about problems, for output that does not list them; none by default."""
        return []

    @property
    def empty_splits(self) -> tuple[str, ...]:
        """Splits that this set can have but this copy lacks."""
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
        """All frames of a clip in RGB, in order of time; raises ClipError for a missing or damaged one."""

    @abstractmethod
    def clip_file(self, clip: str) -> Path:
        """The file that holds a clip."""

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """The files that decide which stories there are."""

    def official_count(self, split: str) -> int | None:
        """The number of stories that authors or papers state for a split; None if this copy is cut in another way."""
        return self.official_counts.get(split)

    def unusable(self, hashes: Mapping[str, str]) -> list[Problem]:
        """Clips (as ``where``) whose stories must be left out, for problems that only the hashes of all clips show."""
        return []

    def contents(self) -> Mapping[str, int]:
        """Numbers of things in the copy before stories are cut or left out, such as its books."""
        return {}

    def credit(self, record: StoryRecord) -> str:
        """The credit to show with the pictures of a story."""
        return ""


def find_root(
    root: Path, name: str, markers: Sequence[str], remedy: str, holds: Callable[[Path], bool] | None = None
) -> Path:
    """Return ``root`` if it contains one of ``markers`` (glob patterns), or if ``holds`` recognises it.

    Raises ValueError if not, and says where the set seems to be: one level up, or up to two levels down.
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
    """A number below ``num_choices`` from a hash of the key: it chooses the frame of a clip for evaluation."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % num_choices
