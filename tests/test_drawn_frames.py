"""A step may draw some frames of each story: those that it draws are as when all are drawn."""

from typing import Any

import pytest
import torch

from storydalle.training.memory import training_memory
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.tiny import tiny_batch, tiny_story_dalle


def quiet(system: StoryDALLETraining) -> StoryDALLETraining:
    system.log = system.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    return system


def nats_of(system: StoryDALLETraining, batch: Any, frames: slice) -> float:
    """The loss of these frames alone, where all of them are drawn."""
    none = torch.zeros_like(batch.mask)
    none[:, frames] = True
    story = system.model.encode_story(batch.tokens, batch.mask)
    logits = system.model(batch.tokens, batch.codes, batch.source[:, None], batch.mask, story)
    return system.losses(logits, batch._replace(mask=batch.mask & none)).total(system.text_weight).item()


@pytest.mark.parametrize("memory", ["none", "last", "all"])
def test_a_window_of_frames_has_the_loss_that_it_has_among_all(memory: str) -> None:
    story_dalle = tiny_story_dalle(memory=memory)
    torch.manual_seed(0)
    for parameter in story_dalle.model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    batch = tiny_batch(story_dalle, [0, 1, 2])
    num_frames = batch.mask.shape[1]
    starts = set()
    for seed in range(8):
        system = quiet(StoryDALLETraining(story_dalle, drawn_frames=2, bag_weight=0.0, seed=seed))
        frames = system.frames_to_draw(num_frames)
        starts.add(frames.start)
        assert frames.stop - frames.start == 2 and frames.stop <= num_frames
        assert system.training_step(batch, 0).item() == pytest.approx(nats_of(system, batch, frames), rel=1e-4)
    assert starts == set(range(num_frames - 1))


def test_the_frames_depend_on_seed_and_step_and_none_are_left_out_by_default() -> None:
    system = StoryDALLETraining(tiny_story_dalle(), drawn_frames=1)
    assert {system.frames_to_draw(6, 0).start for _ in range(5)} == {system.frames_to_draw(6, 0).start}
    assert StoryDALLETraining(tiny_story_dalle(), drawn_frames=9).frames_to_draw(6) == slice(0, 6)
    assert StoryDALLETraining(tiny_story_dalle()).frames_to_draw(6) == slice(0, 6)
    with pytest.raises(ValueError, match="drawn_frames=0: use a whole number, 1 or more"):
        StoryDALLETraining(tiny_story_dalle(), drawn_frames=0)


def test_fewer_frames_need_less_memory() -> None:
    needed = [
        training_memory(StoryDALLETraining(tiny_story_dalle(), drawn_frames=number), 4, 8, "32-true", on_cpu=True).total
        for number in (None, 8, 4, 1)
    ]
    assert needed[0] == needed[1] > needed[2] > needed[3]


def test_a_curriculum_reads_the_beginnings_of_stories_first() -> None:
    system = StoryDALLETraining(tiny_story_dalle(), max_steps=100, curriculum=[[1, 0.25], [2, 0.5]])
    lessons = [at_step(system, step).lesson() for step in (0, 24, 25, 74, 75, 99)]
    assert lessons == [1, 1, 2, 2, None, None]
    assert StoryDALLETraining(tiny_story_dalle()).lesson() is None


def at_step(system: StoryDALLETraining, step: int) -> StoryDALLETraining:
    class Step(StoryDALLETraining):
        global_step = step

    system.__class__ = Step
    return system


def test_a_lesson_has_the_loss_of_the_shorter_stories() -> None:
    story_dalle = tiny_story_dalle()
    batch = tiny_batch(story_dalle, [0, 1, 2])
    first = batch.of_frames(slice(1))
    assert first.codes.shape[1] == first.mask.shape[1] == first.labels["mood"].shape[1] == 1
    assert first.descriptions.shape[1] == 2 and torch.equal(first.source, batch.source)
    short = quiet(StoryDALLETraining(story_dalle, curriculum=[[1, 1.0]]))
    whole = quiet(StoryDALLETraining(story_dalle))
    short.bag_head = whole.bag_head
    torch.testing.assert_close(short.training_step(batch, 0), whole.training_step(first, 0))


@pytest.mark.parametrize("curriculum", [[[0, 0.5]], [[1, 0.0]], [[1, 0.6], [2, 0.6]]])
def test_a_curriculum_of_no_frames_or_too_many_steps_is_refused(curriculum: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"curriculum=.*shares of at most 1 in all"):
        StoryDALLETraining(tiny_story_dalle(), curriculum=curriculum)
