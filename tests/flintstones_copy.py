"""A small copy of FlintstonesSV as it ships, and its files written otherwise."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storydalle.stories.sets.flintstones import FlintstonesSV

SPLIT_FILE = "train-val-test_split.json"


def clip(season: int, episode: int, start: int) -> str:
    return f"s_{season:02}_e_{episode:02}_shot_{start:06}_{start + 74:06}"


def long(start: int) -> str:
    """Of the first episode: 8 clips, the last of them in val."""
    return clip(1, 2, start)


def last(start: int) -> str:
    """Of the episode that ends the sorted list: 6 clips."""
    return clip(6, 1, start)


TRAIN = [*map(long, (300, 100, 200, 400, 500, 600, 700)), *map(last, (1, 2, 3, 4, 5, 6))]
VAL = [long(800), *(clip(3, 1, start) for start in (10, 11, 12, 13, 14))]
TEST = [clip(1, 10, start) for start in (60, 50, 40, 30, 20, 10)]
ALL_CLIPS = [*TRAIN, *VAL, *TEST]
# In the order of the split file; a window runs over the sorted clips of all splits.
STORIES = {
    "train": [
        tuple(map(long, (300, 400, 500, 600, 700))),
        tuple(map(long, (100, 200, 300, 400, 500))),
        tuple(map(long, (200, 300, 400, 500, 600))),
        tuple(map(long, (400, 500, 600, 700, 800))),
        tuple(map(last, (1, 2, 3, 4, 5))),
        tuple(map(last, (2, 3, 4, 5, 6))),
    ],
    "val": [tuple(clip(3, 1, start) for start in (10, 11, 12, 13, 14))],
    "test": [
        tuple(clip(1, 10, start) for start in (20, 30, 40, 50, 60)),
        tuple(clip(1, 10, start) for start in (10, 20, 30, 40, 50)),
    ],
}
# What a copy of this size has by itself: the end of the list, and the window that val's clip ends.
SHORT = [last(start) for start in (3, 4, 5, 6)]
CROSSED = [long(400)]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_splits(root: Path, name: str = SPLIT_FILE, **splits: Sequence[str]) -> None:
    write_json(root / name, {"train": TRAIN, "val": VAL, "test": TEST} | splits)


def write_captions(root: Path, captions: Mapping[str, Any], **more: Any) -> None:
    rows = [{"globalID": key, "description": text, "setting": "room"} | more for key, text in captions.items()]
    write_json(root / "flintstones_annotations_v1-0.json", rows)


def write_pickle(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_frames(root: Path, name: str, frames: np.ndarray) -> None:
    np.save(root / "video_frames_sampled" / f"{name}.npy", frames)


def plain_captions() -> dict[str, str]:
    return {key: f"Fred stands in {key}." for key in ALL_CLIPS}


def cached_windows() -> dict[str, list[str]]:
    """The shipped cache: short windows are in it, too."""
    windows = {story[0]: list(story[1:]) for stories in STORIES.values() for story in stories}
    ends = {last(start): [last(later) for later in range(start + 1, 7)] for start in (3, 4, 5, 6)}
    return windows | ends


def write_copy(root: Path) -> Path:
    """A copy as it ships."""
    (root / "video_frames_sampled").mkdir(parents=True)
    write_splits(root)
    write_captions(root, plain_captions())
    write_pickle(root / "following_cache4.pkl", cached_windows())
    write_pickle(root / "labels.pkl", {key: [i % 2, 1, 0, 0, 0, 0, 0] for i, key in enumerate(ALL_CLIPS)})
    return root


def stories(flintstones: FlintstonesSV, split: str) -> list[tuple[str, ...]]:
    return [record.clips for record in flintstones.records(split)]


def named(flintstones: FlintstonesSV, phrase: str) -> list[str]:
    return [problem.where for problem in flintstones.problems if problem.what.startswith(phrase)]
