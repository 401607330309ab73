"""PororoSV: the stories that a released copy holds, and a name for every one that is left out or built otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from storydalle.stories.sets.pororo import PororoSV
from tests.pororo_copy import (
    EP1,
    EP2,
    NUM_SCENES,
    OTHER,
    SEEN,
    SOURCES,
    STORIES,
    TRAIN,
    UNSEEN,
    captions_of,
    clips,
    objects,
    problems,
    save,
    scenes,
    windows,
    write_caches,
    write_copy,
    write_splits,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_copy(tmp_path / "pororo_png")


# -------------------------------------------------------------------------------------------- stories


def test_a_released_copy_gives_the_listed_stories_and_no_problem(root: Path):
    pororo = PororoSV(root)
    assert pororo.splits == ("train", "val", "test")
    assert {split: clips(pororo, split) for split in pororo.splits} == STORIES
    assert pororo.problems == []


def test_stories_come_in_the_order_of_their_sorted_indices(root: Path):
    """The split lists 11, 3, 0, 4."""
    assert [record.id for record in PororoSV(root).records("train")] == [f"{EP1}/1", f"{EP1}/2", f"{EP1}/3", f"{EP2}/1"]


def test_a_story_is_grouped_by_its_episode(root: Path):
    assert [record.group for record in PororoSV(root).records("train")] == [EP1, EP1, EP1, EP2]


@pytest.mark.parametrize("entry", [str.encode, str, lambda path: f"/{path}"], ids=["bytes", "str", "str from the root"])
def test_caches_of_bytes_and_of_strings_are_the_same(root: Path, entry: Callable[[str], str | bytes]):
    write_caches(root, windows(), entry)
    assert {split: clips(PororoSV(root), split) for split in STORIES} == STORIES


def test_splits_of_one_length_which_numpy_saves_as_a_table_are_read(root: Path):
    save(root / "train_seen_unseen_ids.npy", np.array([[0, 3], [5, 1], [13, 12]]))
    assert clips(PororoSV(root), "val") == STORIES["val"]


def test_episodes_in_series_folders_are_read(root: Path):
    """The key of a clip has one part more, in caches, counter, captions and labels alike."""

    def nested(path: str) -> str:
        return path.replace("Pororo_ENGLISH1_1_", "Pororo_ENGLISH1_1/").replace(
            "Pororo_ENGLISH2_1_", "Pororo_ENGLISH2_1/"
        )

    write_caches(root, windows(), lambda path: nested(path).encode())
    save(root / "frames_counter.npy", np.array({f"{nested(key)}/": number for key, number in NUM_SCENES.items()}))
    save(root / "descriptions.npy", np.array({nested(scene): captions_of(scene) for scene in scenes()}))
    save(root / "labels.npy", np.array({nested(scene): [0] * 9 for scene in scenes()}))
    (root / "descriptions.csv").unlink()
    pororo = PororoSV(root)
    assert clips(pororo, "val") == [tuple(map(nested, story)) for story in STORIES["val"]]
    assert pororo.problems == []
    assert pororo.records("test")[0].group == "Pororo_ENGLISH2_1/ep1"
    assert pororo.clip_file("Pororo_ENGLISH2_1/ep1/3") == root / "Pororo_ENGLISH2_1" / "ep1" / "3.png"
    (root / "img_cache4.npy").unlink()
    assert clips(PororoSV(root), "val") == clips(pororo, "val")


def test_a_table_without_series_serves_episodes_whose_name_occurs_once(root: Path):
    write_caches(root, windows(), lambda path: f"series/{path}")
    assert PororoSV(root).records("test")[0].captions[0] == f"This is {OTHER}/1."
    twice = [[clip if clip.startswith(OTHER) else f"b/{OTHER}/{clip[-1]}" for clip in story] for story in windows()]
    write_caches(root, [*twice[:-1], twice[-1]], lambda path: path if path.startswith("b/") else f"a/{path}")
    with pytest.raises(ValueError, match="no caption"):
        PororoSV(root)


@pytest.mark.parametrize("wrong", ["..", EP1])
def test_a_root_one_level_off_is_told_where_the_set_is(root: Path, wrong: str):
    with pytest.raises(ValueError, match=r"train_seen_unseen_ids\.npy is missing") as caught:
        PororoSV((root / wrong).resolve())
    assert str(caught.value).endswith(f"give data.root={root}")


def test_the_yaml_opens_the_set(root: Path):
    data = OmegaConf.load(Path(__file__).parent.parent / "conf" / "data" / "pororo.yaml")
    data.root = str(root)
    opened = instantiate(OmegaConf.create({"data": data}).data.set)
    assert isinstance(opened, PororoSV) and opened.num_targets == data.num_targets == 4
    assert data.name == opened.name


def test_annotation_files_are_those_that_decide_the_stories(root: Path):
    names = ["train_seen_unseen_ids.npy", "img_cache4.npy", "following_cache4.npy", "descriptions.csv", "labels.npy"]
    assert [path.name for path in PororoSV(root).annotation_files()] == names
    assert root / "frames_counter.npy" in PororoSV(root, num_targets=2).annotation_files()


def test_an_unknown_split_is_refused(root: Path):
    with pytest.raises(ValueError, match=r"split unseen of pororo has no story \(train, val, test have\)"):
        PororoSV(root).records("unseen")


# -------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    "missing", [("img_cache4.npy",), ("following_cache4.npy",), ("img_cache4.npy", "following_cache4.npy")]
)
def test_missing_caches_are_built_by_the_rule_and_named(root: Path, missing: tuple[str, ...]):
    for name in missing:
        (root / name).unlink()
    pororo = PororoSV(root)
    assert {split: clips(pororo, split) for split in STORIES} == STORIES
    assert [where for where, _ in problems(pororo, "missing")] == [missing[0]]


def test_windows_without_cache_and_counter_are_refused(root: Path):
    (root / "img_cache4.npy").unlink()
    (root / "frames_counter.npy").unlink()
    with pytest.raises(ValueError, match=r"frames_counter\.npy is missing"):
        PororoSV(root)


def test_three_followings_are_rebuilt_as_four_and_named(root: Path):
    write_caches(root, windows(num_targets=3))
    pororo = PororoSV(root)
    assert {split: clips(pororo, split) for split in STORIES} == STORIES
    assert pororo.problems == [
        ("following_cache4.npy", "3 followings instead of 4: windows are built from frames_counter.npy")
    ]


def test_a_cache_rebuilt_for_three_followings_does_not_move_the_stories_of_the_splits(root: Path):
    """Such a cache has one source more an episode, so that an index means another story."""
    sources = [f"{e}/{k}" for e in sorted(NUM_SCENES) for k in sorted(map(str, range(1, NUM_SCENES[e] - 2)))]
    assert len(sources) == len(SOURCES) + 4
    write_caches(root, windows(3, sources), str)
    pororo = PororoSV(root)
    assert {split: clips(pororo, split) for split in STORIES} == STORIES
    assert [where for where, _ in problems(pororo, "rebuilt for 3 followings")] == ["img_cache4.npy"]


def test_another_number_of_targets_keeps_the_sources_and_follows_the_scenes(root: Path):
    pororo = PororoSV(root, num_targets=2)
    assert clips(pororo, "train") == [story[:3] for story in STORIES["train"]]
    assert pororo.problems == []


def test_more_targets_than_the_episode_has_are_a_short_window(root: Path):
    write_splits(root, TRAIN, SEEN, [13, 11])
    pororo = PororoSV(root, num_targets=5)
    assert clips(pororo, "val")[0] == tuple(f"{EP1}/{k}" for k in range(10, 16))
    assert problems(pororo, "short window") == [(f"{OTHER}/1", "short window: 4 of 5 followings")]
    assert [record.id for record in pororo.records("test")] == [f"{EP2}/1"]


def test_windows_that_the_cache_joins_otherwise_are_kept_and_named(root: Path):
    odd = windows()
    odd[0][4], odd[3][4] = f"{EP1}/7", f"{EP2}/1"
    write_caches(root, odd)
    pororo = PororoSV(root)
    assert clips(pororo, "train")[:2] == [tuple(odd[0]), tuple(odd[3])]
    assert [where for where, _ in problems(pororo, "odd window")] == [f"{EP1}/1"]
    assert [where for where, _ in problems(pororo, "window crosses episodes")] == [f"{EP1}/2"]


@pytest.mark.parametrize("path", ["../../secret/1", "1", "a/b/c/1", f"{EP1}/one"])
def test_a_path_that_is_no_scene_is_left_out_and_named(root: Path, path: str):
    odd = windows()
    odd[0][2] = path
    write_caches(root, odd)
    pororo = PororoSV(root)
    assert clips(pororo, "train") == STORIES["train"][1:]
    assert problems(pororo, "bad path") == [(f"{EP1}/1", f"bad path: {path!r} is no <episode>/<scene>.png")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("img_cache4.npy", np.arange(14), r"img_cache4\.npy is no array of paths"),
        ("img_cache4.npy", objects(*range(14)), r"img_cache4\.npy holds something else than paths: 0 is no string"),
        ("img_cache4.npy", np.array(SOURCES[:-1]), "following_cache4.npy has 14 stories and img_cache4.npy has 13"),
        ("following_cache4.npy", np.array(SOURCES), r"following_cache4\.npy is no array of paths of 2 dimensions"),
        ("frames_counter.npy", np.array({"a/": "3"}), r"frames_counter\.npy counts something else than scenes"),
        ("frames_counter.npy", np.array([3]), r"frames_counter\.npy is no dictionary but ndarray"),
    ],
)
def test_caches_and_counters_of_another_kind_are_refused(root: Path, name: str, content: Any, message: str):
    save(root / name, content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root, num_targets=3 if name == "frames_counter.npy" else 4)


# --------------------------------------------------------------------------------------------- splits


def test_an_index_out_of_range_is_named_and_never_counts_from_the_end(root: Path):
    write_splits(root, TRAIN, [*SEEN, 14, -1], UNSEEN)
    pororo = PororoSV(root)
    assert clips(pororo, "val") == STORIES["val"]
    assert problems(pororo, "index out of range") == [
        ("train_seen_unseen_ids.npy (val)", f"index out of range: {index} of 14 windows") for index in (-1, 14)
    ]


def test_a_story_twice_in_a_split_is_kept_once_and_named(root: Path):
    write_splits(root, [*TRAIN, 3], SEEN, UNSEEN)
    pororo = PororoSV(root)
    assert clips(pororo, "train") == STORIES["train"]
    assert problems(pororo, "story twice") == [(f"{EP1}/2", "story twice: again as index 3 of train")]


def test_a_story_in_two_splits_and_an_unseen_episode_in_train_are_named_as_leaks(root: Path):
    write_splits(root, TRAIN, SEEN, [*UNSEEN, 0, 12])
    pororo = PororoSV(root)
    assert problems(pororo, "story in two splits") == [(f"{EP1}/1", "story in two splits: train and test; kept")]
    assert [where for where, _ in problems(pororo, "unseen episode in train")] == [EP1, EP2]
    assert len(pororo.records("test")) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (objects([0], [1], []), "has no story in the split test"),
        (objects([0], [1]), "does not hold three lists"),
        (np.array({"train": [0]}), "does not hold three lists"),
        (objects([0], [1.0], [2]), "something else than indices in the split val"),
        (objects([0], ["1"], [2]), "something else than indices in the split val"),
        (objects([[0]], [1], [2]), "something else than indices in the split train"),
        (objects([0], 1, [2]), "has no story in the split val"),
        (objects([0], [1], [99]), r"no whole story in the split test; the last problem is .* index out of range: 99"),
    ],
)
def test_splits_of_another_kind_are_refused(root: Path, content: Any, message: str):
    save(root / "train_seen_unseen_ids.npy", content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root)


def test_a_copy_with_the_older_two_way_split_only_is_told_what_is_missing(root: Path):
    (root / "train_seen_unseen_ids.npy").rename(root / "train_test_ids.npy")
    with pytest.raises(ValueError, match=r"train_seen_unseen_ids\.npy is missing"):
        PororoSV(root)


def test_no_target_is_no_story(root: Path):
    with pytest.raises(ValueError, match="num_targets=0"):
        PororoSV(root, num_targets=0)
