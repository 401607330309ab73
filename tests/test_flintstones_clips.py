"""FlintstonesSV: the caption, the characters and the pictures of a clip, and a name for what is wrong with them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.flintstones import FlintstonesSV
from tests.flintstones_copy import (
    ALL_CLIPS,
    STORIES,
    TEST,
    TRAIN,
    VAL,
    clip,
    last,
    long,
    named,
    plain_captions,
    stories,
    write_captions,
    write_copy,
    write_frames,
    write_json,
    write_pickle,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_copy(tmp_path / "flintstones")


# -------------------------------------------------------------------------- captions and characters


def test_captions_keep_their_case_and_lose_their_breaks(root: Path):
    write_captions(root, plain_captions() | {clip(1, 10, 30): '  Fred says\n"Yabba | Dabba"\tDoo. '})
    captions = FlintstonesSV(root).records("test")[0].captions
    assert captions[0] == f"Fred stands in {clip(1, 10, 20)}."
    assert captions[1] == 'Fred says "Yabba | Dabba" Doo.'


@pytest.mark.parametrize("text", [None, "", "  \n", "absent"])
def test_a_story_without_a_target_s_caption_is_left_out_and_named(root: Path, text: str | None):
    captions: dict[str, Any] = plain_captions() | {clip(1, 10, 60): text}
    if text == "absent":
        del captions[clip(1, 10, 60)]
    write_captions(root, captions)
    flintstones = FlintstonesSV(root)
    assert stories(flintstones, "test") == STORIES["test"][1:]
    assert (clip(1, 10, 20), f"no caption: of {clip(1, 10, 60)}") in flintstones.problems


def test_a_story_without_its_source_s_caption_is_kept_and_named(root: Path):
    write_captions(root, plain_captions() | {clip(1, 10, 10): ""})
    flintstones = FlintstonesSV(root)
    assert [record.captions[0] for record in flintstones.records("test")][1] == ""
    assert named(flintstones, "no source caption") == [clip(1, 10, 10)]


def test_of_two_captions_of_a_clip_the_last_is_used_and_the_clip_named(root: Path):
    path = root / "flintstones_annotations_v1-0.json"
    again = [
        {"globalID": clip(1, 10, 20), "description": "Another caption."},
        {"globalID": clip(1, 10, 30), "description": f" Fred stands in {clip(1, 10, 30)}."},
    ]
    write_json(path, json.loads(path.read_text()) + again)
    flintstones = FlintstonesSV(root)
    assert flintstones.records("test")[0].captions[0] == "Another caption."
    assert named(flintstones, "two captions") == [clip(1, 10, 20)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "is no list of annotations"),
        (b"[]", "is no list of annotations"),
        (b'[{"globalID": "a", "description": "b"}, {"globalID": "c"}]', "no globalID and description in its entry 1"),
        (b'[{"globalID": "a", "description": ["b"]}]', r"has \['b'\] for the description of a"),
        (b'[{"globalID": "a", "descr', "is not JSON, or truncated"),
        (b'[{"globalID": "a", "description": "caf\xe9"}]', r"is not in UTF-8 \(byte 38\): save it as text in UTF-8"),
        (None, r"flintstones_annotations_v1-0\.json is missing"),
    ],
)
def test_annotations_of_another_kind_are_refused(root: Path, content: bytes | None, message: str):
    path = root / "flintstones_annotations_v1-0.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        FlintstonesSV(root)


def test_labels_give_the_characters_of_each_clip(root: Path):
    record = FlintstonesSV(root).records("test")[1]
    first = len(TRAIN) + len(VAL)
    rows = [(first + TEST.index(key)) % 2 for key in record.clips]
    assert record.characters == tuple((row, 1, 0, 0, 0, 0, 0) for row in rows)


def test_missing_and_bad_labels_are_named_and_leave_the_number_of_stories(root: Path):
    labels: dict[str, Any] = {key: np.zeros(7, dtype=np.int64) for key in ALL_CLIPS if key != clip(1, 10, 60)}
    labels[last(6)] = [2] * 7
    write_pickle(root / "labels.pkl", labels)
    flintstones = FlintstonesSV(root)
    assert {split: stories(flintstones, split) for split in STORIES} == STORIES
    assert named(flintstones, "bad label") == [f"labels.pkl ({last(6)})"]
    assert named(flintstones, "no label") == [last(2), clip(1, 10, 20)]
    assert [record.characters is None for record in flintstones.records("test")] == [True, False]


def test_malicious_labels_are_refused_by_name(root: Path):
    (root / "labels.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"labels\.pkl is refused: it asks for os\.system"):
        FlintstonesSV(root)


def test_without_labels_the_captions_name_the_characters_and_that_is_said(root: Path):
    (root / "labels.pkl").unlink()
    write_captions(root, plain_captions() | {clip(1, 10, 20): "Wilma meets Mr. Slate."})
    flintstones = FlintstonesSV(root)
    assert flintstones.records("test")[0].characters == ((1, 0, 0, 0, 0, 0, 1), *[(0, 1, 0, 0, 0, 0, 0)] * 4)
    assert named(flintstones, "missing") == ["labels.pkl"]


@pytest.mark.parametrize(
    ("caption", "characters"),
    [
        ("Fred and BARNEY's car", {"Fred", "Barney"}),
        ("Alfred rides a dinosaur over pebblestone", set()),
        ("Dino, Pebbles.", {"Dino", "Pebbles"}),
        ("mr slate talks", {"Mr Slate"}),
        ("Mr. Slate talks", {"Mr Slate"}),
        ("slate's office", {"Mr Slate"}),
        ("the translated slates", set()),
        ("Mr. Rubble", set()),
        ("(wilma)-betty/fred", {"Wilma", "Betty", "Fred"}),
        ("", set()),
    ],
)
def test_characters_are_whole_words_of_a_caption(caption: str, characters: set[str]):
    said = FlintstonesSV.characters_said(caption)
    assert {name for name, is_said in zip(FlintstonesSV.characters, said, strict=True) if is_said} == characters


# ------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_frame_of_an_array_is_a_picture_in_time(root: Path, order: Any):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    write_frames(root, long(100), np.asarray(frames, order=order))
    pictures = FlintstonesSV(root).pictures(long(100))
    assert [picture.mode for picture in pictures] == ["RGB"] * 5
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in pictures]), frames)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((5, 16, 16, 3)),
        np.zeros((5, 16, 16, 3), dtype=np.int8),
        np.zeros((16, 16, 3), dtype=np.uint8),
        np.zeros((5, 16, 16), dtype=np.uint8),
        np.zeros((5, 3, 16, 16), dtype=np.uint8),
        np.zeros((5, 16, 16, 4), dtype=np.uint8),
        np.zeros((0, 16, 16, 3), dtype=np.uint8),
        np.zeros((5, 1, 1, 3), dtype=np.uint8),
        np.array([None, {}], dtype=object),
        np.zeros((5, 16, 16, 3), dtype=np.uint8).view([("r", "u1"), ("g", "u1"), ("b", "u1")]),
    ],
)
def test_an_array_of_another_shape_or_kind_is_named_and_never_unpickled(root: Path, frames: np.ndarray):
    write_frames(root, long(100), frames)
    with pytest.raises(ClipError, match=r"^wrong shape: .* is no uint8 \[n, H, W, 3\]"):
        FlintstonesSV(root).pictures(long(100))


def test_damaged_files_are_told_apart(root: Path):
    flintstones = FlintstonesSV(root)
    write_frames(root, long(100), np.zeros((5, 16, 16, 3), dtype=np.uint8))
    path = flintstones.clip_file(long(100))
    whole = path.read_bytes()
    contents = {whole[:-1]: "truncated", whole[:5]: "truncated", whole[:30]: "truncated", b"": "truncated"}
    for content, what in (contents | {b"no array at all": "corrupt", pickle.dumps({}) * 9: "corrupt"}).items():
        path.write_bytes(content)
        with pytest.raises(ClipError, match=f"^{what}"):
            flintstones.pictures(long(100))
    with pytest.raises(ClipError, match=r"^missing$"):
        flintstones.pictures(long(200))


def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(root: Path):
    path = FlintstonesSV(root).clip_file(long(100))
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 128, 128, 3)}
        np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(ClipError, match=r"^truncated: 0 bytes of 49152000000000"):
        FlintstonesSV(root).pictures(long(100))
