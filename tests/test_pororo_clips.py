"""PororoSV: the caption, the characters and the pictures of a clip, and a name for what is wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.pororo import PororoSV
from tests.pororo_copy import (
    COLORS,
    EP1,
    EP2,
    OTHER,
    SIDE,
    STORIES,
    TRAIN,
    UNSEEN,
    problems,
    save,
    scenes,
    write_copy,
    write_splits,
    write_strip,
    write_table,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_copy(tmp_path / "pororo_png")


# ------------------------------------------------------------------------------------------- captions


def test_captions_are_the_first_row_with_quotes_breaks_and_capitals_kept(root: Path):
    for name in ("descriptions.csv", "descriptions.npy"):
        captions = PororoSV(root).records("train")[0].captions
        assert captions[:3] == (f"This is {EP1}/1.", 'Pororo says, "Hello." Eddy waves.', "Loopy|Crong, together"), name
        (root / "descriptions.csv").unlink(missing_ok=True)


def test_captions_pickled_as_bytes_or_in_python_2_are_read(root: Path):
    (root / "descriptions.csv").unlink()
    caption = "Pororo’s café"  # noqa: RUF001
    mangled = caption.encode().decode("latin-1")
    for value in ([caption.encode()], [mangled], [caption], np.array([caption]), caption):
        save(root / "descriptions.npy", np.array({scene.encode(): value for scene in scenes()}))
        assert set(PororoSV(root).records("test")[0].captions) == {caption}


def test_a_story_without_a_target_s_caption_is_left_out_and_named(root: Path):
    write_table(root, [(*scene.split("/"), "Words.") for scene in scenes() if scene != f"{EP1}/6"])
    pororo = PororoSV(root)
    assert [record.id for record in pororo.records("train")] == [f"{EP1}/1", f"{EP2}/1"]
    assert [record.id for record in pororo.records("val")] == [f"{EP1}/10"]
    assert problems(pororo, "no caption") == [(f"{EP1}/{k}", f"no caption: of {EP1}/6") for k in (2, 3, 4)]


def test_a_story_without_its_source_s_caption_is_kept_and_named(root: Path):
    write_table(root, [(*scene.split("/"), "" if scene == f"{EP1}/1" else "Words.") for scene in scenes()])
    pororo = PororoSV(root)
    assert pororo.records("train")[0].captions == ("", "Words.", "Words.", "Words.", "Words.")
    assert [where for where, _ in problems(pororo, "no source caption")] == [f"{EP1}/1"]
    assert len(pororo.records("train")) == 4


def test_rows_that_are_none_are_named_by_their_line(root: Path):
    rows = [(*scene.split("/"), "Words.") for scene in scenes()]
    write_table(root, [("episode", "scene", "caption"), *rows[:2], (EP1, "3"), *rows[2:]])
    pororo = PororoSV(root)
    assert [where for where, _ in problems(pororo, "bad row")] == ["descriptions.csv line 1", "descriptions.csv line 4"]
    assert len(pororo.records("train")) == 4


def test_an_open_quote_that_swallows_rows_is_named(root: Path):
    text = "".join(f"{EP1},{k},{chr(34) * (k == 2)}Words.\n" for k in range(1, 16))
    rest = "".join(f"{scene.replace('/', ',')},Words.\n" for scene in scenes() if not scene.startswith(EP1))
    (root / "descriptions.csv").write_text(rest + text)
    with pytest.raises(ValueError, match="no whole story in the split val"):
        PororoSV(root)
    write_splits(root, TRAIN, [12], UNSEEN)
    assert [where for where, _ in problems(PororoSV(root), "open quote")] == ["descriptions.csv line 30"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Pororo_ENGLISH1_1_ep1,1,caf\xe9\n", r"descriptions\.csv is not in UTF-8 \(byte 27\): save it"),
        (b"", r"descriptions\.csv has no row"),
        (b"a;1;Words.\n", r"descriptions\.csv has no row of episode, scene and caption"),
        (b'a,1,"' + b"x" * 200_000 + b'"\n', r"descriptions\.csv is no table"),
    ],
)
def test_a_table_of_another_kind_is_refused(root: Path, content: bytes, message: str):
    (root / "descriptions.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array(["a caption"]), r"descriptions\.npy is no dictionary but ndarray"),
        (np.array({f"{EP1}/1": 3}), r"descriptions\.npy has 3 in the place of a list of captions"),
        (np.array({f"{EP1}/1": [None]}), r"descriptions\.npy has \[None\] in the place"),
        (np.array({1: ["a caption"]}), r"descriptions\.npy has a key that is no name: 1 is no string"),
    ],
)
def test_pickled_captions_of_another_kind_are_refused(root: Path, content: Any, message: str):
    (root / "descriptions.csv").unlink()
    save(root / "descriptions.npy", content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root)


def test_a_copy_without_captions_is_refused(root: Path):
    (root / "descriptions.csv").unlink()
    (root / "descriptions.npy").unlink()
    with pytest.raises(ValueError, match=r"neither descriptions\.csv nor descriptions\.npy"):
        PororoSV(root)


# ----------------------------------------------------------------------------------------- characters


def test_characters_of_each_clip_are_read_in_their_order(root: Path):
    record = PororoSV(root).records("test")[0]
    assert record.characters is not None
    first = scenes().index(f"{OTHER}/1")
    assert [row.index(1) for row in record.characters] == [(first + i) % 9 for i in range(5)]
    assert {len(row) for row in record.characters} == {9}
    assert len(PororoSV.characters) == 9


def test_without_labels_stories_have_no_characters_and_that_is_said(root: Path):
    (root / "labels.npy").unlink()
    pororo = PororoSV(root)
    assert {record.characters for split in STORIES for record in pororo.records(split)} == {None}
    assert pororo.problems == [("labels.npy", "missing: the stories have no characters")]


def test_missing_and_bad_labels_are_named_and_leave_the_number_of_stories(root: Path):
    labels: dict[str, Any] = {scene: [0] * 9 for scene in scenes() if scene != f"{EP2}/3"}
    labels[f"{EP1}/14"] = [0] * 8
    save(root / "labels.npy", np.array(labels))
    pororo = PororoSV(root)
    assert [len(pororo.records(split)) for split in pororo.splits] == [4, 2, 1]
    assert [where for where, _ in problems(pororo, "bad label")] == [f"labels.npy ({EP1}/14)"]
    assert [where for where, _ in problems(pororo, "no label")] == [f"{EP2}/1", f"{EP1}/10"]
    assert pororo.records("train")[3].characters is None and pororo.records("train")[0].characters is not None


# ------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("num_frames", "extra"), [(1, 0), (5, 0), (3, SIDE - 1)])
def test_a_strip_is_cut_into_its_square_frames_from_the_top(root: Path, num_frames: int, extra: int):
    write_strip(root, f"{EP1}/1", extra=extra, num_frames=num_frames)
    frames = PororoSV(root).pictures(f"{EP1}/1")
    assert [frame.size for frame in frames] == [(SIDE, SIDE)] * num_frames
    expected = [Image.new("RGB", (1, 1), color).getpixel((0, 0)) for color in COLORS[:num_frames]]
    assert [frame.getcolors() for frame in frames] == [[(SIDE * SIDE, color)] for color in expected]


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_frames_are_rgb_whatever_the_file_is(root: Path, mode: str):
    write_strip(root, f"{EP1}/1", mode)
    assert {frame.mode for frame in PororoSV(root).pictures(f"{EP1}/1")} == {"RGB"}


def test_a_frame_slightly_wider_than_high_is_one_frame(root: Path):
    Image.new("RGB", (SIDE + 3, SIDE)).save(root / EP1 / "1.png")
    assert [frame.size for frame in PororoSV(root).pictures(f"{EP1}/1")] == [(SIDE, SIDE)]


@pytest.mark.parametrize("size", [(1, 1), (4, 200), (5 * SIDE, SIDE)])
def test_a_picture_that_is_no_vertical_strip_has_a_wrong_shape(root: Path, size: tuple[int, int]):
    Image.new("RGB", size).save(root / EP1 / "1.png")
    with pytest.raises(ClipError, match=f"^wrong shape: {size[0]}x{size[1]}"):
        PororoSV(root).pictures(f"{EP1}/1")


def test_damaged_files_are_told_apart(root: Path):
    pororo = PororoSV(root)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (SIDE * 5, SIDE, 3), dtype=np.uint8)).save(root / EP1 / "2.png")
    whole = (root / EP1 / "2.png").read_bytes()
    (root / EP1 / "2.png").write_bytes(whole[: len(whole) // 2])
    (root / EP1 / "3.png").write_bytes(b"no picture")
    for scene, what in ((1, "missing"), (2, "truncated"), (3, "corrupt")):
        with pytest.raises(ClipError, match=f"^{what}"):
            pororo.pictures(f"{EP1}/{scene}")
