"""A small copy of PororoSV as its authors ship it, and its files written otherwise."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from storydalle.stories.sets.pororo import PororoSV

SIDE = 16
COLORS = ("red", "lime", "blue", "yellow", "white")
EP1, EP2, OTHER, SHORT = (
    "Pororo_ENGLISH1_1_ep1",
    "Pororo_ENGLISH1_1_ep2",
    "Pororo_ENGLISH2_1_ep1",
    "Pororo_ENGLISH2_1_ep9",
)
NUM_SCENES = {EP1: 15, EP2: 6, OTHER: 5, SHORT: 4}
# Scenes that 4 others follow, in the order that folders and files have as strings. The last episode is too short.
SOURCES = [
    *(f"{EP1}/{k}" for k in (1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)),
    *(f"{EP2}/{k}" for k in (1, 2)),
    f"{OTHER}/1",
]
TRAIN, SEEN, UNSEEN = [11, 3, 0, 4], [5, 1], [13]
STORIES = {
    "train": [
        (f"{EP1}/1", f"{EP1}/2", f"{EP1}/3", f"{EP1}/4", f"{EP1}/5"),
        (f"{EP1}/2", f"{EP1}/3", f"{EP1}/4", f"{EP1}/5", f"{EP1}/6"),
        (f"{EP1}/3", f"{EP1}/4", f"{EP1}/5", f"{EP1}/6", f"{EP1}/7"),
        (f"{EP2}/1", f"{EP2}/2", f"{EP2}/3", f"{EP2}/4", f"{EP2}/5"),
    ],
    "val": [
        (f"{EP1}/10", f"{EP1}/11", f"{EP1}/12", f"{EP1}/13", f"{EP1}/14"),
        (f"{EP1}/4", f"{EP1}/5", f"{EP1}/6", f"{EP1}/7", f"{EP1}/8"),
    ],
    "test": [(f"{OTHER}/1", f"{OTHER}/2", f"{OTHER}/3", f"{OTHER}/4", f"{OTHER}/5")],
}
SPECIAL = {
    f"{EP1}/2": ['Pororo says, "Hello."\nEddy  waves.', "A second row."],
    f"{EP1}/3": ["Loopy|Crong, together", "Another row.", "A third row."],
}


def captions_of(scene: str) -> list[str]:
    return SPECIAL.get(scene, [f"This is {scene}."])


def scenes() -> list[str]:
    return [f"{episode}/{k}" for episode, number in NUM_SCENES.items() for k in range(1, number + 1)]


def objects(*entries: Any) -> np.ndarray:
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def save(path: Path, content: Any) -> None:
    np.save(path, content, allow_pickle=True)


def write_caches(
    root: Path, stories: Sequence[Sequence[str]], entry: Callable[[str], str | bytes] = str.encode
) -> None:
    """Source paths [N] and following paths [N, f]."""
    save(root / "img_cache4.npy", np.array([entry(f"{story[0]}.png") for story in stories]))
    save(root / "following_cache4.npy", np.array([[entry(f"{clip}.png") for clip in story[1:]] for story in stories]))


def windows(num_targets: int = 4, sources: Sequence[str] = SOURCES) -> list[list[str]]:
    """By the scene numbers."""
    pairs = [(source.split("/")[0], int(source.split("/")[1])) for source in sources]
    return [[f"{episode}/{k + i}" for i in range(num_targets + 1)] for episode, k in pairs]


def write_splits(root: Path, *splits: Sequence[int]) -> None:
    save(root / "train_seen_unseen_ids.npy", objects(*(list(split) for split in splits)))


def write_table(root: Path, rows: Sequence[Sequence[str]]) -> None:
    with (root / "descriptions.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def write_strip(root: Path, clip: str, mode: str = "RGB", extra: int = 0, num_frames: int = 5) -> None:
    strip = Image.new("RGB", (SIDE, SIDE * num_frames + extra), "black")
    for i in range(num_frames):
        strip.paste(COLORS[i], (0, i * SIDE, SIDE, (i + 1) * SIDE))
    strip.convert(mode).save(root / f"{clip}.png")


def write_copy(root: Path) -> Path:
    """A copy as its authors ship it: byte paths, captions twice, dictionaries in 0-d arrays."""
    for episode in NUM_SCENES:
        (root / episode).mkdir(parents=True)
    write_caches(root, windows())
    write_splits(root, TRAIN, SEEN, UNSEEN)
    save(root / "frames_counter.npy", np.array({f"{episode}/": number for episode, number in NUM_SCENES.items()}))
    save(root / "descriptions.npy", np.array({scene: captions_of(scene) for scene in scenes()}))
    write_table(root, [(*scene.split("/"), caption) for scene in scenes() for caption in captions_of(scene)])
    labels = {scene: np.eye(9)[i % 9] for i, scene in enumerate(scenes())}
    save(root / "labels.npy", np.array(labels))
    return root


def clips(pororo: PororoSV, split: str) -> list[tuple[str, ...]]:
    return [record.clips for record in pororo.records(split)]


def problems(pororo: PororoSV, phrase: str) -> list[tuple[str, str]]:
    return [tuple(problem) for problem in pororo.problems if problem.what.startswith(phrase)]
