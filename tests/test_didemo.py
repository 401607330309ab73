"""DiDeMoSV as it is released, with every fault that its copies have."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.didemo import DiDeMoSV
from storydalle.stories.story_set import Problem

CONFIG = Path(__file__).parent.parent / "conf" / "data" / "didemo.yaml"
BEACH = "54322086@N00_2408598493_274c77d26a"
# Captions keep their case. Frames of val and test stand in folders that are not named like videos of Flickr.
ENTRIES: dict[str, list[list[list[str]]]] = {
    "train": [
        [["A man Waves.", "b1"], ["The dog runs", "b2"], ["waves  come\nin", "b3"]],
        [["", "b3"], ['a sign says "STOP"', "b4"], ["The dog runs", "b2"], ["more pairs than a story", "b5"]],
        [["one", "b1"], ["two", "b2"], ["three", "b3"], ["its frame is not there", "gone"]],
        [["one", "b4"], ["and no more", "b5"]],
        [["one", "b1"], ["", "b2"], ["three", "b3"]],
    ],
    "val": [
        [["a cat", "party/1.png"], ["a cat on a bed", "party/my cat.png"], ["no cat", "party/3.jpg"]],
        [["tents", "camp/1.png"], ["a fire", "camp/2.png"], ["a song", "camp/3.png"]],
    ],
    "test": [[["clear", "clear/1.png"], ["grey", "clear/2.png"], ["dot", "clear/3.png"], ["half", "clear/4.png"]]],
}
LEFT_OUT = [
    Problem("train/2", f"missing frame: didemo/{BEACH}/gone.jpg"),
    Problem("train/3", "short story: 2 pairs of caption and frame of 3"),
    Problem("train/4", "no caption: that of a target is empty"),
]


def frame_path(short: str) -> str:
    return f"didemo/{short}" if "/" in short else f"didemo/{BEACH}/{short}.jpg"


def write_set(folder: Path) -> Path:
    """The image folder ``didemo`` with its three files; frame paths are relative to ``folder``, its parent."""
    root = folder / "didemo"
    for short in {frame for entries in ENTRIES.values() for pairs in entries for _, frame in pairs} - {"gone"}:
        path = folder / frame_path(short)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(short.encode())).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(root / "clear/1.png")
    Image.new("L", (16, 24), 7).save(root / "clear/2.png")
    Image.new("RGB", (1, 1)).save(root / "clear/3.png")
    whole = (root / "clear/4.png").read_bytes()
    (root / "clear/4.png").write_bytes(whole[: len(whole) // 2])
    for split, entries in ENTRIES.items():
        rows = [{"desc_to_frame": [[text, frame_path(short)] for text, short in pairs]} for pairs in entries]
        (root / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path)


def clips_of(*shorts: str) -> tuple[str, ...]:
    return tuple(frame_path(short) for short in shorts)


def test_the_stories_are_the_first_pairs_of_each_entry_in_order(root: Path):
    stories = DiDeMoSV(root)
    assert stories.splits == ("train", "val", "test")
    assert [(r.id, r.clips, r.captions) for r in stories.records("train")] == [
        ("train/0", clips_of("b1", "b2", "b3"), ("A man Waves.", "The dog runs", "waves come in")),
        ("train/1", clips_of("b3", "b4", "b2"), ("", 'a sign says "STOP"', "The dog runs")),
    ]
    assert [r.clips for r in stories.records("val")] == [
        clips_of("party/1.png", "party/my cat.png", "party/3.jpg"),
        clips_of("camp/1.png", "camp/2.png", "camp/3.png"),
    ]
    assert [r.captions for r in stories.records("test")] == [("clear", "grey", "dot")]


def test_every_entry_is_a_story_or_a_named_problem(root: Path):
    stories = DiDeMoSV(root)
    left_out = [problem for problem in stories.problems if problem.where in {f"train/{i}" for i in range(5)}]
    assert left_out == LEFT_OUT
    assert len(stories.records("train")) + len(left_out) == len(ENTRIES["train"])
    assert all(problem.where.startswith("didemo/") for problem in stories.problems if problem not in left_out)


def test_two_captions_of_one_frame_stay_with_their_stories_and_are_counted(root: Path):
    stories = DiDeMoSV(root)
    shared = frame_path("b3")
    told = [r.captions[r.clips.index(shared)] for r in stories.records("train")]
    assert told == ["waves come in", ""], "the last caption of a frame wins where they are kept by frame"
    collisions = {p.where: p.what for p in stories.problems if p.what.startswith("captions collide")}
    assert collisions.keys() == {frame_path(short) for short in ("b1", "b2", "b3", "b4", "b5")}
    assert collisions[shared] == "captions collide: 3 in train.json; every story keeps its own"


def test_stories_of_one_video_are_one_group(root: Path):
    stories = DiDeMoSV(root)
    assert [r.group for r in stories.records("train")] == [BEACH, BEACH]
    assert [r.group for r in stories.records("val")] == ["party", "camp"]


def test_a_folder_of_all_frames_is_no_video(root: Path):
    rows = [
        {"desc_to_frame": [[f"{i}", f"didemo/frames/{name}_{i}.jpg"] for i in range(3)]}
        for name in ("a", "b", f"{BEACH}_2")
    ]
    (root / "frames").mkdir()
    for path in (pair[1] for row in rows for pair in row["desc_to_frame"]):
        Image.new("RGB", (8, 8)).save(root.parent / path)
    (root / "train.json").write_text(json.dumps(rows))
    assert [r.group for r in DiDeMoSV(root).records("train")] == ["train/0", "train/1", BEACH]


@pytest.mark.parametrize("json_beside", [False, True], ids=["json in the image folder", "json beside it"])
def test_the_image_folder_and_its_parent_are_the_same_root(json_beside: bool, root: Path):
    expected = DiDeMoSV(root)
    if json_beside:
        for path in root.glob("*.json"):
            path.rename(root.parent / path.name)
    for given in [root.parent] if json_beside else [root, root.parent]:
        stories = DiDeMoSV(given)
        assert all(stories.records(split) == expected.records(split) for split in stories.splits)
        assert stories.problems == expected.problems
        assert stories.clip_file(frame_path("b1")) == root / BEACH / "b1.jpg"


def test_a_linked_image_folder_of_another_name_is_followed(root: Path, tmp_path: Path):
    link = tmp_path / "elsewhere" / "my_copy"
    link.parent.mkdir()
    link.symlink_to(root, target_is_directory=True)
    assert DiDeMoSV(link).records("val") == DiDeMoSV(root).records("val")


def test_a_root_that_is_too_low_is_told_where_the_set_is(root: Path):
    with pytest.raises(ValueError, match=rf"it seems to be in {root}: give data.root={root}$"):
        DiDeMoSV(root / BEACH)


def test_a_renamed_image_folder_is_refused(root: Path):
    renamed = root.rename(root.parent / "renamed")
    with pytest.raises(ValueError, match="paths start with 'didemo'"):
        DiDeMoSV(renamed)


def test_of_several_sets_below_a_root_none_is_chosen(root: Path):
    write_set(root.parent / "more")
    (root.parent / "more" / "didemo").rename(root.parent / "second")
    with pytest.raises(ValueError, match=r"several folders with a train.json \(didemo, second\)"):
        DiDeMoSV(root.parent)


def test_pictures_are_rgb_and_transparency_is_white(root: Path):
    stories = DiDeMoSV(root)
    (clear,) = stories.pictures("didemo/clear/1.png")
    assert (clear.mode, clear.getpixel((3, 3))) == ("RGB", (255, 255, 255))
    (grey,) = stories.pictures("didemo/clear/2.png")
    assert (grey.mode, grey.size, grey.getpixel((3, 3))) == ("RGB", (16, 24), (7, 7, 7))
    assert stories.pictures("didemo/party/my cat.png")[0].size == (32, 24)


def test_damaged_pictures_are_named_when_they_are_read(root: Path):
    stories = DiDeMoSV(root)
    with pytest.raises(ClipError, match=r"^wrong shape: 1x1"):
        stories.pictures("didemo/clear/3.png")
    with pytest.raises(ClipError, match=r"^truncated"):
        stories.pictures("didemo/clear/4.png")
    (root / "party/1.png").unlink()
    with pytest.raises(ClipError, match=r"^missing"):
        stories.pictures("didemo/party/1.png")


def test_opening_a_set_lists_every_folder_once_and_reads_no_picture(root: Path, monkeypatch: pytest.MonkeyPatch):
    listed: list[Path] = []
    scan = os.scandir

    def counted(path: Path) -> Any:
        listed.append(path)
        return scan(path)

    monkeypatch.setattr("storydalle.files.reading.os.scandir", counted)
    monkeypatch.setattr(Image, "open", None)
    DiDeMoSV(root)
    assert len(listed) == len(set(listed))
    assert {path for path in listed if path.is_dir()} == {root / name for name in (BEACH, "party", "camp", "clear")}


def test_num_targets_decides_which_stories_are_too_short(root: Path):
    stories = DiDeMoSV(root, num_targets=1)
    assert [r.id for r in stories.records("train")] == ["train/0", "train/1", "train/3"]
    assert all(len(r.clips) == 2 for r in stories.records("val"))
    with pytest.raises(ValueError, match=r"val.json gives no story of 2 entries; the first: short story: 3 pairs"):
        DiDeMoSV(root, num_targets=3)
    with pytest.raises(ValueError, match="num_targets=0"):
        DiDeMoSV(root, num_targets=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "empty one"),
        (b'{"desc_to_frame": []}', "no list of stories"),
        (b'[{"video": "x.avi", "description": "raw DiDeMo", "times": [[0, 1]]}]', "has no list desc_to_frame"),
        (b'[{"desc_to_frame": [["a", "didemo/1.png", "b"]]}]', "is no pair"),
        (b'[{"desc_to_frame": [["a", 1]]}]', "is no pair"),
        (b'[{"desc_to_frame": [["a", "../1.png"]]}]', "is no frame path"),
        (b'[{"desc_to_frame": [["a", "/1.png"]]}]', "is no frame path"),
        (b'[{"desc_to_frame": [["a', "is not JSON, or truncated"),
        (b'[{"desc_to_frame": [["caf\xe9", "didemo/1.png"]]}]', r"is not in UTF-8 \(byte 25\)"),
        (None, "is missing"),
    ],
)
def test_another_layout_is_refused_in_one_line(content: bytes | None, message: str, root: Path):
    path = root / "val.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        DiDeMoSV(root)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_set_can_be_handed_to_another_process(root: Path):
    stories = DiDeMoSV(root)
    assert pickle.loads(pickle.dumps(stories)).records("train") == stories.records("train")


def test_the_config_opens_the_set(root: Path):
    from hydra.utils import instantiate

    config = OmegaConf.create({"data": OmegaConf.load(CONFIG)})
    config.data.root = str(root)
    assert len(instantiate(config.data.set).records("train")) == 2
