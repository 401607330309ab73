"""Layout clip_id: pictures named by the clip that they show, in one folder or one a story; ids that nobody knows."""

from pathlib import Path

import numpy as np
import pytest

from storydalle.evaluation.drawn import DrawnFrames, find_layout
from storydalle.stories.pictures import ClipError
from storydalle.stories.set_stories import SetStories
from tests.drawn_frames import SIDE, draw_own, pixels, save
from tests.toy_set import ToySet, story

CLIPS = [f"s_01_e_01_shot_{i:06}_{i + 74:06}" for i in range(5)]
FIRST, SECOND, THIRD = (f"toy/test/{clip}" for clip in CLIPS[:3])


def stories(tmp_path: Path, clips: list[str] = CLIPS) -> SetStories:
    """Windows of 1 + 2 that overlap: three stories of five clips, each named by its source."""
    records = [story(clips[i], " ".join(clips[i : i + 3])) for i in range(3)]
    return SetStories(ToySet(tmp_path, {"test": records}), "test", SIDE)


def drawn(folder: Path, tmp_path: Path, clips: list[str] = CLIPS, **options: str) -> DrawnFrames:
    return DrawnFrames.of(folder, stories(tmp_path, clips), **options)


@pytest.mark.parametrize("below", ["", "gen_img/"])
@pytest.mark.parametrize("clips", [CLIPS, [f"Pororo_ENGLISH1_1_ep1/{i}" for i in range(8, 13)]])
def test_in_one_folder_a_picture_is_its_clips_in_every_story_as_contextualstory_writes_them(
    below: str, clips: list[str], tmp_path: Path
):
    for i, clip in enumerate(clips):
        save(tmp_path / "drawn" / f"{below}{clip}.png", pixels(frame=i))
    found = drawn(tmp_path / "drawn", tmp_path, clips)
    assert found.layout == "clip_id"
    for first, name in enumerate(stories(tmp_path, clips).ids()):
        np.testing.assert_array_equal(found.read(name), [pixels(frame=first + 1), pixels(frame=first + 2)])
    survey = found.survey()
    assert len(survey.check()) == 3 and not survey.problems
    assert [note for note in survey.notes if "stand for their clip in each of the several stories" in note]


def test_below_a_storys_first_clip_a_picture_is_that_storys_as_storygpt_v_writes_them(tmp_path: Path):
    for first in range(3):
        for frame in range(3):
            save(tmp_path / "drawn" / CLIPS[first] / f"{CLIPS[first + frame]}.png", pixels(CLIPS[first], frame))
    found = drawn(tmp_path / "drawn", tmp_path)
    assert found.layout == "clip_id" and not found.notes
    for clip, name in zip(CLIPS, (FIRST, SECOND, THIRD), strict=False):
        np.testing.assert_array_equal(found.read(name), [pixels(clip, 1), pixels(clip, 2)])
    assert not found.survey().problems, "the drawn source is left aside"


def test_a_missing_clip_and_one_that_nobody_knows_are_named(tmp_path: Path):
    for clip in (*CLIPS[:4], "s_09_e_09_shot_000000_000074"):
        save(tmp_path / "drawn" / f"{clip}.png", pixels(clip))
    survey = drawn(tmp_path / "drawn", tmp_path).survey()
    assert {problem.where for problem in survey.problems} == {
        "s_09_e_09_shot_000000_000074.png",
        f"{THIRD} frame 2",
    }
    assert survey.check(allow_partial=True) == [FIRST, SECOND]


def test_frames_of_our_own_are_not_taken_for_clips_nor_stories_without_clips_for_any(tmp_path: Path):
    assert drawn(draw_own(tmp_path / "own"), tmp_path, layout=None).layout == "frames"
    with pytest.raises(ValueError, match="layout=clip_id: the frames of these stories have no ids of clips"):
        DrawnFrames(tmp_path / "own", {"a": 1}, SIDE, "clip_id")
    assert find_layout(Path(), ["0000.png"]) == "arldm"
    assert find_layout(Path(), ["0000.png"], {"a": ["7", "0000"]}) == "clip_id", "as VIST's photos are called"


def test_ids_that_nobody_knows_are_answered_with_three_that_there_are(tmp_path: Path):
    for i in range(2):
        save(tmp_path / "drawn" / "toy" / "test" / "elsewhere" / f"{i + 1}.png", pixels(frame=i))
    with pytest.raises(ValueError, match="no story: 'toy/test/elsewhere' is none of this split") as caught:
        drawn(tmp_path / "drawn", tmp_path).survey().check()
    assert str(caught.value).count(f", whose stories are called {FIRST}, {SECOND}, {THIRD}") == 1
    (tmp_path / "files.csv").write_text("story,frame,file\nnobody,1,drawn/toy/test/elsewhere/1.png\n")
    with pytest.raises(ValueError, match=f"called {FIRST}, {SECOND}, {THIRD}"):
        drawn(tmp_path / "files.csv", tmp_path).survey().check()


def test_an_unreadable_picture_is_named_by_its_clip(tmp_path: Path):
    for clip in CLIPS:
        save(tmp_path / "drawn" / f"{clip}.png", pixels(clip))
    (tmp_path / "drawn" / f"{CLIPS[4]}.png").write_bytes(b"no picture")
    survey = drawn(tmp_path / "drawn", tmp_path).survey()
    assert [problem.where for problem in survey.problems] == [f"{CLIPS[4]}.png"]
    with pytest.raises((ValueError, ClipError), match=f"{THIRD} is not whole"):
        drawn(tmp_path / "drawn", tmp_path).read(THIRD)
