"""A story set of a few files, light enough for the processes that read pictures."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from storydalle.stories.pictures import ClipError, open_picture
from storydalle.stories.story_set import StoryRecord, StorySet

IS_LEAN = not os.environ.get("STORYDALLE_TEST_SEED_SHIFT")  # moving seeds imports torch into every process


class ToySet(StorySet):
    """Clips are the names of files; "a.png@2" is the third frame of a file that is a vertical strip of squares."""

    name = "toy"
    characters = ("Ada", "Bo")
    official_counts = {"train": 3}  # noqa: RUF012

    def __init__(self, root: Path, splits: Mapping[str, Sequence[StoryRecord]] | None = None) -> None:
        super().__init__(root)
        self._splits = dict(splits or {})
        self.num_read = 0

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def records(self, split: str) -> list[StoryRecord]:
        return list(self._splits[split])

    def pictures(self, clip: str) -> list[Image.Image]:
        self.num_read += 1
        if "torch" in sys.modules and IS_LEAN and "pytest" not in sys.modules:
            raise ClipError("torch: a process that reads pictures has imported it")
        picture = open_picture(self.clip_file(clip)).convert("RGB")
        side = picture.width
        squares = [picture.crop((0, top, side, top + side)) for top in range(0, picture.height, side)]
        _, at, frame = clip.partition("@")
        return [squares[int(frame)]] if at else squares

    def clip_file(self, clip: str) -> Path:
        return self.root / clip.partition("@")[0]

    def annotation_files(self) -> list[Path]:
        return [self.root / "annotations.txt"]


def noise(seed: int, width: int = 12, height: int = 12) -> Image.Image:
    """A picture like no other, of large spots."""
    spots = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)


def story(id: str, clips: str, captions: Sequence[str] | None = None, group: str = "", **more: object) -> StoryRecord:
    """A story of the clips between spaces, whose captions are "one", "two", ... where none are given."""
    names = tuple(clips.split())
    told = tuple(captions) if captions is not None else ("", *(f"the {name}" for name in names[1:]))
    return StoryRecord(id, names, told, group or id, **more)  # type: ignore[arg-type]
