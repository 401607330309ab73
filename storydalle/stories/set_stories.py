"""The stories of a story set's split, at one resolution: what training and evaluation read of any set."""

import hashlib
import json
from pathlib import Path

import numpy as np

from storydalle.files.paths import file_name, user_path
from storydalle.files.reading import read_text
from storydalle.files.text import clean, split_lines
from storydalle.stories.resizing import LANCZOS, at_size
from storydalle.stories.story import Outline, Shot, Stories
from storydalle.stories.story_set import StoryRecord, StorySet


class SetStories(Stories):
    """The stories of ``split``, or only those listed in ``ids_folder``, and at most ``num_stories`` of them.

    ``ids_folder`` holds ``ids-SPLIT.txt``, one id a line, as ``storydalle prepare`` writes it for the stories whose
    pictures can all be read. A smaller number of stories is spread evenly over the split. ``instead`` names a split to
    read if ``split`` is a possible split of the set but has no stories; ``notes`` then says so. ``interpolation`` is
    the way of ``resizing.at_size``; with "clean" pictures are floats in [0, 255].

    Raises ValueError if the split does not exist, or if a listed id is not in it.
    """

    def __init__(
        self,
        story_set: StorySet,
        split: str,
        resolution: int,
        num_stories: int | None = None,
        ids_folder: str | Path | None = None,
        instead: str | None = None,
        interpolation: str = LANCZOS,
    ) -> None:
        self.notes = [*story_set.problem_notes, *story_set.notes]
        if instead is not None and split in story_set.empty_splits:
            self.notes = [*self.notes, f"{split} is empty: {instead} is used instead"]
            split = instead
        if split not in story_set.splits:
            raise ValueError(f"{story_set.name} has no split {split!r}: choose one of {', '.join(story_set.splits)}")
        self.story_set, self.split = story_set, split
        self.resolution, self.interpolation = resolution, interpolation
        records = story_set.records(split)
        if ids_folder is not None:
            records = listed(records, user_path(ids_folder) / f"ids-{file_name(split)}.txt")
        if num_stories is not None and num_stories < len(records):
            if num_stories < 1:
                raise ValueError(f"num_stories={num_stories}: give at least 1")
            records = [records[i * len(records) // num_stories] for i in range(num_stories)]
        if not records:
            raise ValueError(f"{story_set.name}'s split {split!r} has no stories")
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def outline(self, index: int) -> Outline:
        record = self.records[index]
        labels = {}
        if record.characters is not None:
            rows = np.array(record.characters, dtype=np.int64)
            labels = {"characters": rows[1:], "source_characters": rows[0]}
        return Outline(
            id=f"{self.story_set.name}/{self.split}/{record.id}",
            captions=list(record.captions[1:]),
            shots=[Shot(clip) for clip in record.clips],
            labels=labels,
            descriptions=list(record.captions),
        )

    def clips(self) -> list[str]:
        return list(dict.fromkeys(clip for record in self.records for clip in record.clips))

    def read(self, clip: str) -> np.ndarray:
        pictures = self.story_set.pictures(clip)
        return np.stack([at_size(picture, self.resolution, self.interpolation) for picture in pictures])

    def stamp(self, clip: str) -> str:
        try:
            found = self.story_set.clip_file(clip).stat()
        except FileNotFoundError:
            return "missing"
        return f"{found.st_size}-{found.st_mtime_ns}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.story_set.name} {self.resolution}\n".encode())
        for record in self.records:
            told = (record.id, record.clips, record.captions, record.characters)
            digest.update(json.dumps(told, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()[:16]


def listed(records: list[StoryRecord], path: Path) -> list[StoryRecord]:
    """The records whose ids are listed in a file, in the records' order."""
    ids = {id for id in map(clean, split_lines(read_text(path))) if id}
    unknown = sorted(ids - {clean(record.id) for record in records})
    if unknown:
        raise ValueError(
            f"{path} names {unknown[0]!r}, which is no story of the split: was it written for another copy?"
        )
    return [record for record in records if clean(record.id) in ids]
