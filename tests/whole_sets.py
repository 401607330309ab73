"""Whole small copies of story sets with all pictures, made of the fixtures ``NAME_root`` of the importing module."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storydalle.stories.sets.flintstones import FlintstonesSV
from storydalle.stories.sets.pororo import PororoSV
from storydalle.stories.story_set import StorySet
from tests import test_clevr, test_folder, test_openstory
from tests.pororo_copy import write_strip

SIZE = 12


def clips_of(story_set: StorySet) -> Iterator[tuple[int, str]]:
    records = (record for split in story_set.splits for record in story_set.records(split))
    return enumerate(dict.fromkeys(clip for record in records for clip in record.clips))


def pororo(request: pytest.FixtureRequest, folder: Path) -> Path:
    root: Path = request.getfixturevalue("pororo_root")
    for i, clip in clips_of(PororoSV(root)):
        write_strip(root, clip, num_frames=1 + i % 5)
    return root


def flintstones(request: pytest.FixtureRequest, folder: Path) -> Path:
    root: Path = request.getfixturevalue("flintstones_root")
    story_set = FlintstonesSV(root)
    for i, clip in clips_of(story_set):
        np.save(story_set.clip_file(clip), np.full((1 + i % 4, SIZE, SIZE, 3), i, np.uint8))
    return root


def didemo(request: pytest.FixtureRequest, folder: Path) -> Path:
    root: Path = request.getfixturevalue("didemo_root")
    from storydalle.stories.sets.didemo import DiDeMoSV

    story_set = DiDeMoSV(root)
    for i, clip in clips_of(story_set):
        story_set.clip_file(clip).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE + 4, SIZE), (i, 2 * i, 0)).save(story_set.clip_file(clip))
    return root


def vist(request: pytest.FixtureRequest, folder: Path) -> Path:
    root: Path = request.getfixturevalue("vist_root")
    return root


def clevr(request: pytest.FixtureRequest, folder: Path) -> Path:
    return test_clevr.write(folder / "clevr", test_clevr.scenes(0, 1, 10_000, 10_001))


def mine(request: pytest.FixtureRequest, folder: Path) -> Path:
    for name, num_frames in (("a trip", 3), ("b", 5), ("c", 2), ("d", 4)):
        test_folder.story(folder / "mine" / name, num_frames, [f"line {k}" for k in range(num_frames)])
    return folder / "mine"


def openstory(request: pytest.FixtureRequest, folder: Path) -> Path:
    return test_openstory.write(folder / "openstory", test_openstory.rows())
