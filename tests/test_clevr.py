"""CLEVR-SV: stories by number, captions from attributes, and a dictionary and images that have to agree."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image

from storydalle.commands.application import compose
from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.clevr import ClevrSV
from storydalle.stories.story_set import Problem

SIZE = (8, 6)
COLORS = ["gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"]
# Shape, colour, material, size and place of the objects, in order of appearance.
SCENE = [
    ("sphere", "yellow", "metal", "large", (-2.1, 2.4, 0.7)),
    ("cube", "red", "rubber", "small", (1.0, 2.0, 0.35)),
    ("cylinder", "gray", "rubber", "large", (-0.04, -2.5, 0.7)),
    ("cube", "cyan", "metal", "small", (1.1, 2.96, 0.35)),
]
RANGES = {"train": (0, 2), "test": (2, 4)}


def vector(num_objects: int, right: Sequence[float] = (1, 0, 0)) -> np.ndarray:
    """Four slots of 18 numbers, those of later objects zero, and the direction."""
    numbers = np.zeros(75)
    for i, (shape, color, material, size, place) in enumerate(SCENE[:num_objects]):
        slot = numbers[i * 18 : (i + 1) * 18]
        slot[["cube", "sphere", "cylinder"].index(shape)] = 1
        slot[3 + COLORS.index(color)] = 1
        slot[11 + ["rubber", "metal"].index(material)] = 1
        slot[13 + ["large", "small"].index(size)] = 1
        slot[15:] = place
    numbers[72:] = right
    return numbers


def scenes(*stories: int) -> dict[str, np.ndarray]:
    return {f"CLEVR_new_{story:06}_{t}.png": vector(t) for story in stories for t in range(1, 5)}


def write(root: Path, content: Mapping[str, Any], images: Mapping[str, Any] | None = None) -> Path:
    """A copy: the dictionary as the generator pickles it, and RGBA renders of the same names."""
    (root / "images").mkdir(parents=True)
    np.save(root / "CLEVR_dict.npy", np.array(dict(content), dtype=object), allow_pickle=True)
    for name in content if images is None else images:
        frame = Image.new("RGBA", SIZE, (10 * int(name[17]), 20, 30, 255))
        frame.save(root / "images" / name)
        frame.convert("L").save(root / "images" / name.replace(".png", "_mask.png"))
    return root


def opened(root: Path, **options: Any) -> ClevrSV:
    return ClevrSV(root, **{"ranges": RANGES, "size": SIZE, **options})


def ids(made: ClevrSV, split: str) -> list[str]:
    return [record.id for record in made.records(split)]


def test_a_story_is_the_frames_of_a_scene_in_the_order_of_its_objects(tmp_path: Path) -> None:
    made = opened(write(tmp_path / "x", scenes(3, 0, 1, 2)))
    assert made.splits == ("train", "test")
    assert made.problems == []
    assert ids(made, "train") == ["CLEVR_new_000000", "CLEVR_new_000001"]
    first, second = made.records("test")
    assert (first.id, second.id) == ("CLEVR_new_000002", "CLEVR_new_000003")
    assert first.clips == tuple(f"CLEVR_new_000002_{t}" for t in (1, 2, 3, 4))
    assert first.group == first.id
    assert first.characters is None
    # The red of a frame was written as ten times its number.
    assert [made.pictures(clip)[0].getpixel((0, 0)) for clip in first.clips] == [(10 * t, 20, 30) for t in (1, 2, 3, 4)]


def test_a_sentence_tells_the_new_object_and_where_the_camera_sees_it(tmp_path: Path) -> None:
    made = opened(write(tmp_path / "x", scenes(0, 2)), ranges={"train": (0, 1), "test": (2, 3)})
    assert made.records("train")[0].captions == (
        "There is a large yellow metal sphere.",
        "A small red rubber cube appears to the right of the large yellow metal sphere.",
        "A large gray rubber cylinder appears in front of the small red rubber cube.",
        "A small cyan metal cube appears behind the large gray rubber cylinder.",
    )


def test_a_camera_from_the_side_sees_the_same_places_otherwise(tmp_path: Path) -> None:
    content = {f"CLEVR_new_000000_{t}.png": vector(t, right=(0, 1, 0)) for t in range(1, 5)}
    made = opened(write(tmp_path / "x", content), ranges={"train": (0, 1)})
    assert made.records("train")[0].captions[1:] == (
        "A small red rubber cube appears in front of the large yellow metal sphere.",
        "A large gray rubber cylinder appears to the left of the small red rubber cube.",
        "A small cyan metal cube appears to the right of the large gray rubber cylinder.",
    )


def test_a_caption_of_attributes_is_four_words_and_a_place(tmp_path: Path) -> None:
    made = opened(write(tmp_path / "x", scenes(0)), ranges={"train": (0, 1)}, captions="attributes", num_targets=2)
    assert made.records("train")[0].captions == (
        "large, yellow, metal, sphere, (-2.1, 2.4)",
        "small, red, rubber, cube, (1.0, 2.0)",
        "large, gray, rubber, cylinder, (0.0, -2.5)",
    )


def test_the_boundary_story_is_in_one_split(tmp_path: Path) -> None:
    """Public loaders read 0..10000 and 10000..13000, ends included: story 10000 twice, and one past the end."""
    root = write(tmp_path / "x", scenes(9999, 10000, 13000, 13754, 13755))
    paper, fork = opened(root, ranges="paper"), opened(root, ranges="fork")
    assert ids(paper, "train") == ids(fork, "train") == ["CLEVR_new_009999"]
    assert ids(paper, "test") == ["CLEVR_new_010000"]
    assert ids(fork, "test") == ["CLEVR_new_010000", "CLEVR_new_013000", "CLEVR_new_013754"]
    assert paper.problems == [
        Problem("images", "unused: 3 stories have numbers of no split"),
        Problem("train", "absent: 9999 of 10000 stories, numbers 0 to 9999"),
        Problem("test", "absent: 2999 of 3000 stories, numbers 10000 to 12999"),
    ]
    assert fork.problems[0].what == "unused: 1 stories have numbers of no split"
    assert fork.problems[2].what == "absent: 3752 of 3755 stories, numbers 10000 to 13754"


@pytest.mark.parametrize(
    ("ranges", "named"),
    [
        ({"train": (0, 3), "test": (2, 4)}, "train and test share story 2"),
        ({"train": (3, 3)}, r"ranges.train=\[3, 3\]"),
        ({"train": (3,)}, r"ranges.train=\[3\]"),
        ({}, "ranges is empty"),
        ("papers", "ranges=papers is none of paper, fork"),
        (
            {"train": (0, 2), "test": (2, 4), "val": (100, 200)},
            r"split val \(stories 100 to 199\) is empty.* are 0 to 3",
        ),
    ],
)
def test_ranges_that_make_no_splits_are_refused(ranges: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        opened(write(tmp_path / "x", scenes(0, 1, 2, 3)), ranges=ranges)


def change(content: dict[str, np.ndarray], t: int, place: int, value: float) -> None:
    content[f"CLEVR_new_000000_{t}.png"][place] = value


@pytest.mark.parametrize(
    ("t", "place", "value", "what"),
    [
        (2, 18 + 3, 1.0, "not one-hot: the color of object 2 in frame 2"),
        (1, 13, 0.5, "not one-hot: the size of object 1 in frame 1"),
        (4, 54 + 0, 0.0, "not one-hot: the shape of object 4 in frame 4"),
        (3, 54 + 15, 0.1, "extra object: frame 3 has attributes of more than 3"),
        (3, 18 + 15, 1.5, "changed object: object 2 is another in frame 3 than in frame 2"),
        (4, 73, 0.5, "changed direction: the camera moves inside the story"),
        (2, 15, np.nan, "not finite: an attribute is no number"),
    ],
)
def test_a_scene_whose_attributes_disagree_is_left_out_and_named(
    t: int, place: int, value: float, what: str, tmp_path: Path
) -> None:
    content = scenes(0, 1, 2, 3)
    change(content, t, place, value)
    made = opened(write(tmp_path / "x", content))
    assert made.problems == [Problem("CLEVR_new_000000", what)]
    assert ids(made, "train") == ["CLEVR_new_000001"]
    assert len(made.records("test")) == 2


def test_a_scene_without_a_direction_is_left_out(tmp_path: Path) -> None:
    content = scenes(0, 1, 2, 3)
    for t in range(1, 5):
        change(content, t, 72, 0.0)
    assert opened(write(tmp_path / "x", content)).problems[0].what.startswith("no direction")


def test_the_dictionary_and_the_images_are_compared_both_ways(tmp_path: Path) -> None:
    content, images = scenes(0, 1, 2, 3, 5), dict.fromkeys(scenes(0, 1, 2, 3, 4))
    del content["CLEVR_new_000000_3.png"], images["CLEVR_new_000002_1.png"]
    content["CLEVR_new_000001_5.png"] = vector(4)
    content["CLEVR_newer_000001_5.png"] = vector(4)
    root = write(tmp_path / "x", content, images)
    Image.new("RGB", SIZE).save(root / "images" / "cover.png")
    made = opened(root, ranges={"train": (0, 6)})
    assert made.problems == [
        Problem("CLEVR_newer_000001_5.png", "unknown key: no CLEVR_new_<number>_<t>"),
        Problem("images/cover.png", "unknown image: no CLEVR_new_<number>_<t>.png"),
        Problem("CLEVR_new_000000", "no attributes: CLEVR_dict.npy lacks frame 3"),
        Problem("CLEVR_new_000001", "extra frame: 5; stories have 4"),
        Problem("CLEVR_new_000002", "no image: images/ lacks frame 1"),
        Problem("CLEVR_new_000004", "no attributes: CLEVR_dict.npy lacks frame 1, 2, 3, 4"),
        Problem("CLEVR_new_000005", "no image: images/ lacks frame 1, 2, 3, 4"),
    ]
    assert ids(made, "train") == ["CLEVR_new_000003"]


def test_keys_without_their_ending_name_the_same_frames(tmp_path: Path) -> None:
    whole = write(tmp_path / "x", scenes(0, 1, 2, 3))
    stems = {name.removesuffix(".png"): numbers for name, numbers in scenes(0, 1, 2, 3).items()}
    other = write(tmp_path / "y", stems, scenes(0, 1, 2, 3))
    assert opened(whole).records("test") == opened(other).records("test")


def test_damaged_pictures_are_named_when_they_are_read(tmp_path: Path) -> None:
    root = write(tmp_path / "x", scenes(0, 1, 2, 3))
    made, images = opened(root), root / "images"
    (images / "CLEVR_new_000000_1.png").unlink()
    data = (images / "CLEVR_new_000000_2.png").read_bytes()
    (images / "CLEVR_new_000000_2.png").write_bytes(data[: len(data) // 2])
    Image.new("RGB", (1, 1)).save(images / "CLEVR_new_000000_3.png")
    (images / "CLEVR_new_000000_4.png").write_bytes(b"no picture")
    expected = ["^missing$", "^truncated|^corrupt", "^wrong shape: 1x1 pixels, not 8x6$", "^corrupt"]
    for t, what in enumerate(expected, start=1):
        with pytest.raises(ClipError, match=what):
            made.pictures(f"CLEVR_new_000000_{t}")


def test_transparency_of_a_render_is_dropped_as_by_other_loaders(tmp_path: Path) -> None:
    root = write(tmp_path / "x", scenes(0, 1, 2, 3))
    Image.new("RGBA", SIZE, (200, 100, 50, 0)).save(root / "images" / "CLEVR_new_000000_1.png")
    (picture,) = opened(root).pictures("CLEVR_new_000000_1")
    assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (200, 100, 50))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"CLEVR_new_000000_1.png": np.zeros(16)}, r"CLEVR_new_000000_1.png holds \(16,\), not 75 numbers"),
        ({"CLEVR_new_000000_1.png": [0.0] * 75}, "CLEVR_new_000000_1.png holds list, not 75 numbers"),
        ({}, "CLEVR_dict.npy is no dictionary of frames"),
    ],
)
def test_another_dictionary_is_refused(content: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        opened(write(tmp_path / "x", content, {}))


def test_a_wrong_root_is_told_where_the_set_is(tmp_path: Path) -> None:
    root = write(tmp_path / "up" / "clevr", scenes(0, 1, 2, 3))
    for wrong in (tmp_path / "up", root / "images"):
        with pytest.raises(ValueError, match=f"give data.root={root}"):
            opened(wrong)
    shutil.rmtree(root / "images")
    with pytest.raises(ValueError, match="images is missing"):
        opened(root)


@pytest.mark.parametrize("options", [{"num_targets": 0}, {"num_targets": 4}, {"captions": "words"}])
def test_settings_out_of_bounds_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}={next(iter(options.values()))}"):
        opened(write(tmp_path / "x", scenes(0, 1, 2, 3)), **options)


def test_the_config_opens_the_set(tmp_path: Path) -> None:
    root = write(tmp_path / "x", scenes(0, 1))
    settings = [f"data.root={root}", "data.set.ranges={train: [0, 1], test: [1, 2]}", "data.set.size=[8, 6]"]
    made = instantiate(compose("prepare", ["data=clevr", *settings]).data.set)
    assert ids(made, "test") == ["CLEVR_new_000001"]
    assert made.pictures("CLEVR_new_000001_1")[0].size == SIZE
