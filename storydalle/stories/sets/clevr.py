"""CLEVR-SV: four frames of one scene, an object more in each, and the attributes of every object (data/clevr)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from storydalle.files.pickles import load_pickle
from storydalle.stories.pictures import ClipError, open_picture
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root

DICTIONARY = "CLEVR_dict.npy"
NUM_FRAMES = 4
SLOT, VECTOR = 18, 75  # numbers of an object; of a frame: a slot an object, then the direction "right"
# The values of an attribute, one-hot in this order, side by side in a slot; the last three numbers are x, y and z.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "shape": ("cube", "sphere", "cylinder"),
        "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
        "material": ("rubber", "metal"),
        "size": ("large", "small"),
    }
)
# Numbers of the stories of a split: the first, and the end, which is excluded.
RANGES: Mapping[str, Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "paper": {"train": (0, 10_000), "test": (10_000, 13_000)},
        "fork": {"train": (0, 10_000), "test": (10_000, 13_755)},
    }
)
STYLES = ("sentence", "attributes")
_KEY = re.compile(r"(CLEVR_new_(\d+))_([1-9]\d*)(?:\.png)?")
_MASK = re.compile(r"CLEVR_new_\d+_\d+_mask\.png")


class SceneObject(NamedTuple):
    shape: str
    color: str
    material: str
    size: str
    position: tuple[float, float, float]

    def __str__(self) -> str:
        return f"{self.size} {self.color} {self.material} {self.shape}"


class ClevrSV(StorySet):
    """Stories of 1 + ``num_targets`` frames: frame t shows the first t objects of a scene, its caption names the t-th.

    ``ranges`` says which story numbers a split has: "paper" (10,000 and 3,000), "fork" (all 13,755), or a mapping from
    splits to [first, end). ``captions`` is "sentence" or "attributes"; both are written from the attributes.
    """

    name = "clevr"
    official_counts: ClassVar[Mapping[str, int]] = {"train": 10_000, "test": 3_000}  # of the ranges "paper"

    def __init__(
        self,
        root: str | Path | None,
        num_targets: int = 3,
        captions: str = "sentence",
        ranges: str | Mapping[str, Sequence[int]] = "paper",
        size: Sequence[int] = (320, 240),
    ) -> None:
        super().__init__(root)
        if not 1 <= num_targets < NUM_FRAMES:
            raise ValueError(f"num_targets={num_targets}: a story of CLEVR-SV has 1 to {NUM_FRAMES - 1} targets")
        if captions not in STYLES:
            raise ValueError(f"captions={captions} is none of {', '.join(STYLES)}")
        self.num_targets, self.captions, self.size = num_targets, captions, tuple(size)
        self.ranges = _checked_ranges(ranges)
        remedy = f"give the folder that holds {DICTIONARY} and images/"
        find_root(self.root, "CLEVR-SV", [DICTIONARY], remedy)
        self._records = self._read()

    def pictures(self, clip: str) -> list[Image.Image]:
        # Blender's alpha says nothing: every pixel of a render is covered.
        picture = open_picture(self.clip_file(clip), on_white=False)
        if picture.size != self.size:
            width, height = self.size
            raise ClipError(f"wrong shape: {picture.width}x{picture.height} pixels, not {width}x{height}")
        return [picture]

    def clip_file(self, clip: str) -> Path:
        return self.root / "images" / f"{clip}.png"

    def official_count(self, split: str) -> int | None:
        return super().official_count(split) if self.ranges == _checked_ranges("paper") else None

    def annotation_files(self) -> list[Path]:
        return [self.root / DICTIONARY]

    def _read(self) -> dict[str, list[StoryRecord]]:
        scenes, images = self._dictionary(), self._images()
        numbers = {story: int(story.rpartition("_")[2]) for story in scenes.keys() | images.keys()}
        records: dict[str, list[StoryRecord]] = {split: [] for split in self.ranges}
        num_unused = 0
        for story, number in sorted(numbers.items(), key=lambda item: item[1]):
            split = next((split for split, expected in self.ranges.items() if number in expected), None)
            if split is None:
                num_unused += 1
            elif fault := _missing_frames(scenes[story], images[story]) or fault_of_scene(scenes[story]):
                self.problems.append(Problem(story, fault))
            else:
                records[split].append(self._record(story, scenes[story]))
        if num_unused:
            self.problems.append(Problem("images", f"unused: {num_unused} stories have numbers of no split"))
        self._compare_with_ranges(numbers.values(), records)
        return records

    def _dictionary(self) -> dict[str, dict[int, Float[np.ndarray, " v"]]]:
        """Story -> frame -> vector."""
        path = self.root / DICTIONARY
        content = load_pickle(path)
        if not isinstance(content, dict) or not content:
            raise ValueError(f"{path} is no dictionary of frames: take that of the generator of CLEVR-SV")
        scenes: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
        for key, vector in content.items():
            # The generator's keys are file names; stems are accepted.
            match = _KEY.fullmatch(key) if isinstance(key, str) else None
            if match is None:
                self.problems.append(Problem(f"{key}", "unknown key: no CLEVR_new_<number>_<t>"))
                continue
            if not (isinstance(vector, np.ndarray) and vector.shape == (VECTOR,) and vector.dtype.kind in "fiu"):
                shape = vector.shape if isinstance(vector, np.ndarray) else type(vector).__name__
                raise ValueError(f"{path}: {key} holds {shape}, not {VECTOR} numbers: take the dictionary of stories")
            scenes[match[1]][int(match[3])] = vector.astype(np.float64)
        return scenes

    def _images(self) -> dict[str, set[int]]:
        """Story -> frames that have an image; masks do not count."""
        folder = self.root / "images"
        if not folder.is_dir():
            raise ValueError(f"{folder} is missing: put CLEVR_new_<number>_<t>.png there")
        images: dict[str, set[int]] = defaultdict(set)
        for file in sorted(folder.glob("*.png")):
            if match := _KEY.fullmatch(file.name):
                images[match[1]].add(int(match[3]))
            elif not _MASK.fullmatch(file.name):
                self.problems.append(Problem(f"images/{file.name}", "unknown image: no CLEVR_new_<number>_<t>.png"))
        return images

    def _record(self, story: str, vectors: Mapping[int, Float[np.ndarray, " v"]]) -> StoryRecord:
        objects = read_objects(vectors[NUM_FRAMES])
        captions = sentences(objects, vectors[NUM_FRAMES][-3:]) if self.captions == "sentence" else attributes(objects)
        num_frames = 1 + self.num_targets
        clips = tuple(f"{story}_{t}" for t in range(1, num_frames + 1))
        return StoryRecord(story, clips, captions[:num_frames], group=story)

    def _compare_with_ranges(self, numbers: Iterable[int], records: Mapping[str, Sequence[StoryRecord]]) -> None:
        found = set(numbers)
        for split, expected in self.ranges.items():
            if num_absent := len(expected) - len(found.intersection(expected)):
                described = f"numbers {expected.start} to {expected.stop - 1}"
                self.problems.append(Problem(split, f"absent: {num_absent} of {len(expected)} stories, {described}"))
            if not records[split]:
                has = f"{min(found)} to {max(found)}" if found else "none"
                first = f" ({self.problems[0].where}: {self.problems[0].what})" if self.problems else ""
                raise ValueError(
                    f"split {split} (stories {expected.start} to {expected.stop - 1}) is empty{first}; "
                    f"the copy's story numbers are {has}: set data.set.ranges to {{split: [first, end]}} within these"
                )


def _checked_ranges(ranges: str | Mapping[str, Sequence[int]]) -> dict[str, range]:
    if isinstance(ranges, str):
        if ranges not in RANGES:
            raise ValueError(f"ranges={ranges} is none of {', '.join(RANGES)}: give one, or {{split: [first, end]}}")
        ranges = RANGES[ranges]
    checked = {}
    for split, ends in ranges.items():
        if len(ends) != 2 or not 0 <= ends[0] < ends[1]:
            raise ValueError(f"ranges.{split}={list(ends)} is no range: give [first, end], the end excluded")
        checked[split] = range(*ends)
    if not checked:
        raise ValueError("ranges is empty: give a range to one split or more")
    for (one, a), (other, b) in combinations(checked.items(), 2):
        if shared := range(max(a.start, b.start), min(a.stop, b.stop)):
            raise ValueError(f"ranges {one} and {other} share story {shared.start}: the end of a range is excluded")
    return checked


def _missing_frames(vectors: Mapping[int, object], images: set[int]) -> str | None:
    """A message about frames of a story that are missing or extra; None if attributes and images are complete."""
    frames = range(1, NUM_FRAMES + 1)
    if without := [t for t in frames if t not in vectors]:
        return f"no attributes: {DICTIONARY} lacks frame {', '.join(map(str, without))}"
    if without := [t for t in frames if t not in images]:
        return f"no image: images/ lacks frame {', '.join(map(str, without))}"
    if extra := sorted((vectors.keys() | images) - set(frames)):
        return f"extra frame: {extra[0]}; stories have {NUM_FRAMES}"
    return None


def fault_of_scene(vectors: Mapping[int, Float[np.ndarray, " v"]]) -> str | None:
    """The ``what`` of a ``Problem`` with the vectors of a story's frames; None if there is none."""
    table = np.stack([vectors[t] for t in range(1, NUM_FRAMES + 1)])
    slots, right = table[:, :-3].reshape(NUM_FRAMES, NUM_FRAMES, SLOT), table[:, -3:]
    if not np.isfinite(table).all():
        return "not finite: an attribute is no number"
    for t in range(1, NUM_FRAMES + 1):
        start = 0
        for attribute, values in ATTRIBUTES.items():
            part = slots[t - 1, :t, start : start + len(values)]
            start += len(values)
            one_hot = ((part == 1).sum(1) == 1) & ((part == 0).sum(1) == len(values) - 1)
            if not one_hot.all():
                return f"not one-hot: the {attribute} of object {one_hot.argmin() + 1} in frame {t}"
        if slots[t - 1, t:].any():
            return f"extra object: frame {t} has attributes of more than {t}"
        changed = (slots[t - 1, : t - 1] != slots[t - 2, : t - 1]).any(1)
        if t > 1 and changed.any():
            return f"changed object: object {changed.argmax() + 1} is another in frame {t} than in frame {t - 1}"
    if (right != right[0]).any():
        return "changed direction: the camera moves inside the story"
    if not np.isclose(np.linalg.norm(right[0]), 1, atol=1e-3):
        return "no direction: the last three numbers are no unit vector"
    return None


def read_objects(vector: Float[np.ndarray, " v"]) -> list[SceneObject]:
    """The objects of a story's last frame, in order of appearance."""
    objects = []
    for slot in vector[:-3].reshape(NUM_FRAMES, SLOT):
        words, start = [], 0
        for values in ATTRIBUTES.values():
            words.append(values[slot[start : start + len(values)].argmax()])
            start += len(values)
        shape, color, material, size = words
        x, y, z = map(float, slot[start:])
        objects.append(SceneObject(shape, color, material, size, (x, y, z)))
    return objects


def attributes(objects: Sequence[SceneObject]) -> tuple[str, ...]:
    """A frame's new object as a list of words and its place on the ground: "large, red, metal, cube, (-2.1, 2.4)"."""
    return tuple(f"{', '.join(str(each).split())}, ({_place(each, 0)}, {_place(each, 1)})" for each in objects)


def _place(each: SceneObject, axis: int) -> str:
    return f"{round(each.position[axis], 1) + 0.0:.1f}"  # + 0.0 makes -0.0 a 0.0.


def sentences(objects: Sequence[SceneObject], right: Float[np.ndarray, "3"]) -> tuple[str, ...]:
    """A frame's new object as a sentence; from the second object on, relative to the object before it."""
    told = [f"There is a {objects[0]}."]
    for before, new in pairwise(objects):
        told.append(f"A {new} appears {_relation(before, new, right)} the {before}.")
    return tuple(told)


def _relation(before: SceneObject, new: SceneObject, right: Float[np.ndarray, "3"]) -> str:
    """The position of ``new`` as the camera sees it, along the axis on which the two objects are further apart."""
    x, y = new.position[0] - before.position[0], new.position[1] - before.position[1]
    sideways = x * right[0] + y * right[1]
    away = y * right[0] - x * right[1]  # "Behind" is "right", turned by 90 degrees to the left on the ground.
    if abs(sideways) >= abs(away):
        return "to the right of" if sideways >= 0 else "to the left of"
    return "behind" if away > 0 else "in front of"
