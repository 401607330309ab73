"""folder: your own stories, as folders of pictures with a captions.txt, or as rows of a stories.jsonl (data/folder)."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from storydalle.stories.pictures import open_picture
from storydalle.stories.reading import read_text
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root, fixed_choice
from storydalle.stories.text import clean, split_lines

SPLITS = ("train", "val", "test")
TENTHS = ("train",) * 8 + ("val", "test")
ROWS, CAPTIONS = "stories.jsonl", "captions.txt"
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})


class _Refused(ValueError):
    """A story that is left out; the message is a ``Problem``'s ``what``."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.line = line


class _Story(NamedTuple):
    id: str
    split: str | None
    frames: tuple[str, ...]
    captions: tuple[str, ...]
    names: tuple[tuple[str, ...], ...] | None = None  # of the characters of each frame


class FolderStories(StorySet):
    """Stories of any length from 2 frames; a ``num_targets`` cuts them into windows, one every ``stride`` frames.

    Their split is the sub-folder (train, val, test) or the key "split" of a row; where no story has one, it is chosen
    by a hash of the story's id. ``characters`` are the names in the rows, sorted.
    """

    name = "folder"
    to_fill_a_split = f'put stories into sub-folders {", ".join(SPLITS)}, or give rows a "split"'
    characters: Sequence[str]  # Read off the rows, so it differs from object to object.

    def __init__(self, root: str | Path | None, num_targets: int | None = None, stride: int = 1) -> None:
        super().__init__(root)
        if stride < 1 or (num_targets is not None and num_targets < 1):
            raise ValueError(f"num_targets={num_targets} and stride={stride}: both are 1 or more")
        markers = [ROWS, f"*/{CAPTIONS}", *(f"{split}/*/{CAPTIONS}" for split in SPLITS)]
        remedy = f"make a folder a story, with its pictures and {CAPTIONS} in it"
        find_root(self.root, "stories", markers, remedy)
        self.num_targets, self.stride = num_targets, stride
        self._annotation_files: list[Path] = []
        stories = self._read_rows() if (self.root / ROWS).is_file() else self._read_folders()
        self.characters = tuple(sorted({name for story in stories for row in story.names or () for name in row}))
        records: dict[str, list[StoryRecord]] = {split: [] for split in SPLITS}
        for story in stories:
            records[story.split or TENTHS[fixed_choice(story.id, 10)]].extend(self._cut(story))
        self._records = {split: found for split, found in records.items() if found}
        if not self._records:
            first = f": {self.problems[0].where}: {self.problems[0].what}" if self.problems else ""
            raise ValueError(f"data.root={root} gives no story{first}")

    def pictures(self, clip: str) -> list[Image.Image]:
        return [open_picture(self.clip_file(clip))]

    def clip_file(self, clip: str) -> Path:
        return self.root / clip

    def annotation_files(self) -> list[Path]:
        return list(self._annotation_files)

    # ---------------------------------------------------------------------------------------- stories.jsonl

    def _read_rows(self) -> list[_Story]:
        path = self.root / ROWS
        if next(self.root.glob(f"*/{CAPTIONS}"), None) is not None:
            raise ValueError(f"{self.root} holds both {ROWS} and story folders with {CAPTIONS}: keep one of the two")
        self._annotation_files.append(path)
        stories: dict[str, _Story] = {}
        wheres: dict[str, str] = {}
        for number, line in enumerate(split_lines(read_text(path)), start=1):
            where = f"{ROWS}:{number}"
            if not clean(line):
                continue
            try:
                story = _story_of_row(line)
                if story.id in stories:
                    raise _Refused(f"duplicate story: {wheres[story.id]} has the id {story.id!r} too")
                stories[story.id], wheres[story.id] = story, where
            except _Refused as refused:
                self.problems.append(Problem(where, str(refused)))
        if any(story.split for story in stories.values()):
            for id in [story.id for story in stories.values() if story.split is None]:
                self.problems.append(Problem(wheres[id], "no split: other rows have one, so every row needs one"))
                del stories[id]
        return list(stories.values())

    # ---------------------------------------------------------------------------------------- story folders

    def _read_folders(self) -> list[_Story]:
        split_folders = [split for split in SPLITS if self._is_split_folder(self.root / split)]
        stories = []
        for split in split_folders or (None,):
            for folder in _folders(self.root / split if split else self.root):
                if (folder / CAPTIONS).is_file() or _pictures(folder):
                    stories += self._story_of_folder(folder, split)
        if split_folders:
            for folder in _folders(self.root):
                if (folder / CAPTIONS).is_file():
                    self.problems.append(Problem(folder.name, f"no split: it lies beside {', '.join(split_folders)}"))
        return stories

    def _is_split_folder(self, folder: Path) -> bool:
        return not (folder / CAPTIONS).is_file() and next(folder.glob(f"*/{CAPTIONS}"), None) is not None

    def _story_of_folder(self, folder: Path, split: str | None) -> list[_Story]:
        """The story of a folder, or none and a problem."""
        id = folder.relative_to(self.root).as_posix()
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith(".") and file.name != CAPTIONS and not _is_picture(file):
                self.problems.append(Problem(f"{id}/{file.name}", "not a picture: it is no frame of the story"))
        try:
            if not (folder / CAPTIONS).is_file():
                raise _Refused(f"no captions: {CAPTIONS} is missing")
            self._annotation_files.append(folder / CAPTIONS)
            frames = _frames_in_order(folder)
            captions = _checked_captions(_written_lines(folder / CAPTIONS), len(frames))
        except _Refused as refused:
            line = f":{refused.line}" if refused.line else ""
            where = f"{id}/{CAPTIONS}{line}" if (folder / CAPTIONS).is_file() else id
            self.problems.append(Problem(where, str(refused)))
            return []
        return [_Story(id, split, tuple(f"{id}/{frame}" for frame in frames), captions)]

    # ---------------------------------------------------------------------------------------- windows

    def _cut(self, story: _Story) -> Iterator[StoryRecord]:
        length = 1 + self.num_targets if self.num_targets else len(story.frames)
        starts = range(0, len(story.frames) - length + 1, self.stride)
        if not starts:
            self.problems.append(Problem(story.id, f"short story: {len(story.frames)} frames of {length}"))
        rows = None
        if story.names is not None:
            rows = tuple(tuple(int(name in names) for name in self.characters) for names in story.names)
        for start in starts:
            window = slice(start, start + length)
            id = f"{story.id}#{start + 1}" if self.num_targets else story.id
            shown = rows[window] if rows is not None else None
            yield StoryRecord(id, story.frames[window], story.captions[window], group=story.id, characters=shown)


def _story_of_row(line: str) -> _Story:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _Refused(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise _Refused('not a row: it should read {"id": ..., "frames": [...], "captions": [...]}')
    if not isinstance(row.get("id"), str) or not clean(row["id"]):
        raise _Refused(f"no id: {row.get('id')!r} is no text")
    frames = tuple(_below_root(frame) for frame in _texts(row, "frames"))
    if len(frames) < 2:
        raise _Refused(f"short story: {len(frames)} frames; a story has 2 or more")
    captions = _checked_captions(_texts(row, "captions"), len(frames))
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise _Refused(f"unknown split: {split!r} is none of {', '.join(SPLITS)}")
    return _Story(clean(row["id"]), split, frames, captions, _names(row, len(frames)))


def _texts(row: dict[str, Any], key: str) -> list[str]:
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _Refused(f"no {key}: {value!r} is no list of texts")
    return value


def _names(row: dict[str, Any], num_frames: int) -> tuple[tuple[str, ...], ...] | None:
    value = row.get("characters")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != num_frames:
        raise _Refused(f"characters: {value!r} is no list of {num_frames} lists of names, one a frame")
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in value):
        raise _Refused(f"characters: {value!r} holds something else than lists of names")
    return tuple(tuple(filter(None, map(clean, names))) for names in value)


def _below_root(frame: str) -> str:
    """A frame's path in its shortest form; refuses one that is absolute or climbs out of the root."""
    shortest = os.path.normpath(frame)
    if not frame or Path(shortest).is_absolute() or Path(shortest).parts[:1] == ("..",):
        raise _Refused(f"outside the root: {frame!r}; paths are relative to the folder of {ROWS} and stay in it")
    return Path(shortest).as_posix()


def _checked_captions(captions: Sequence[str], num_frames: int) -> tuple[str, ...]:
    """One caption a frame; the source's is empty where there is one caption less than frames."""
    cleaned = [clean(caption) for caption in captions]
    if num_frames < 2:
        raise _Refused(f"short story: {num_frames} frames; a story has 2 or more")
    if len(cleaned) not in (num_frames, num_frames - 1):
        asked = f"{num_frames}, or {num_frames - 1} without the source's"
        raise _Refused(f"wrong number of captions: {len(cleaned)} for {num_frames} frames; give {asked}")
    num_targets = num_frames - 1
    targets = cleaned[-num_targets:]
    if "" in targets:
        number = len(cleaned) - num_targets + targets.index("") + 1
        raise _Refused(f"no caption: the {number}. of {len(cleaned)} is empty", line=number)
    return (*([""] if len(cleaned) == num_targets else []), *cleaned)


def _frames_in_order(folder: Path) -> list[str]:
    """Names of a folder's pictures, 2 before 10."""
    names = sorted((file.name for file in _pictures(folder)), key=natural_order)
    seen: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in seen:
            raise _Refused(f"a frame twice: {seen[stem]} and {name}")
        seen[stem] = name
    return names


def natural_order(name: str) -> tuple[list[tuple[str, int]], str]:
    """A sort key by which "2.png" comes before "10.png"; names of the same numbers are in plain order."""
    return [(text.casefold(), int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)], name


def _folders(folder: Path) -> list[Path]:
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(inside, key=lambda path: natural_order(path.name))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES and not file.name.startswith(".")


def _pictures(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if _is_picture(file) and file.is_file()]


def _written_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty ones at its end."""
    lines = [clean(line) for line in split_lines(read_text(path))]
    while lines and not lines[-1]:
        lines.pop()
    return lines or [""]
