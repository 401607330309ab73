"""Layouts of drawn frames: each comes out as it was put in, and a folder that speaks of none or two is refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storydalle.evaluation.drawn import DrawnFrames, find_layout
from storydalle.evaluation.drawn_layouts import files_below
from storydalle.stories.toon import ToonSV
from tests.drawn_frames import (
    FIRST,
    KEYS,
    LENGTHS,
    SECOND,
    THIRD,
    assert_as_drawn,
    cut,
    draw_own,
    frames_of,
    only_problem,
    opened,
    pixels,
    save,
    tensor_of,
)

# ------------------------------------------------------------------------------------------------ layouts


def test_our_own_frames_lie_below_the_storys_id(tmp_path):
    drawn = opened(draw_own(tmp_path))
    assert drawn.layout == "frames"
    assert_as_drawn(drawn)


def test_frames_are_ordered_by_number_and_not_by_name(tmp_path):
    for frame in range(1, 12):
        save(tmp_path / "a" / f"{frame}.png", pixels("a", frame))
    drawn = opened(tmp_path, {"a": 11})
    assert drawn.survey().check() == ["a"]
    np.testing.assert_array_equal(drawn.read("a")[9], pixels("a", 10))


def test_what_generate_writes_beside_the_frames_is_left_aside(tmp_path):
    for story, frame in KEYS:
        save(tmp_path / story / "frames" / f"{frame:02d}.png", pixels(story, frame))
        save(tmp_path / story / "frames" / f"{frame:02d}-2.png", pixels(story, 50 + frame))
        save(tmp_path / story / "frames" / "00-source.png", pixels(story, 0))
        save(tmp_path / story / "strip.png", pixels(story, 99))
        save(tmp_path / story / "strip.gif", pixels(story, 99))
        (tmp_path / story / "story.json").write_text("{}")
    drawn = opened(tmp_path)
    assert_as_drawn(drawn)
    assert drawn.notes == ("6 further candidates of frames were ignored",)


def test_released_samples_are_numbered_in_the_splits_order_from_0(tmp_path):
    for position, story in enumerate(LENGTHS):
        for frame in range(2):
            save(tmp_path / "images" / f"gen_sample_{position}_{frame}.png", pixels(story, frame + 1))
    save(tmp_path / "pororo_gen_samples_test_batch_000.png", pixels(frame=99))
    drawn = opened(tmp_path)
    assert drawn.layout == "storydalle"
    assert_as_drawn(drawn)
    assert "position in the split's order" in drawn.survey().record()["notes"][0]


def test_released_tensors_are_numbered_through_the_batches(tmp_path):
    torch.save(tensor_of(FIRST, SECOND), tmp_path / "sdalle_story_test_batch_0.pt")
    torch.save(tensor_of(THIRD), tmp_path / "sdalle_story_test_batch_1.pt")
    save(tmp_path / "mscoco_gen_samples_test_batch_000.png", pixels(frame=99))
    drawn = opened(tmp_path)
    assert drawn.layout == "storydalle"
    assert_as_drawn(drawn)


def test_batch_10_comes_after_batch_9_and_half_precision_gives_the_same_pixels(tmp_path):
    lengths = {f"s{k:02d}": 1 for k in range(11)}
    for k, story in enumerate(lengths):
        frame = torch.from_numpy(pixels(story)).permute(2, 0, 1)[None, None]
        torch.save((frame.float() / 255).half(), tmp_path / f"sdalle_story_test_batch_{k}.pt")
    drawn = opened(tmp_path, lengths)
    assert drawn.survey().check() == list(lengths)
    for story in lengths:
        np.testing.assert_array_equal(drawn.read(story)[0], pixels(story))


def test_a_missing_batch_leaves_the_later_stories_where_they_are(tmp_path):
    torch.save(tensor_of(FIRST), tmp_path / "sdalle_story_test_batch_0.pt")
    torch.save(tensor_of(THIRD), tmp_path / "sdalle_story_test_batch_2.pt")
    drawn = opened(tmp_path)
    assert drawn.survey().check(allow_partial=True) == [FIRST, THIRD]
    np.testing.assert_array_equal(drawn.read(THIRD), frames_of(THIRD))


def test_one_tensor_of_all_stories_is_read_and_said_to_be_joined_in_no_order(tmp_path):
    torch.save(tensor_of(*LENGTHS), tmp_path / "sdalle_story_test.pt")
    drawn = opened(tmp_path)
    assert_as_drawn(drawn)
    assert any("may be shuffled" in note for note in drawn.notes)


def test_ar_ldm_counts_target_frames_story_after_story(tmp_path):
    for number, key in enumerate(KEYS):
        save(tmp_path / f"{number:04d}.png", pixels(*key))
    drawn = opened(tmp_path)
    assert drawn.layout == "arldm"
    assert_as_drawn(drawn)


def test_ar_ldm_with_batches_counts_the_frames_of_a_batch_side_by_side(tmp_path):
    order = [(FIRST, 1), (SECOND, 1), (FIRST, 2), (SECOND, 2), (THIRD, 1), (THIRD, 2)]
    for number, key in enumerate(order):
        save(tmp_path / f"{number:04d}.png", pixels(*key))
    drawn = opened(tmp_path, stories_per_batch=2)
    assert_as_drawn(drawn)
    assert drawn.notes[0].endswith("batches of 2")


def write_csv(root: Path) -> Path:
    lines = ["story,frame,file"]
    for k, (story, frame) in enumerate(reversed(KEYS)):
        save(root / "pictures" / f"{k}.png", pixels(story, frame))
        lines.append(f"{story},{frame},pictures/{k}.png")
    (root / "map.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")  # as spreadsheets write it
    return root / "map.csv"


def test_a_csv_maps_files_to_frames_from_1(tmp_path):
    file = write_csv(tmp_path)
    for root in (file, tmp_path):
        drawn = opened(root)
        assert drawn.layout == "csv"
        assert_as_drawn(drawn)


def test_a_csv_may_show_one_file_as_many_frames(tmp_path):
    save(tmp_path / "source.png", pixels())
    (tmp_path / "map.csv").write_text("story,frame,file\na,1,source.png\na,2,source.png\n")
    np.testing.assert_array_equal(opened(tmp_path, {"a": 2}).read("a"), np.stack([pixels()] * 2))


def test_another_table_among_the_frames_is_no_map(tmp_path):
    draw_own(tmp_path)
    (tmp_path / "scores.csv").write_text("metric,value\nfid,1\n")
    assert opened(tmp_path).layout == "frames"


def test_lengths_and_resolution_come_from_a_data_set(tmp_path):
    stories = ToonSV("test", 2, resolution=64)
    for story in stories:
        for frame, array in enumerate(story.frames, start=1):
            save(tmp_path / story.id / f"{frame:02d}.png", array)
    drawn = DrawnFrames.of(tmp_path, stories)
    assert drawn.survey().check() == [story.id for story in stories]
    for story in stories:
        np.testing.assert_array_equal(drawn.read(story.id), story.frames)


# ------------------------------------------------------------------------------------------------ which layout


def test_a_folder_of_two_layouts_has_to_be_named(tmp_path):
    write_csv(tmp_path)
    save(tmp_path / "gen_sample_0_0.png", pixels())
    with pytest.raises(ValueError, match=r"could be of the layouts csv and storydalle: name one with layout="):
        opened(tmp_path)
    assert_as_drawn(opened(tmp_path, layout="csv"))


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda root: None, {}, "is empty"),
        (lambda root: root.rmdir(), {}, "is no folder of pictures"),
        (lambda root: save(root / "plot.png", pixels()), {}, "holds 1 files and none that a layout knows"),
        (draw_own, {"layout": "frame"}, "layout=frame is none of frames, storydalle, arldm, csv, vistorybench"),
        (draw_own, {"layout": "csv"}, "holds no CSV"),
        (draw_own, {"scored": ["elsewhere"]}, "story elsewhere is asked for: the split has 3, from set/test/b on"),
        (draw_own, {"scored": []}, "no story is asked for"),
        (lambda root: draw_own(root / "frames"), {}, r"holds no story of this split, but \S+frames does"),
        (lambda root: save(root / "00.png", pixels()), {"layout": "arldm", "stories_per_batch": 0}, "1 or more"),
    ],
)
def test_a_folder_that_cannot_be_what_was_meant_is_one_line(tmp_path, make, options, said):
    root = tmp_path / "root"
    root.mkdir()
    make(root)
    with pytest.raises(ValueError, match=said):
        opened(root, **options)


@pytest.mark.parametrize("inside", ["set", "set/test"])
def test_a_folder_inside_the_right_one_is_told_from_it(tmp_path, inside):
    draw_own(tmp_path)
    with pytest.raises(ValueError, match=f"holds no story of this split, but {tmp_path} does: give that"):
        opened(tmp_path / inside)


# ------------------------------------------------------------------------------------------------ tensors


class Malice:
    """A pickle of it makes a folder when it is read by a plain unpickler."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("write", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content, 2))])
def test_a_tensor_file_that_holds_code_is_refused_by_name_and_runs_nothing(tmp_path, write):
    write(Malice(tmp_path / "ran"), tmp_path / "sdalle_story_test_batch_0.pt")
    with pytest.raises(ValueError, match=r"sdalle_story_test_batch_0\.pt is refused: it asks for posix\.mkdir;"):
        opened(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"test_batch_0": [1, 2]}, r"batch_0\.pt holds list, no tensor of frames"),
        ({"test_batch_0": torch.zeros(2, 3, 8, 8)}, r"holds a torch.float32 tensor of shape \(2, 3, 8, 8\)"),
        ({"test_batch_0": torch.zeros(1, 2, 3, 8, 8, dtype=torch.int64)}, "holds a torch.int64 tensor"),
        ({"test_batch_0": torch.zeros(1, 1, 3, 8, 8).expand(9**4, 2, 3, 8, 8)}, "holds a torch.float32 tensor"),
        ({"test_batch_1": torch.zeros(1, 2, 3, 8, 8)}, "has no batch 0"),
        ({f"test_batch_{k}": torch.zeros(k + 1, 2, 3, 8, 8) for k in (0, 1)}, "2 stories in batch 1 and 1 in batch 0"),
        ({f"{mode}_batch_0": torch.zeros(1, 2, 3, 8, 8) for mode in ("val", "test")}, "holds tensors of test and val"),
        ({name: torch.zeros(1, 2, 3, 8, 8) for name in ("test", "test_batch_0")}, "holds stories twice"),
    ],
)
def test_tensors_that_give_no_story_a_number_are_refused(tmp_path, contents, said):
    for name, content in contents.items():
        torch.save(content, tmp_path / f"sdalle_story_{name}.pt")
    with pytest.raises(ValueError, match=said):
        opened(tmp_path)


def test_a_truncated_tensor_is_named(tmp_path):
    torch.save(tensor_of(*LENGTHS), file := tmp_path / "sdalle_story_test_batch_0.pt")
    cut(file)
    with pytest.raises(ValueError, match=r"batch_0\.pt is no tensor that can be read, or truncated"):
        opened(tmp_path)


def test_tensors_beside_their_pictures_are_refused(tmp_path):
    torch.save(tensor_of(*LENGTHS), tmp_path / "sdalle_story_test_batch_0.pt")
    save(tmp_path / "gen_sample_0_0.png", pixels())
    with pytest.raises(ValueError, match="keep the tensors or the pictures, not both"):
        opened(tmp_path)


@pytest.mark.parametrize(("value", "said"), [(-1.0, "values from -1 to "), (float("nan"), "values from nan to nan")])
def test_a_frame_of_a_tensor_outside_its_range_is_named(tmp_path, value, said):
    tensor = tensor_of(*LENGTHS)
    tensor[1, 0, 2, 3, 4] = value
    torch.save(tensor, tmp_path / "sdalle_story_test_batch_0.pt")
    where, what = only_problem(tmp_path)
    assert where == "sdalle_story_test_batch_0.pt[1, 0]" and what.startswith(f"out of range: {said}")


# ------------------------------------------------------------------------------------------------ rows of a CSV


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a,one,1.png", ("map.csv:3", "no frame: 'one' is no number")),
        ("a,2,/etc/passwd", ("map.csv:3", "no file: '/etc/passwd' is no path below the folder of map.csv")),
        ("a,2,x/../../1.png", ("map.csv:3", "no file: 'x/../../1.png' is no path below the folder of map.csv")),
        ("a,2", ("map.csv:3", "no file: '' is no path below the folder of map.csv")),
        ("b,1,1.png", ("1.png", "no story: 'b' is none of this split")),
        ("a,1,./1.png", ("a frame 1", "doubled: 1.png, 1.png")),
        ("a,2,gone.png", ("gone.png", "missing")),
    ],
)
def test_a_row_that_maps_nothing_is_named(tmp_path, row, problem):
    save(tmp_path / "1.png", pixels())
    (tmp_path / "map.csv").write_text(f"story,frame,file\na,1,1.png\n{row}\n")
    lengths = {"a": 2} if row.startswith("a,2,g") else {"a": 1}
    assert only_problem(tmp_path, lengths=lengths) == problem


@pytest.mark.parametrize(
    ("first_line", "said"),
    [("story,file", "has no column frame but story, file"), ("", "has no column story, frame, file but none")],
)
def test_a_csv_without_its_columns_is_refused_with_those_it_has(tmp_path, first_line, said):
    (tmp_path / "map.csv").write_text(f"{first_line}\n")
    with pytest.raises(ValueError, match=said):
        opened(tmp_path / "map.csv", layout="csv")


# ------------------------------------------------------------------------------------------------ files


def test_hidden_files_are_not_seen_and_links_are_followed_but_not_in_circles(tmp_path):
    draw_own(tmp_path / "real")
    root = tmp_path / "root"
    root.mkdir()
    (root / "set").symlink_to(tmp_path / "real" / "set")
    (tmp_path / "real" / "set" / "round").symlink_to(tmp_path / "real")
    save(root / ".cache" / "01.png", pixels())
    save(root / "._01.png", pixels())
    files = files_below(root)
    assert [file for file in files if "round" not in file] == sorted(
        f"{story}/{frame:02d}.png" for story, frame in KEYS
    )
    assert len(files) == len(KEYS)
    assert find_layout(root, files) == "frames"
