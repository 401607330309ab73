"""Frames drawn by others: what is wrong with a folder is named before anything is scored, and only then."""

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from storydalle.evaluation.drawn import DrawnFrames
from tests.drawn_frames import (
    FIRST,
    KEYS,
    LENGTHS,
    SECOND,
    SIDE,
    THIRD,
    cut,
    draw_own,
    frames_of,
    only_problem,
    opened,
    pixels,
    save,
    tensor_of,
)

# ------------------------------------------------------------------------------------------------ numbers


def test_a_missing_frame_is_named_by_story_and_number(tmp_path):
    (draw_own(tmp_path) / SECOND / "02.png").unlink()
    assert only_problem(tmp_path) == (f"{SECOND} frame 2", "missing: the story has 2, counted from 1")


def test_a_frame_that_is_there_twice_is_named_with_both_files(tmp_path):
    save(draw_own(tmp_path) / SECOND / "2.png", pixels())
    assert only_problem(tmp_path) == (f"{SECOND} frame 2", f"doubled: {SECOND}/02.png, {SECOND}/2.png")


@pytest.mark.parametrize("number", [0, 3])
def test_a_frame_beyond_the_story_is_named(tmp_path, number):
    save(draw_own(tmp_path) / SECOND / f"{number:02d}.png", pixels())
    where, what = only_problem(tmp_path)
    assert (where, what) == (
        f"{SECOND}/{number:02d}.png",
        f"beyond: frame {number} of a story of 2, counted from 1",
    )
    assert opened(tmp_path).survey().whole == (FIRST, THIRD)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("set/test/d/01.png", "no story: 'set/test/d' is none of this split"),
        ("plot.png", "no frame: its name is no number"),
    ],
)
def test_a_file_of_no_story_is_named_and_spoils_no_story(tmp_path, file, what):
    save(draw_own(tmp_path) / file, pixels())
    assert only_problem(tmp_path) == (file, what)
    assert opened(tmp_path).survey().check(allow_partial=True) == list(LENGTHS)


def test_numbers_beyond_the_split_are_named_in_every_numbered_layout(tmp_path):
    for k, key in enumerate(KEYS):
        save(tmp_path / "png" / f"gen_sample_{k // 2}_{k % 2}.png", pixels(*key))
        save(tmp_path / "flat" / f"{k:04d}.png", pixels(*key))
    save(tmp_path / "png" / "gen_sample_3_0.png", pixels())
    save(tmp_path / "flat" / "0006.png", pixels())
    (tmp_path / "pt").mkdir()
    torch.save(tensor_of(*LENGTHS, FIRST)[:, :1], tmp_path / "pt" / "sdalle_story_test.pt")
    assert only_problem(tmp_path / "png") == ("gen_sample_3_0.png", "no story: number 3 of 3, counted from 0")
    assert only_problem(tmp_path / "flat") == ("0006.png", "no story: the split's 3 have 6 frames")
    assert only_problem(tmp_path / "pt", lengths=dict.fromkeys(LENGTHS, 1))[0] == "sdalle_story_test.pt[3, 0]"


def test_first_frames_drawn_by_ar_ldm_shift_all_numbers_and_are_refused(tmp_path):
    for number in range(9):
        save(tmp_path / f"{number:04d}.png", pixels(frame=number))
    with pytest.raises(ValueError, match=r"one a story more .* task=visualization"):
        opened(tmp_path)


def test_a_position_counts_in_the_whole_split_when_a_part_of_it_is_scored(tmp_path):
    for number, key in enumerate(KEYS):
        save(tmp_path / f"{number:04d}.png", pixels(*key))
    drawn = opened(tmp_path, scored=[THIRD])
    assert drawn.survey().check() == [THIRD]
    np.testing.assert_array_equal(drawn.read(THIRD), frames_of(THIRD))
    assert drawn.notes[-1] == "4 pictures of stories that are not scored were ignored"


def test_stories_of_another_split_may_lie_beside(tmp_path):
    save(draw_own(tmp_path) / "set/unseen/a/01.png", pixels())
    assert opened(tmp_path, others={"set/unseen/a"}).survey().check() == list(LENGTHS)


# ------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (cut, "truncated: "),
        (lambda file: file.write_bytes(b"no picture"), "corrupt: cannot identify image file it"),
        (lambda file: file.write_bytes(b""), "truncated: it is empty"),
        (lambda file: save(file, pixels(side=7)), "wrong shape: 7x7 pixels"),
    ],
)
def test_a_picture_that_cannot_be_read_is_named_and_its_story_left_out(tmp_path, spoil, what):
    spoil(draw_own(tmp_path) / SECOND / "01.png")
    drawn = opened(tmp_path)  # nothing is decoded before it is asked for
    where, said = only_problem(tmp_path)
    assert where == f"{SECOND}/01.png" and said.startswith(what)
    assert drawn.survey().check(allow_partial=True) == [FIRST, THIRD]
    with pytest.raises(ValueError, match=re.escape(f"{SECOND} is not whole: {SECOND}/01.png: {what}")):
        drawn.read(SECOND)


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, (h, w, 3), written by hand."""
    h, w, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def put_deep_colour(file: Path) -> None:
    file.write_bytes(deep_png(np.full((SIDE, SIDE, 3), (0x10FF, 0x8000, 0xFFFF), np.uint16)))


def put(array: np.ndarray) -> Callable[[Path], Any]:
    return lambda file: Image.fromarray(array).save(file)


def put_palette(file: Path) -> None:
    picture = Image.new("P", (SIDE, SIDE), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(file)


@pytest.mark.parametrize(
    ("put_one", "forms", "colour"),
    [
        (put(np.full((SIDE, SIDE), 7, np.uint8)), {"grey": 1}, (7, 7, 7)),
        (put(np.full((SIDE, SIDE, 4), (255, 0, 0, 0), np.uint8)), {"transparent": 1}, (255, 255, 255)),
        (put(np.full((SIDE, SIDE, 4), (255, 0, 0, 51), np.uint8)), {"transparent": 1}, (255, 204, 204)),
        (put_palette, {"palette": 1}, (10, 20, 30)),
        (put(np.full((SIDE, SIDE), 0x80FF, np.uint16)), {"grey": 1, "16-bit": 1}, (0x80, 0x80, 0x80)),
        (put_deep_colour, {"16-bit": 1}, (0x10, 0x80, 0xFF)),
    ],
    ids=["grey", "clear", "half clear", "palette", "grey of 16 bits", "colour of 16 bits"],
)
def test_a_picture_of_another_form_is_converted_by_its_rule_and_counted(tmp_path, put_one, forms, colour):
    put_one(draw_own(tmp_path) / SECOND / "01.png")
    drawn = opened(tmp_path)
    survey = drawn.survey()
    assert survey.check() == list(LENGTHS)
    assert dict(survey.counts) == forms
    assert len(survey.notes) == len(forms) and survey.notes[0].startswith("1 ")
    np.testing.assert_array_equal(drawn.read(SECOND)[0], np.full((SIDE, SIDE, 3), colour, np.uint8))


def test_a_picture_of_floats_is_refused(tmp_path):
    Image.fromarray(np.zeros((SIDE, SIDE), np.float32)).save(tmp_path / "1.tif")
    (tmp_path / "map.csv").write_text("story,frame,file\na,1,1.tif\n")
    assert only_problem(tmp_path, lengths={"a": 1}) == (
        "1.tif",
        "unsupported: mode F; save it with 8 or 16 bits a channel",
    )


def test_sizes_are_reported_and_brought_to_the_resolution(tmp_path):
    draw_own(tmp_path)
    wide = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    save(tmp_path / SECOND / "01.png", wide)
    drawn = DrawnFrames(tmp_path, LENGTHS, 12)
    survey = drawn.survey()
    assert survey.check() == list(LENGTHS)
    assert dict(survey.sizes) == {"8x8": 5, "24x16": 1}
    assert dict(survey.counts) == {"smaller": 5, "not square": 1}
    assert "2 sizes: 5 of 8x8, 1 of 24x16" in survey.notes
    expected = np.asarray(Image.fromarray(wide[:, 4:20]).resize((12, 12), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(drawn.read(SECOND)[0], expected)
    assert drawn.read(FIRST).shape == (2, 12, 12, 3)
    assert survey.record()["interpolation"] == "lanczos"


# ------------------------------------------------------------------------------------------------ the verdict


def test_the_first_five_problems_are_named_and_all_are_counted(tmp_path):
    draw_own(tmp_path)
    for file in ("01.png", "02.png"):
        (tmp_path / SECOND / file).unlink()
        save(tmp_path / "nobody" / file, pixels())
        save(tmp_path / "noone" / file, pixels())
    survey = opened(tmp_path).survey()
    with pytest.raises(ValueError) as raised:
        survey.check()
    said = str(raised.value)
    assert said.startswith(f"{tmp_path} has 6 problems (4 no story, 2 missing): nobody/01.png: no story")
    assert said.count("no story:") == 4 and said.count("missing:") == 1
    assert said.endswith("; and 1 more; fix them, or score the 2 whole stories of 3 with allow_partial=true")
    assert survey.check(allow_partial=True) == [FIRST, THIRD]
    assert dict(survey.counts) == {"no story": 4, "missing": 2}


def test_a_set_of_which_no_story_is_whole_is_not_scored_in_part(tmp_path):
    draw_own(tmp_path)
    for story in LENGTHS:
        (tmp_path / story / "01.png").unlink()
    with pytest.raises(ValueError, match="none of its stories is whole"):
        opened(tmp_path).survey().check(allow_partial=True)


def test_the_hash_is_of_stories_frames_and_files_in_one_order(tmp_path):
    draw_own(tmp_path)
    files = {(story, frame): tmp_path / story / f"{frame:02d}.png" for story, frame in KEYS}
    rows = [[*key, hashlib.sha256(files[key].read_bytes()).hexdigest()] for key in sorted(KEYS)]
    expected = hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    assert opened(tmp_path).survey(num_workers=1).sha256 == expected
    assert opened(tmp_path, dict(reversed(LENGTHS.items()))).survey(num_workers=3).sha256 == expected


def test_the_hash_is_not_of_names_or_places(tmp_path):
    for k, key in enumerate(KEYS):
        save(tmp_path / "other" / f"gen_sample_{k // 2}_{k % 2}.png", pixels(*key))
    assert opened(draw_own(tmp_path / "own")).survey().sha256 == opened(tmp_path / "other").survey().sha256


def test_one_picture_everywhere_is_a_problem_and_one_in_each_story_is_none(tmp_path):
    for story, frame in KEYS:
        save(tmp_path / "same" / story / f"{frame:02d}.png", pixels())
        save(tmp_path / "copied" / story / f"{frame:02d}.png", pixels(story))
    assert only_problem(tmp_path / "same") == (
        "all stories",
        "all alike: the 6 frames are one and the same picture",
    )
    assert opened(tmp_path / "copied").survey().problems == ()


def test_stories_that_show_the_source_of_another_are_noted_as_possibly_shuffled(tmp_path):
    def source(story: str) -> np.ndarray:
        return pixels(story, 0)

    shown = {FIRST: SECOND, SECOND: FIRST, THIRD: THIRD}
    for story, frame in KEYS:
        save(tmp_path / "shuffled" / story / f"{frame}.png", source(shown[story]))
        save(tmp_path / "copied" / story / f"{frame}.png", source(story))
    survey = opened(tmp_path / "shuffled").survey(sources=source)
    assert survey.check() == list(LENGTHS), "a note, since shuffled frames may be what is to be scored"
    assert survey.notes == (
        "possibly shuffled: 2 stories show another's source, such as "
        f"{FIRST} the one of {SECOND}; {SECOND} the one of {FIRST}",
    )
    assert opened(tmp_path / "copied").survey(sources=source).notes == ()


def test_true_frames_of_overlapping_windows_are_not_taken_for_shuffled(tmp_path):
    clip = [pixels("clip", k) for k in range(5)]
    for start, (story, length) in enumerate(LENGTHS.items()):
        for frame in range(1, length + 1):
            save(tmp_path / story / f"{frame}.png", clip[start + frame])
    sources = {story: clip[start] for start, story in enumerate(LENGTHS)}
    assert opened(tmp_path).survey(sources=sources.__getitem__).notes == ()


def test_progress_counts_stories(tmp_path):
    told: list[tuple[int, int]] = []
    opened(draw_own(tmp_path)).survey(progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
