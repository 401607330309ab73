"""Copies of sets that are not whole: what they serve for, and what is missing and why, is said."""

import csv
from pathlib import Path
from typing import Any

import pytest

from storydalle.reporting.findings import findings_of, report_of
from storydalle.stories.sets.clevr import ClevrSV
from storydalle.stories.sets.didemo import DiDeMoSV
from storydalle.stories.sets.flintstones import FlintstonesSV
from storydalle.stories.sets.pororo import PororoSV
from storydalle.stories.story_set import StorySet
from tests.flintstones_copy import (
    ALL_CLIPS,
    SPLIT_FILE,
    STORIES,
    TEST,
    VAL,
    clip,
    named,
    plain_captions,
    stories,
    write_captions,
    write_json,
    write_splits,
)
from tests.test_flintstones import root

FLINTSTONES = root


# ------------------------------------------------------------------------------------------------ FlintstonesSV


@pytest.mark.parametrize("lists", [{"val": VAL, "test": TEST}, {"train": [], "val": VAL, "test": TEST}])
def test_a_copy_without_train_is_enough_to_evaluate(root: Path, lists: dict[str, Any]):
    write_json(root / SPLIT_FILE, lists)
    write_captions(root, {key: text for key, text in plain_captions().items() if key in (*VAL, *TEST)})
    flintstones = FlintstonesSV(root)
    assert flintstones.splits == ("val", "test")
    assert stories(flintstones, "test") == STORIES["test"] and stories(flintstones, "val") == STORIES["val"]
    assert named(flintstones, "no train: this copy can be used to evaluate, but not to train") == [SPLIT_FILE]
    with pytest.raises(ValueError, match=r"split train of flintstones has no story \(val, test have\)"):
        flintstones.records("train")


def test_a_split_file_with_train_and_no_captions_of_it_is_enough_too(root: Path):
    write_captions(root, {key: text for key, text in plain_captions().items() if key in (*VAL, *TEST)})
    flintstones = FlintstonesSV(root)
    assert flintstones.splits == ("val", "test") and stories(flintstones, "test") == STORIES["test"]
    assert named(flintstones, "no story: this copy can be used to evaluate") == ["train"]


def episode(number: int, num_clips: int) -> list[str]:
    return [clip(5, number, 100 * i) for i in range(num_clips)]


def whole(root: Path, num_test: int) -> FlintstonesSV:
    """A copy whose test split has so many stories, of episodes of 100 clips."""
    test = [name for i in range(num_test // 96) for name in episode(i, 100)]
    test += episode(99, num_test % 96 + 4) if num_test % 96 else []
    write_splits(root, test=[*test])
    write_captions(root, {key: "Fred." for key in (*ALL_CLIPS, *test)})
    return FlintstonesSV(root)


def report(story_set: StorySet) -> dict[str, Any]:
    records = {split: story_set.records(split) for split in story_set.splits}
    return report_of(story_set, findings_of(story_set, records, {}, story_set.problems))


def test_official_counts_are_compared_where_the_split_is_the_official_one(root: Path):
    found = report(whole(root, 2309))["splits"]
    assert (found["test"]["official"], found["test"]["difference"]) == (2309, 0)
    assert found["train"]["official"] is found["val"]["difference"] is None, "of a handful of clips"
    assert report(whole(root, 2308))["splits"]["test"]["official"] is None
    whole(root, 2309)
    for options in ({"num_targets": 3}, {"windows": "inside"}, {"legacy_cut": True}):
        assert FlintstonesSV(root, **options).official_count("test") is None


def test_the_stories_that_a_table_of_story_starts_lacks_are_counted_with_the_reason(root: Path):
    """Such tables have the columns id, image and text, and no row for the last four clips of an episode."""
    test = [name for i in range(3) for name in episode(i, 12)]
    write_splits(root, test=test)
    starts = [name for i in range(3) for name in episode(i, 12)[:-4]]
    rows = [{"id": i, "image": f"{name}.png", "text": "Fred waves."} for i, name in enumerate(starts)]
    rows += [{"id": 0, "image": f"{name}.png", "text": "Fred."} for name in ALL_CLIPS if name not in TEST]
    write_json(root / "flintstones_annotations_v1-0.json", rows)
    flintstones = FlintstonesSV(root)
    assert len(flintstones.records("test")) == 3 * 4
    assert named(flintstones, "story starts: 12 stories of test are absent") == ["test"]
    (note,) = flintstones.notes
    assert "captions are those of story starts" in note and "64 of val and 68 of test" in note
    write_captions(root, dict.fromkeys((*ALL_CLIPS, *test), "Fred."))
    assert not FlintstonesSV(root).notes, "a whole copy has nothing to say"


# ------------------------------------------------------------------------------------------------ other sets


def test_a_count_of_other_windows_or_ranges_is_no_official_one() -> None:
    for kind, own, other in (
        (PororoSV, {"num_targets": 4}, {"num_targets": 3}),
        (DiDeMoSV, {"num_targets": 2}, {"num_targets": 1}),
        (ClevrSV, {"ranges": {"train": range(3100, 13100), "test": range(10_000, 13_000)}}, {"ranges": {}}),
    ):
        for options, expected in ((own, kind.official_counts["train"]), (other, None)):
            made = object.__new__(kind)
            vars(made).update(options)
            if kind is not ClevrSV or options is other:
                assert kind.official_count(made, "train") == expected


def test_pororoqas_table_alone_is_named_for_what_it_is(tmp_path: Path):
    with (tmp_path / "descriptions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [[f"Pororo_ENGLISH1_1_ep{i % 2}", scene, "Pororo waves."] for i in range(6) for scene in [i + 1]]
        )
    with pytest.raises(ValueError, match="it is PororoQA's table, the words of 6 scenes in 2 episodes") as caught:
        PororoSV(tmp_path)
    assert "train_seen_unseen_ids.npy" in str(caught.value) and "data/pororo/README.md" in str(caught.value)
    (tmp_path / "Pororo_ENGLISH1_1_ep0").mkdir()
    with pytest.raises(ValueError, match=r"holds no PororoSV \(train_seen_unseen_ids"):
        PororoSV(tmp_path)
