"""Losses and probes hear nothing of padding, and nothing of who is in a batch with whom."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from storydalle.evaluation.loss_probes import measure_probes
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.stories.data import BatchDataset, StepData
from storydalle.tokens.encoded_stories import EncodedStories, encode_batch
from storydalle.tokens.encoding import FrameEncoder
from storydalle.training.optimisation import text_loss
from storydalle.training.probes import OtherStories, fitted, frame_nats, probe_paths
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.tiny import TinyStories, tiny_story_dalle, trainer

MOODS = ({"mood": ("mood", 1)}, {"other": ("mood", 1)})


@pytest.fixture(scope="module")
def model() -> StoryDALLE:
    """With weights so large that another source and other captions move the loss by nats."""
    made, draws = tiny_story_dalle(), torch.Generator().manual_seed(0)
    for parameter in made.model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3, generator=draws)
    return made


def encoded(model: StoryDALLE, stories: TinyStories) -> EncodedStories:
    return encode_batch(list(stories), FrameEncoder(model.image_tokenizer), model.caption_tokenizer)


@pytest.mark.parametrize("lengths", [(3,), (3, 1, 2)])
def test_probes_do_not_depend_on_the_batch_size(model: StoryDALLE, lengths: tuple[int, ...]) -> None:
    stories = TinyStories(7, lengths=lengths)
    whole = measure_probes(model, stories, *MOODS, batch_size=7)
    assert {"nats", "probe_source", "probe_captions", "probe_captions_mood", "probe_source_other"} <= whole.keys()
    assert abs(whole["probe_source"]) > 0.1 and abs(whole["probe_captions"]) > 0.1
    for size in (1, 2, 3, 6):
        assert measure_probes(model, stories, *MOODS, batch_size=size) == pytest.approx(whole, abs=2e-3)


def test_the_other_story_is_the_one_before_and_of_the_first_the_last(model: StoryDALLE) -> None:
    stories = TinyStories(4)
    batch = encoded(model, stories)
    story = model.model.encode_story(batch.tokens, batch.mask)
    nats = frame_nats(model.model, batch, batch.source[:, None], story)
    rise = frame_nats(model.model, batch, batch.source.roll(1, 0)[:, None], story) - nats
    captions = frame_nats(model.model, batch, batch.source[:, None], story.roll(1, 0)) - nats
    found = measure_probes(model, stories, {}, {}, batch_size=3)
    assert found["probe_source"] == pytest.approx(rise.mean().item(), abs=2e-3)
    assert found["probe_captions"] == pytest.approx(captions.mean().item(), abs=2e-3)


def test_frames_that_the_other_story_lacks_do_not_count(model: StoryDALLE) -> None:
    batch = encoded(model, TinyStories(3, lengths=(3, 1, 2)))
    found = probe_paths(model.model, batch, {}, {}, OtherStories.before(batch, OtherStories.last_of(batch)))
    assert found["nats"].num_frames == found["probe_source"].num_frames == 6
    assert found["probe_captions"].num_frames == min(3, 2) + min(1, 3) + min(2, 1)
    found = probe_paths(model.model, batch, {}, {}, OtherStories.before(batch, None))
    assert found["probe_source"].num_frames == 3 and found["probe_captions"].num_frames == 2, "but for the first story"
    assert set(probe_paths(model.model, batch, {}, {})) == {"nats"}


def test_frames_are_cut_or_filled_up() -> None:
    x = torch.ones(2, 3, 4)
    assert torch.equal(fitted(x, 2), x[:, :2]) and torch.equal(fitted(x, 3), x)
    assert fitted(x, 5).sum() == 24 and fitted(x, 5).shape == (2, 5, 4)
    assert not fitted(torch.ones(1, 1, dtype=torch.bool), 2)[0, 1]


class Validation(StepData):
    def __init__(self, model: StoryDALLE, stories: TinyStories, batch_size: int) -> None:
        super().__init__(batch_size)
        self.model, self.stories = model, stories

    def validation_set(self) -> BatchDataset:
        def read(indices: list[int], _: int | None) -> EncodedStories:
            picked = [self.stories[i] for i in indices]
            return encode_batch(picked, FrameEncoder(self.model.image_tokenizer), self.model.caption_tokenizer)

        return BatchDataset(read, np.ones(len(self.stories)))


def test_what_validation_logs_of_a_model_does_not_depend_on_the_batch_size(model: StoryDALLE, tmp_path: Path) -> None:
    stories = TinyStories(7, lengths=(3, 1, 2))
    system = StoryDALLETraining(model, probes=MOODS[0], source_probes=MOODS[1])
    run = trainer(tmp_path, 1, limit_val_batches=1.0)
    found = [run.validate(system, Validation(model, stories, size), verbose=False)[0] for size in (7, 3, 1, 7)]
    assert "val/probe_source" in found[0] and "val/probe_captions" in found[0]
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=2e-3)


def test_an_empty_caption_is_read_alike_whatever_is_beside_it(model: StoryDALLE) -> None:
    def vectors(*stories: list[str]) -> Tensor:
        tokens = torch.stack([model.caption_tokenizer.encode(story).tokens for story in stories])
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return model.model.encode_story(tokens, mask)

    alone = vectors(["", "Pip waves."])
    beside = vectors(["", "Pip waves."], ["Momo puts on a red hat and runs.", "She jumps at the beach."])
    torch.testing.assert_close(beside[:1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pad_id", ["the tokenizer's", None])
def test_losses_hear_nothing_of_frames_that_do_not_exist(pad_id: str | None) -> None:
    """A released backbone has no pad: the words of frames behind a shorter story's end counted as words."""
    made = tiny_story_dalle()
    if pad_id is None:
        made.model.backbone.pad_id = None
    system = StoryDALLETraining(made, text_weight=1.0)
    batch = encoded(made, TinyStories(3, lengths=(3, 1, 2)))
    other = torch.where(batch.mask[..., None], batch.tokens, 1 + torch.arange(batch.tokens.shape[-1]) % 50)
    logits = made.model(batch.tokens, batch.codes, batch.source[:, None], batch.mask)
    own = system.losses(logits, batch)
    assert logits.text_targets is not None and logits.text is not None
    moved = made.model(other, batch.codes, batch.source[:, None], batch.mask)
    changed = system.losses(moved, batch._replace(tokens=other))
    assert changed.text.item() == pytest.approx(own.text.item(), abs=1e-5)
    assert changed.image.item() == pytest.approx(own.image.item(), abs=1e-5)
    kept = batch.mask.flatten()
    by_hand = text_loss(logits.text[kept], logits.text_targets[kept], made.model.backbone.pad_id)
    assert own.text.item() == pytest.approx(by_hand.item(), abs=1e-5)
