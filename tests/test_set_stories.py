"""A set's stories at one resolution, and the distances of drawn frames."""

from pathlib import Path

import numpy as np
import pytest
import torch

from storydalle.metrics.frame_distances import PictureScores, frame_distances
from storydalle.stories.pictures import ClipError
from storydalle.stories.set_stories import SetStories
from storydalle.stories.story import shown_frame
from tests.toy_set import ToySet, noise, story


@pytest.fixture
def toy(tmp_path: Path) -> ToySet:
    """Two-frame clips a, b, c in strips, and a story with a missing one."""
    for seed, name in enumerate("abc"):
        noise(seed, 12, 24).save(tmp_path / f"{name}.png")
    rows = (((1, 0), (0, 0), (1, 1)),)
    stories = [
        story("one", "a.png b.png c.png", characters=rows[0]),
        story("two", "b.png c.png", characters=rows[0][:2]),
        story("bad", "a.png lost.png", characters=rows[0][:2]),
    ]
    return ToySet(tmp_path, {"train": stories, "test": stories[:1]})


def test_a_story_has_its_clips_captions_and_labels_at_the_resolution(toy: ToySet) -> None:
    found = SetStories(toy, "train", 8)[0]
    assert found.id == "toy/train/one"
    assert found.captions == ["the b.png", "the c.png"] and found.descriptions == ["", "the b.png", "the c.png"]
    assert found.source.shape == (8, 8, 3) and found.frames.shape == (2, 8, 8, 3)
    assert found.labels["characters"].tolist() == [[0, 0], [1, 1]] and found.labels["source_characters"].tolist() == [
        1,
        0,
    ]


def test_evaluation_sees_one_frame_of_a_clip_wherever_it_stands(toy: ToySet) -> None:
    stories = SetStories(toy, "train", 8)
    shot = stories.outline(0).shots[1]
    assert (stories[0].frames[0] == stories.read("b.png")[shown_frame(shot, 2)]).all()
    assert (stories[0].frames[0] == stories[1].source).all()


def test_a_clip_that_cannot_be_read_is_told_and_passed_over_where_any_story_will_do(toy: ToySet) -> None:
    stories = SetStories(toy, "train", 8)
    with pytest.raises(ClipError, match="missing"):
        stories[2]
    assert [found.id for found in stories.readable(9)] == ["toy/train/one", "toy/train/two"]
    assert len(stories.readable(1)) == 1


def test_a_list_of_ids_chooses_the_stories(toy: ToySet, tmp_path: Path) -> None:
    (tmp_path / "ids-train.txt").write_text("two\none\n")
    assert [record.id for record in SetStories(toy, "train", 8, ids_folder=tmp_path).records] == ["one", "two"]
    (tmp_path / "ids-train.txt").write_text("one\nnobody\n")
    with pytest.raises(ValueError, match="names 'nobody'"):
        SetStories(toy, "train", 8, ids_folder=tmp_path)
    with pytest.raises(ValueError, match=r"ids-test.txt is missing"):
        SetStories(toy, "test", 8, ids_folder=tmp_path)


def test_some_stories_are_spread_over_the_split_and_another_split_is_refused(toy: ToySet) -> None:
    assert [record.id for record in SetStories(toy, "train", 8, num_stories=2).records] == ["one", "two"]
    assert [record.id for record in SetStories(toy, "train", 8, num_stories=1).records] == ["one"]
    with pytest.raises(ValueError, match="no split 'val': choose one of train, test"):
        SetStories(toy, "val", 8)
    with pytest.raises(ValueError, match="num_stories=0"):
        SetStories(toy, "train", 8, num_stories=0)


def test_the_fingerprint_is_of_what_the_stories_tell(toy: ToySet) -> None:
    one = SetStories(toy, "train", 8).fingerprint()
    assert one == SetStories(toy, "train", 8).fingerprint()
    assert one != SetStories(toy, "train", 8, num_stories=2).fingerprint()
    assert one != SetStories(toy, "train", 16).fingerprint()


def test_a_stamp_changes_with_the_file(toy: ToySet) -> None:
    stories = SetStories(toy, "train", 8)
    before = stories.stamp("a.png")
    assert stories.stamp("lost.png") == "missing"
    noise(9, 12, 24).save(toy.root / "a.png")
    assert stories.stamp("a.png") != before


def test_distances_of_frames_are_those_counted_by_hand() -> None:
    source, true = torch.full((1, 3, 4, 4), -1.0), torch.full((1, 2, 3, 4, 4), 1.0)
    frames = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), -0.5)])[None]
    found = frame_distances(frames, true, source)
    assert found.error.tolist() == [[0.25, 0.75]]
    assert found.change.tolist() == [[0.75, 0.25]]
    assert found.copied.tolist() == [[0, 1]]


def test_scores_are_means_over_the_frames_that_exist() -> None:
    torch.manual_seed(0)
    frames, true, source = torch.rand(3, 4, 3, 2, 2), torch.rand(3, 4, 3, 2, 2), torch.rand(3, 3, 2, 2)
    mask = torch.arange(4) < torch.tensor([1, 4, 2])[:, None]
    scores, parts = PictureScores(), PictureScores()
    scores.update(frames, true, source, mask)
    for i in (2, 0, 1):
        parts.update(*(each[i : i + 1] for each in (frames, true, source, mask)))
    found = scores.compute()
    assert found["error"] == pytest.approx(frame_distances(frames, true, source).error[mask].mean().item(), abs=1e-6)
    assert parts.compute() == pytest.approx(found)
    assert scores.counts() == {"stories": 3, "frames": 7}
    for name, (low, high) in scores.compute_intervals(200).items():
        assert low - 1e-9 <= found[name] <= high + 1e-9
    with pytest.raises(ValueError, match="no story has been scored"):
        PictureScores().compute()
    assert np.isfinite(list(found.values())).all()
