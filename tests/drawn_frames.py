"""Frames as systems draw them: a split of three stories, and pictures that tell themselves apart."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from storydalle.evaluation.drawn import DrawnFrames

SIDE = 8
LENGTHS = {"set/test/b": 2, "set/test/a": 2, "set/test/c": 2}  # the order of a split is not the order of names
FIRST, SECOND, THIRD = LENGTHS
KEYS = [(story, frame) for story, length in LENGTHS.items() for frame in range(1, length + 1)]


def pixels(story: str = FIRST, frame: int = 1, side: int = SIDE) -> np.ndarray:
    """A picture that no other frame has."""
    seed = [*story.encode(), frame]
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def frames_of(story: str) -> np.ndarray:
    return np.stack([pixels(story, frame) for frame in range(1, LENGTHS[story] + 1)])


def save(file: Path, array: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)
    return file


def draw_own(root: Path) -> Path:
    for story, frame in KEYS:
        save(root / story / f"{frame:02d}.png", pixels(story, frame))
    return root


def opened(root: Path, lengths: dict[str, int] = LENGTHS, **options: Any) -> DrawnFrames:
    return DrawnFrames(root, lengths, SIDE, **options)


def assert_as_drawn(drawn: DrawnFrames) -> None:
    survey = drawn.survey()
    assert survey.check() == list(LENGTHS)
    assert list(survey.hashes) == KEYS
    for story in LENGTHS:
        np.testing.assert_array_equal(drawn.read(story), frames_of(story))


def tensor_of(*stories: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Stories as the released code stacks them: (b, f, 3, h, w) in [0, 1]."""
    stacked = torch.from_numpy(np.stack([frames_of(story) for story in stories]))
    return (stacked.permute(0, 1, 4, 2, 3).float() / 255).to(dtype).contiguous()


def only_problem(root: Path, **options: Any) -> tuple[str, str]:
    survey = opened(root, **options).survey()
    assert len(survey.problems) == 1, survey.problems
    return survey.problems[0]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])
