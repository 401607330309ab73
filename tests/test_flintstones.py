"""FlintstonesSV: windows by the published rule, and a name for every one that is cut, crossed or left out."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from storydalle.stories.sets.flintstones import FlintstonesSV
from tests.flintstones_copy import (
    CROSSED,
    SHORT,
    SPLIT_FILE,
    STORIES,
    TEST,
    TRAIN,
    VAL,
    cached_windows,
    clip,
    long,
    named,
    plain_captions,
    stories,
    write_captions,
    write_copy,
    write_json,
    write_pickle,
    write_splits,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_copy(tmp_path / "flintstones")


# -------------------------------------------------------------------------------------------- windows


def test_a_shipped_copy_gives_the_listed_stories_in_the_order_of_the_split_file(root: Path):
    flintstones = FlintstonesSV(root)
    assert flintstones.splits == ("train", "val", "test")
    assert {split: stories(flintstones, split) for split in flintstones.splits} == STORIES


def test_a_shipped_copy_has_no_other_problem_than_its_end_and_its_crossed_window(root: Path):
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "short window") == SHORT
    assert named(flintstones, "window crosses splits") == CROSSED
    assert len(flintstones.problems) == len(SHORT) + len(CROSSED)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_short_windows_at_the_end_are_left_out_of_every_split_and_named(root: Path, split: str):
    """The published loader keeps them in train."""
    end = [clip(7, 1, start) for start in range(5)]
    own = {"train": TRAIN, "val": VAL, "test": TEST}[split]
    write_splits(root, **{split: [*own, *end]})
    write_captions(root, plain_captions() | dict.fromkeys(end, "Fred."))
    (root / "following_cache4.pkl").unlink()
    flintstones = FlintstonesSV(root)
    assert stories(flintstones, split)[-1] == tuple(end)
    assert named(flintstones, "short window") == end[1:]
    assert {len(record.clips) for record in flintstones.records(split)} == {5}


def test_a_window_that_crosses_splits_is_kept_and_named_with_the_foreign_clip(root: Path):
    flintstones = FlintstonesSV(root)
    assert STORIES["train"][3] in stories(flintstones, "train")
    expected = (long(400), f"window crosses splits: {long(800)} not of train; kept")
    assert expected in flintstones.problems


def test_windows_inside_leaves_crossed_ones_out_and_names_them(root: Path):
    flintstones = FlintstonesSV(root, windows="inside")
    assert stories(flintstones, "train") == [story for story in STORIES["train"] if story[0] != long(400)]
    assert stories(flintstones, "val") == STORIES["val"] and stories(flintstones, "test") == STORIES["test"]
    assert (long(400), f"window crosses splits: {long(800)} not of train; left out") in flintstones.problems


def test_windows_of_another_kind_are_refused(root: Path):
    with pytest.raises(ValueError, match="windows=some: give one of all, inside"):
        FlintstonesSV(root, windows="some")
    with pytest.raises(ValueError, match="num_targets=0"):
        FlintstonesSV(root, num_targets=0)


def test_a_window_never_leaves_its_episode(root: Path):
    """In the sorted list the fifth clip of one episode stands before the first of the next one."""
    for num_targets in (1, 2, 3, 4):
        flintstones = FlintstonesSV(root, num_targets=num_targets)
        for split in flintstones.splits:
            assert all(len({key[:9] for key in story}) == 1 for story in stories(flintstones, split))


@pytest.mark.parametrize(
    ("num_targets", "train", "val", "test"), [(3, 5 + 3, 2, 3), (2, 6 + 4, 3, 4), (1, 7 + 5, 4, 5)]
)
def test_another_number_of_targets_gives_other_windows(root: Path, num_targets: int, train: int, val: int, test: int):
    flintstones = FlintstonesSV(root, num_targets)
    assert {len(record.clips) for split in STORIES for record in flintstones.records(split)} == {num_targets + 1}
    assert [len(flintstones.records(split)) for split in flintstones.splits] == [train, val, test]


def test_more_targets_than_the_episodes_of_a_split_have_are_refused(root: Path):
    with pytest.raises(ValueError, match="no story of 5 targets in the split val"):
        FlintstonesSV(root, num_targets=5)


def test_ids_are_sorted_as_strings(root: Path):
    """Episode 10 comes before episode 9 without a zero; within an episode no number is compared."""
    odd = ["s_8_e_9_shot_20_1", "s_8_e_9_shot_3_1", "s_8_e_9_shot_100_1", "s_8_e_9_shot_1_1", "s_8_e_9_shot_9_1"]
    write_splits(root, val=[*VAL, *odd])
    write_captions(root, plain_captions() | dict.fromkeys(odd, "Fred."))
    ordered = tuple(f"s_8_e_9_shot_{start}_1" for start in (100, 1, 20, 3, 9))
    assert stories(FlintstonesSV(root), "val")[-1] == ordered


def test_the_legacy_cut_keeps_the_first_1900_test_stories_of_the_split_file(root: Path):
    many = [clip(4, 1, start) for start in range(1910, 0, -1)]
    write_splits(root, test=many)
    write_captions(root, plain_captions() | dict.fromkeys(many, "Fred."))
    (root / "labels.pkl").unlink()
    (root / "following_cache4.pkl").unlink()
    whole, cut = FlintstonesSV(root), FlintstonesSV(root, legacy_cut=True)
    assert len(whole.records("test")) == 1906
    assert cut.records("test") == whole.records("test")[:1900]
    assert cut.records("test")[0].id == clip(4, 1, 1906)
    assert cut.records("train") == whole.records("train") and cut.records("val") == whole.records("val")
    assert ("test", "legacy cut: 6 stories behind the first 1900 are left out") in cut.problems
    assert named(whole, "legacy cut") == []


def test_a_cache_that_has_other_windows_is_named_and_not_used(root: Path):
    cached = cached_windows()
    cached[long(100)] = cached[long(100)][:3]
    del cached[long(200)]
    cached[long(600)] = [long(700), long(800), clip(1, 10, 10), clip(1, 10, 20)]
    write_pickle(root / "following_cache4.pkl", cached)
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "other window") == [long(100), long(200), long(600)]
    assert {split: stories(flintstones, split) for split in STORIES} == STORIES
    assert named(FlintstonesSV(root, num_targets=3), "other window") == []


def test_a_cache_that_cannot_be_read_is_named_and_not_needed(root: Path):
    path = root / "following_cache4.pkl"
    whole = path.read_bytes()
    for content in (whole[:50], b"cos\nsystem\n(S'true'\ntR.", pickle.dumps([1]), pickle.dumps({long(100): 3})):
        path.write_bytes(content)
        flintstones = FlintstonesSV(root)
        assert named(flintstones, "unreadable") == ["following_cache4.pkl"]
        assert stories(flintstones, "train") == STORIES["train"]
    path.unlink()
    assert stories(FlintstonesSV(root), "train") == STORIES["train"]


# ---------------------------------------------------------------------------------------- split file


def test_the_older_file_name_is_read_and_named(root: Path):
    (root / SPLIT_FILE).rename(root / "train-val_split.json")
    flintstones = FlintstonesSV(root)
    assert {split: stories(flintstones, split) for split in STORIES} == STORIES
    assert named(flintstones, "older file name") == ["train-val_split.json"]
    assert flintstones.annotation_files()[0] == root / "train-val_split.json"


def test_the_newer_file_counts_where_both_are(root: Path):
    write_splits(root, "train-val_split.json", test=TEST[1:])
    flintstones = FlintstonesSV(root)
    assert stories(flintstones, "test") == STORIES["test"]
    assert named(flintstones, "older file name") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": TRAIN, "val": VAL}, "has no lists train, val, test"),
        ({"train": TRAIN, "val": VAL, "test": "all"}, "has no lists train, val, test"),
        (TRAIN, "has no lists train, val, test"),
        ({"train": TRAIN, "val": [], "test": TEST}, "has no clip in the split val"),
        ({"train": TRAIN, "val": [long(800)], "test": TEST}, "no story of 4 targets in the split val"),
    ],
)
def test_splits_of_another_kind_are_refused(root: Path, content: Any, message: str):
    write_json(root / SPLIT_FILE, content)
    with pytest.raises(ValueError, match=message):
        FlintstonesSV(root)


def test_ids_that_name_no_episode_are_left_out_of_the_windows_and_named(root: Path):
    bad = ["../secret", "s_01_e_02/x", "shot_1", "s_x_e_1_shot", "s_01_e_02_shot_000250_000324.npy"]
    write_splits(root, train=[*bad, *TRAIN])
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "bad id") == bad
    assert stories(flintstones, "train") == STORIES["train"]


def test_a_clip_twice_in_a_split_or_in_two_of_them_is_named_and_no_story_follows_itself(root: Path):
    write_splits(root, train=[*TRAIN, long(100)], val=[*VAL, long(300)])
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "clip twice") == [long(100)]
    assert named(flintstones, "clip in two splits") == [long(300)]
    assert stories(flintstones, "train") == STORIES["train"]
    assert stories(flintstones, "val") == [*STORIES["val"], STORIES["train"][0]]


@pytest.mark.parametrize("wrong", ["..", "video_frames_sampled"])
def test_a_root_one_level_off_is_told_where_the_set_is(root: Path, wrong: str):
    with pytest.raises(ValueError, match=r"train-val-test_split\.json or train-val_split\.json is missing") as caught:
        FlintstonesSV((root / wrong).resolve())
    assert str(caught.value).endswith(f"give data.root={root}")


def test_the_yaml_opens_the_set(root: Path):
    data = OmegaConf.load(Path(__file__).parent.parent / "conf" / "data" / "flintstones.yaml")
    data.root = str(root)
    opened = instantiate(OmegaConf.create({"data": data}).data.set)
    assert {split: stories(opened, split) for split in STORIES} == STORIES
    assert data.name == opened.name
    data.windows = "inside"
    inside = instantiate(OmegaConf.create({"data": data}).data.set)
    assert len(inside.records("train")) == len(STORIES["train"]) - 1


def test_annotation_files_are_those_that_decide_the_stories(root: Path):
    names = [SPLIT_FILE, "flintstones_annotations_v1-0.json", "labels.pkl"]
    assert [path.name for path in FlintstonesSV(root).annotation_files()] == names


def test_a_story_is_named_by_its_source_and_grouped_by_its_episode(root: Path):
    record = FlintstonesSV(root).records("test")[0]
    assert record.id == clip(1, 10, 20) and record.group == "s_01_e_10"
    with pytest.raises(ValueError, match=r"split unseen of flintstones has no story \(train, val, test have\)"):
        FlintstonesSV(root).records("unseen")
