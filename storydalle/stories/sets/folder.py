"""folder: the user's own stories, as folders of pictures with captions, or in one table (data/folder)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from PIL import Image

from storydalle.files.json_values import JsonObject, are_texts
from storydalle.files.reading import read_text
from storydalle.files.text import clean, parsed, split_lines
from storydalle.stories.own_story import (
    SPLIT_FOLDERS,
    SPLITS,
    OwnStory,
    RefusedStory,
    below_root,
    checked_captions,
    checked_names,
    checked_split,
    spelled_twice,
)
from storydalle.stories.pictures import ClipError, decode_picture
from storydalle.stories.sets.frame_tables import FRAME_TABLES, TablePlace, read_frame_table
from storydalle.stories.sets.story_folders import CAPTIONS, FolderFiles, read_story_folder
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root, fixed_choice

TENTHS = ("train",) * 8 + ("val", "test")
ROWS = "stories.jsonl"
TABLES = (ROWS, *FRAME_TABLES)
KEYS = ("id", "frames", "captions", "characters", "split")


class FolderStories(StorySet):
    """Stories of 2 or more frames; ``num_targets`` cuts them into windows, one every ``stride`` frames.

    The split is the sub-folder (train, val, test), or is given in the rows. If no story has one, a hash of the story's
    id chooses it, so that it does not change when stories are added. ``characters`` are the names in the rows, sorted.
    """

    name = "folder"
    to_fill_a_split: ClassVar[str] = f'put stories into folders {", ".join(SPLITS)}, or give rows a "split"'
    characters: Sequence[str]  # Read off the rows, so it differs from object to object.

    def __init__(self, root: str | Path | None, num_targets: int | None = None, stride: int = 1) -> None:
        super().__init__(root)
        if stride < 1 or (num_targets is not None and num_targets < 1):
            raise ValueError(f"num_targets={num_targets} and stride={stride}: both are 1 or more")
        remedy = f"make a folder a story, with its pictures and {CAPTIONS} in it"
        find_root(self.root, "stories", [f"*/{CAPTIONS}", *TABLES], remedy, holds_stories)
        self.num_targets, self.stride = num_targets, stride
        self._annotation_files: list[Path] = []
        stories = self._agreed(self._agreed(self._read(), "split", "one"), "characters", "them")
        if twice := spelled_twice(place for story in stories for place in story.name_places.items()):
            raise ValueError(f"data.root={root}: the characters {twice}")
        self.characters = tuple(sorted({name for story in stories for row in story.characters or () for name in row}))
        records: dict[str, list[StoryRecord]] = {split: [] for split in SPLITS}
        for story in stories:
            records[story.split or TENTHS[fixed_choice(story.id, 10)]].extend(self._cut(story))
        self._records = {split: found for split, found in records.items() if found}
        if not self._records:
            first = f": {self.problems[0].where}: {self.problems[0].what}" if self.problems else ""
            raise ValueError(f"data.root={root} gives no story{first}")
        self.notes += self._remarks(stories)

    @property
    def empty_splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split not in self._records)

    def pictures(self, clip: str) -> list[Image.Image]:
        decoded = decode_picture(self.clip_file(clip))
        if decoded.is_animated:
            raise ClipError("unsupported: an animation; save the one picture of it that the story shows")
        return [decoded.picture]

    def clip_file(self, clip: str) -> Path:
        return self.root / clip

    def annotation_files(self) -> list[Path]:
        return list(self._annotation_files)

    # ---------------------------------------------------------------------------------------- reading

    def _read(self) -> list[OwnStory]:
        """The stories of every split folder, or of the root if there are none."""
        folders = split_folders(self.root)
        if not folders:
            return self._read_level(self.root, None)
        if tables := tables_of(self.root):
            raise ValueError(f"{self.root} holds both {tables[0].name} and a folder {folders[0]}: keep one of the two")
        stories = [story for name in folders for story in self._read_level(self.root / name, SPLIT_FOLDERS[name])]
        for folder in FolderFiles.of(self.root).folders:
            if folder.name not in folders and (FolderFiles.of(folder).pictures or holds_stories(folder)):
                self.problems.append(Problem(folder.name, f"no split: it lies beside {', '.join(folders)}"))
        return stories

    def _read_level(self, folder: Path, split: str | None) -> list[OwnStory]:
        """The stories of a table, or of the folders in this folder."""
        tables = tables_of(folder)
        captioned = next(captioned_folders(folder), None)
        if len(tables) > 1 or (tables and captioned):
            other = tables[1].name if captioned is None else f"story folders with captions, such as {captioned.name}"
            raise ValueError(f"{folder} holds both {tables[0].name} and {other}: keep one of the two")
        prefix = f"{folder.relative_to(self.root).as_posix()}/" if split else ""
        if not tables:
            return self._read_folders(folder, prefix, split)
        self._annotation_files.append(tables[0])
        if tables[0].name == ROWS:
            return self._read_rows(tables[0], prefix, split)
        stories, problems = read_frame_table(tables[0], TablePlace(prefix, is_story=False, split=split))
        self.problems += problems
        return stories

    def _read_folders(self, level: Path, prefix: str, split: str | None) -> list[OwnStory]:
        stories = []
        for picture in FolderFiles.of(level).pictures:
            self.problems.append(Problem(f"{prefix}{picture.name}", "in no story: put it into a story's folder"))
        for folder in FolderFiles.of(level).folders:
            id, files = f"{prefix}{folder.name}", FolderFiles.of(folder)
            if not files.pictures and not files.captioned_by:
                within = " (only train, val and test may hold stories)" if files.folders else ""
                self.problems.append(Problem(id, f"no story: neither pictures nor captions lie in it{within}"))
                continue
            found, problems = read_story_folder(id, split, files)
            stories += found
            self.problems += problems
            self._annotation_files += files.captions + files.tables + files.texts_of_pictures
        return stories

    def _read_rows(self, path: Path, prefix: str, split: str | None) -> list[OwnStory]:
        stories: dict[str, OwnStory] = {}
        unknown: dict[str, str] = {}
        for number, line in enumerate(split_lines(read_text(path)), start=1):
            where = f"{prefix}{path.name}:{number}"
            if not clean(line):
                continue
            try:
                row = _row(line)
                unknown = {key: where for key in row if key not in KEYS} | unknown
                story = _story_of_row(row, where, prefix, split)
                if story.id in stories:
                    raise RefusedStory(f"duplicate story: {stories[story.id].where} has the id {story.id!r} too")
                stories[story.id] = story
            except RefusedStory as refused:
                self.problems.append(Problem(where, str(refused)))
        for key, where in unknown.items():
            self.problems.append(Problem(where, f"unknown key: {key!r} is not read; keys are {', '.join(KEYS)}"))
        return list(stories.values())

    def _agreed(self, stories: list[OwnStory], field: str, pronoun: str) -> list[OwnStory]:
        """The stories with the field, if any story has it; the others become problems."""
        having = [story for story in stories if getattr(story, field) is not None]
        if not having:
            return stories
        what = f"no {field}: other rows have {pronoun}, so every row needs {pronoun}"
        lacking = (story for story in stories if getattr(story, field) is None)
        self.problems += [Problem(story.where, what) for story in lacking]
        return having

    @property
    def problem_notes(self) -> list[str]:
        if not self.problems:
            return []
        number, (where, what) = len(self.problems), self.problems[0]
        problems = "1 problem" if number == 1 else f"{number} problems"
        return [f"{problems} in data.root={self.root}, which prepare names; the first: {where}: {what}"]

    def _remarks(self, stories: Sequence[OwnStory]) -> Iterator[str]:
        empty = [split for split in self.empty_splits if split != "train"]
        if empty and all(story.split is None for story in stories):
            yield (
                f"the automatic split of {len(stories)} stories leaves {' and '.join(empty)} empty: "
                f"{self.to_fill_a_split}, or add stories"
            )

    # ---------------------------------------------------------------------------------------- windows

    def _cut(self, story: OwnStory) -> Iterator[StoryRecord]:
        length = 1 + self.num_targets if self.num_targets else len(story.frames)
        starts = range(0, len(story.frames) - length + 1, self.stride)
        if not starts:
            self.problems.append(Problem(story.id, f"short story: {len(story.frames)} frames of {length}"))
        rows = None
        if story.characters is not None:
            rows = tuple(tuple(int(name in names) for name in self.characters) for names in story.characters)
        for start in starts:
            window = slice(start, start + length)
            id = f"{story.id}#{start + 1}" if self.num_targets else story.id
            shown = rows[window] if rows is not None else None
            yield StoryRecord(id, story.frames[window], story.captions[window], group=story.id, characters=shown)


# ------------------------------------------------------------------------------------------------ layouts


def holds_stories(folder: Path) -> bool:
    """True if the folder can be ``data.root``."""
    return bool(tables_of(folder) or next(captioned_folders(folder), None) or split_folders(folder))


def tables_of(folder: Path) -> list[Path]:
    return [folder / name for name in TABLES if (folder / name).is_file()]


def captioned_folders(folder: Path) -> Iterator[Path]:
    """Folders with their own captions: stories, except split folders with metadata."""
    return (each for each in FolderFiles.of(folder).folders if FolderFiles.of(each).captioned_by)


def split_folders(root: Path) -> list[str]:
    """Folders with the name of a split that contain stories, and are not themselves a story of that name."""
    found = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    return [
        name
        for name in found
        if tables_of(root / name)
        or (not FolderFiles.of(root / name).captioned_by and next(captioned_folders(root / name), None))
    ]


# ------------------------------------------------------------------------------------------------ stories.jsonl


def _row(line: str) -> JsonObject:
    try:
        row = parsed(line)
    except ValueError as error:
        raise RefusedStory(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise RefusedStory('not a row: it should read {"id": ..., "frames": [...], "captions": [...]}')
    return row


def _story_of_row(row: JsonObject, where: str, prefix: str, split: str | None) -> OwnStory:
    id = row.get("id")
    if not isinstance(id, str) or not clean(id):
        raise RefusedStory(f"no id: {id!r} is no text")
    frames = tuple(below_root(frame, prefix) for frame in _texts(row, "frames"))
    captions = checked_captions(_texts(row, "captions"), len(frames))
    split = checked_split(row.get("split"), split)
    value = row.get("characters")
    names = None if value is None else checked_names(value, len(frames))
    places = {name: where for of_frame in names or () for name in of_frame}
    return OwnStory(f"{prefix}{clean(id)}", where, split, frames, captions, names, places)


def _texts(row: JsonObject, key: str) -> list[str]:
    value = row.get(key)
    if not are_texts(value):
        raise RefusedStory(f"no {key}: {value!r} is no list of texts")
    return value
