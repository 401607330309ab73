"""A training stops at a loss, a gradient or a weight that is not finite, in every system, and keeps what was good."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from storydalle.metrics.networks.clip import TinyCLIP
from storydalle.mistakes import Failure
from storydalle.stories.data import Frames
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.captioned_frames import CaptionedStories
from storydalle.training.callbacks import Checkpoints, LastRow, RunningMean
from storydalle.training.classifier_training import CharacterClassifierTraining
from storydalle.training.clip_training import ClipTraining
from storydalle.training.finite import FiniteSteps
from storydalle.training.runs import LAST
from storydalle.training.state import load_state
from storydalle.training.story_dalle_training import StoryDALLETraining
from storydalle.training.story_gan_training import StoryGANTraining
from storydalle.training.text_to_image_training import TextToImageTraining
from storydalle.training.tokenizer_training import ImageTokenizerTraining
from tests.test_character_classifier import easy_data, small
from tests.tiny import CAPTIONS, TinyData, TinyStories, tiny_story_dalle, trainer
from tests.tiny_gan import shape_data, tiny_story_gan

Made = tuple[pl.LightningModule, pl.LightningDataModule]


def story_dalle(folder: Path, **options: Any) -> Made:
    made = tiny_story_dalle()
    return StoryDALLETraining(made, max_steps=4, warmup_steps=1, **options), TinyData(made)


def text_to_image(folder: Path, **options: Any) -> Made:
    made = tiny_story_dalle(source_blocks="none", story_depth=0)
    return TextToImageTraining(made, max_steps=4, warmup_steps=1, **options), TinyData(made)


def tokenizer(folder: Path, **options: Any) -> Made:
    data = Frames(TinyStories(12), TinyStories(2, seed=1), batch_size=4)
    return ImageTokenizerTraining(tiny_story_dalle().image_tokenizer, max_steps=4, warmup_steps=1, **options), data


def adversarial_tokenizer(folder: Path, **options: Any) -> Made:
    return tokenizer(folder, discriminator=nn.Sequential(nn.Conv2d(3, 4, 4, stride=2), nn.Conv2d(4, 1, 1)), **options)


def image_decoder(folder: Path, **options: Any) -> Made:
    return tokenizer(folder, decoder_only=True, **options)


def storyganc(folder: Path, **options: Any) -> Made:
    return StoryGANTraining(tiny_story_gan(), max_steps=4, **options), shape_data()


def clip(folder: Path, **options: Any) -> Made:
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=60, text_length=16)
    sizes = {"dims": (4, 4), "text_dim": 8, "text_depth": 1, "text_heads": 2, "embedding_dim": 8}
    network, stories = TinyCLIP(captions, 16, **sizes), TinyStories(resolution=16)
    data = CaptionedStories(stories, stories, captions, batch_size=2)
    return ClipTraining(network, max_steps=4, warmup_steps=1, **options), data


def classifier(folder: Path, **options: Any) -> Made:
    return CharacterClassifierTraining(small(), max_steps=4, **options), easy_data(folder / "data")


# What makes a system with its data, and how many optimizers it has.
SYSTEMS: dict[str, tuple[Callable[..., Made], int]] = {
    "story_dalle": (story_dalle, 1),
    "text_to_image": (text_to_image, 1),
    "image_tokenizer": (tokenizer, 1),
    "adversarial_tokenizer": (adversarial_tokenizer, 2),
    "image_decoder": (image_decoder, 1),
    "storyganc": (storyganc, 3),
    "clip": (clip, 1),
    "character_classifier": (classifier, 1),
}
OPTIMIZERS = [(name, number) for name, (_, count) in SYSTEMS.items() for number in range(count)]


def fit(folder: Path, made: Made, *more: pl.Callback, steps: int = 4) -> None:
    saving = Checkpoints(folder, every=1)
    trainer(folder, steps, [*more, saving, FiniteSteps(saving.kept), LastRow(1)]).fit(*made)


class Spoiled(pl.Callback):
    """From a step on, nan in the gradient (or after the step in the weight) of an optimizer's last parameter."""

    def __init__(self, step: int, number: int, what: str = "gradient") -> None:
        self.step, self.number, self.what = step, number, what

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.parameter = trainer.optimizers[self.number].param_groups[-1]["params"][-1]
        self.name = next(name for name, each in pl_module.named_parameters() if each is self.parameter)

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            is_time = self.what == "gradient" and trainer.fit_loop.total_batch_idx + 1 >= self.step
            return gradient * math.nan if is_time else gradient

        self.parameter.register_hook(spoil)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.what == "weight" and trainer.global_step >= self.step:
            self.parameter.data.view(-1)[0] = math.inf


def assert_finite(folder: Path, step: int) -> None:
    """The last checkpoint is of a step, and no tensor of it, of weights, means or optimizers, is not finite."""
    state = load_state(folder / LAST)
    assert state["global_step"] == step
    kept = [state.get(name) for name in ("state_dict", "current_model_state", "optimizer_states")]
    tensors = [value for value in leaves(kept) if isinstance(value, torch.Tensor) and value.is_floating_point()]
    assert len(tensors) > 5 and all(value.isfinite().all() for value in tensors)


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict | list | tuple):
        entries = tree.values() if isinstance(tree, dict) else tree
        return [leaf for entry in entries for leaf in leaves(entry)]
    return [tree]


@pytest.mark.parametrize(("name", "number"), OPTIMIZERS)
def test_a_gradient_that_is_not_finite_reaches_no_weight(name: str, number: int, tmp_path: Path) -> None:
    made, spoiled = SYSTEMS[name][0](tmp_path), Spoiled(2, number)
    with pytest.raises(Failure, match=r"step 2.*checkpoint of step 1 is kept.*last.safetensors.*learning rate") as told:
        fit(tmp_path, made, spoiled)
    clipped_first = name == "adversarial_tokenizer" and number == 0  # by hand: nan is in all of them then
    assert f"the gradient of {'' if clipped_first else spoiled.name}" in str(told.value)
    assert_finite(tmp_path, 1)
    others = [each for each in made[0].parameters() if each.isfinite().all()]
    assert len(others) == len(list(made[0].parameters())), "the weights in memory are those of the step before"


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_weight_that_is_not_finite_is_in_no_checkpoint(name: str, tmp_path: Path) -> None:
    spoiled = Spoiled(2, 0, "weight")
    with pytest.raises(Failure, match=r"step 2: 1 tensors of the weights.*checkpoint of step 1 is kept"):
        fit(tmp_path, SYSTEMS[name][0](tmp_path), spoiled)
    assert_finite(tmp_path, 1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_learning_rate_out_of_all_bounds_ends_the_training(name: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"step [234]: .* (is (nan|inf)|not finite).*here [\d.]+e\+3\d"):
        fit(tmp_path, SYSTEMS[name][0](tmp_path, learning_rate=1e36), RunningMean(0.9), steps=5)
    assert_finite(tmp_path, load_state(tmp_path / LAST)["global_step"])


def test_the_loss_is_named_as_it_is_logged(tmp_path: Path) -> None:
    system, data = text_to_image(tmp_path)
    with torch.no_grad():
        system.story_dalle.model.backbone.code_table.fill_(math.nan)
    with pytest.raises(Failure, match=r"step 1: train/loss_image is nan.*no checkpoint had been written"):
        fit(tmp_path, (system, data))


def test_a_loss_that_is_infinite_behind_finite_gradients_is_found(tmp_path: Path) -> None:
    """A sum beyond single precision: every gradient of it is a plain number."""
    system, data = text_to_image(tmp_path)
    plain = system.training_step
    system.training_step = lambda batch, batch_idx: plain(batch, batch_idx) + torch.tensor(math.inf)
    with pytest.raises(Failure, match="step 1: the loss is inf; no checkpoint"):
        fit(tmp_path, (system, data))


def test_a_batch_that_spoils_an_accumulated_step_is_found(tmp_path: Path) -> None:
    system, data = text_to_image(tmp_path)
    plain = system.training_step
    system.training_step = lambda batch, batch_idx: plain(batch, batch_idx) + (math.inf if batch_idx == 3 else 0.0)
    saving = Checkpoints(tmp_path, every=1)
    with pytest.raises(Failure, match=r"step 2: the loss is inf.*checkpoint of step 1"):
        trainer(tmp_path, 3, [saving, FiniteSteps(saving.kept)], accumulate_grad_batches=3).fit(system, data)


def test_a_number_that_is_not_finite_in_any_process_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decision is reduced over the processes, and raised where it came from another one."""
    asked: list[tuple[bool, bool]] = []

    def reduced(decision: bool, all: bool) -> bool:
        asked.append((decision, all))
        return True

    fitting = trainer(tmp_path, 1)
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    monkeypatch.setattr(fitting.strategy, "reduce_boolean_decision", reduced)
    fitting.strategy.connect(text_to_image(tmp_path)[0])
    network = nn.Linear(1, 1)
    with pytest.raises(Failure, match="a loss or gradient of another process"):
        FiniteSteps(Checkpoints(tmp_path, every=1).kept).check(fitting, torch.optim.SGD(network.parameters()))
    assert asked == [(False, False)]
