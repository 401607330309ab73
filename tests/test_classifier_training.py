"""Training of a character classifier, and the command for it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from storydalle.commands import main
from storydalle.metrics.networks.character_classifier import (
    CharacterClassifier,
)
from storydalle.metrics.networks.inception import ClassLogits
from storydalle.stories.labelled_frames import LabelledFrames, LabelledPictures
from storydalle.stories.set_stories import SetStories
from storydalle.stories.toon import CHARACTERS
from storydalle.training.classifier_training import CharacterClassifierTraining, presence_loss
from tests.test_character_classifier import SIDE, Fixed, State, easy_data, easy_set, small
from tests.test_inception import images
from tests.tiny import trainer


def test_the_loss_of_four_logits_is_the_mean_counted_by_hand() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [-np.log(3.0), 0.0]], dtype=torch.float)
    nats = [np.log(2), np.log(4), np.log(4), np.log(2)]  # of the labels 1 0 / 1 0
    assert presence_loss(logits, torch.tensor([[1, 0], [1, 0]])).item() == pytest.approx(np.mean(nats))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Parameter(torch.tensor([0.0, 2.0]))

    def forward(self, pictures: Tensor) -> ClassLogits:
        main, auxiliary = (head.expand(len(pictures), 1) for head in self.heads)
        return ClassLogits(main, auxiliary)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_auxiliary_head_counts_two_fifths() -> None:
    system = CharacterClassifierTraining(TwoHeads())
    loss = system.training_step(LabelledPictures(images(1, 8), torch.tensor([[1]])), 0)
    assert loss.item() == pytest.approx(np.log(2) + 0.4 * np.log1p(np.exp(-2.0)))


class Snapshots(pl.Callback):
    """The scores of each validation, and the weights that it measured."""

    def __init__(self) -> None:
        self.accuracies: list[float] = []
        self.weights: list[State] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.accuracies.append(trainer.callback_metrics["val/frame_accuracy"].item())
        self.weights.append({name: value.clone() for name, value in pl_module.classifier.state_dict().items()})


class Ruin(pl.Callback):
    """From the given step on all weights are 0 after each step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step >= self.step:
            for parameter in pl_module.classifier.parameters():
                parameter.data.zero_()


def fit(root: Path, steps: int, learning_rate: float = 1e-2, ruin: int = 99, resume: bool = False, **more: Any) -> Any:
    """A trained classifier's system, and what its validations saw."""
    snapshots = Snapshots()
    saving = ModelCheckpoint(root, save_last=True, every_n_train_steps=1, save_top_k=0)
    system = CharacterClassifierTraining(small(), learning_rate=learning_rate, max_steps=steps)
    options = {"limit_val_batches": 1.0, "val_check_interval": 1, **more}
    fitting = trainer(root, steps, [Ruin(ruin), snapshots, saving], **options)
    data = easy_data(root / "data", frames_per_story=3)
    fitting.fit(system, data, ckpt_path=root / "last.ckpt" if resume else None, weights_only=True)
    return system, snapshots


def equal(one: State, other: State) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_weights_that_read_most_frames_exactly_are_kept(tmp_path: Path) -> None:
    system, seen = fit(tmp_path, 16, learning_rate=0.03, ruin=16)
    best = int(np.argmax(seen.accuracies))
    assert seen.accuracies[0] < seen.accuracies[best] > seen.accuracies[-1]
    assert system.best_accuracy == pytest.approx(seen.accuracies[best])
    assert equal(system.classifier.state_dict(), seen.weights[best])
    assert not equal(system.classifier.state_dict(), seen.weights[-1])


def test_logged_frame_accuracy_f1_and_loss_are_those_counted_by_hand(tmp_path: Path) -> None:
    class Remembered(CharacterClassifierTraining):
        def log_dict(self, dictionary: Any, **_: Any) -> None:
            self.logged = dictionary

    always_ada = CharacterClassifier(Fixed([1.0, -1.0]), ("Ada", "Bo"), SIDE)
    system = Remembered(always_ada)
    true = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0], [0, 1]])
    system.validation_step(LabelledPictures(images(2, SIDE), true[:2]), 0)
    system.validation_step(LabelledPictures(images(3, SIDE), true[2:]), 1)
    system.trainer = pl.Trainer(logger=False, enable_checkpointing=False)
    system.on_validation_epoch_end()
    assert system.logged["val/frame_accuracy"] == pytest.approx(2 / 5)
    assert system.logged["val/character_micro_f1"] == pytest.approx(2 * 3 / (5 + 5))
    nats = presence_loss(torch.tensor([[1.0, -1.0]] * 5), true).item()
    assert system.logged["val/loss"] == pytest.approx(nats)  # batches of unequal size weigh by their frames


def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """The best weights, made before the cut, are in the checkpoint."""
    whole, _ = fit(tmp_path / "whole", 26, ruin=24)  # by then it reads far more than one without weights
    fit(tmp_path / "cut", 24, ruin=24)
    resumed, seen = fit(tmp_path / "cut", 26, ruin=24, resume=True)
    assert resumed.best_accuracy == whole.best_accuracy > max(seen.accuracies)
    assert equal(resumed.classifier.state_dict(), whole.classifier.state_dict())


def test_without_a_validation_the_last_weights_stay(tmp_path: Path) -> None:
    system, seen = fit(tmp_path, 3, limit_val_batches=0, val_check_interval=None)
    assert not seen.accuracies and not equal(system.classifier.state_dict(), small().state_dict())


def test_a_classifier_learns_who_is_in_easy_frames(tmp_path: Path) -> None:
    held_out = SetStories(easy_set(tmp_path / "held-out", seed=1), "train", SIDE)
    batch = LabelledFrames(held_out, held_out, batch_size=1).validation_set().read(list(range(12)), None)

    def accuracy(classifier: CharacterClassifier) -> float:
        return (classifier.eval().read(batch.images) == batch.characters).all(-1).float().mean().item()

    system, _ = fit(tmp_path, 60, val_check_interval=20)
    assert accuracy(small()) < 0.5
    assert accuracy(system.classifier) > 0.9


def test_every_parameter_of_a_classifier_moves_in_three_steps(tmp_path: Path) -> None:
    before = dict(small().named_parameters())
    system, _ = fit(tmp_path, 3, limit_val_batches=0, val_check_interval=None)
    assert {name for name, value in system.classifier.named_parameters() if torch.equal(value, before[name])} == set()


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    return lambda *arguments: main.main(["train", "trainer=smoke", "name=here", *arguments])


def test_data_without_characters_is_refused_in_one_line_before_training(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (tmp_path / "mine" / str(number)).mkdir(parents=True)
        for page in range(3):
            Image.new("RGB", (16, 16), (number, page, 0)).save(tmp_path / "mine" / str(number) / f"{page}.png")
        (tmp_path / "mine" / str(number) / "captions.txt").write_text("one\ntwo\nthree\n")
    assert train("experiment=toon/character_classifier", "data=folder", "data.root=mine") == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "does not say which characters are in its frames" in told
    assert not list(tmp_path.glob("runs/**/*.safetensors"))


def test_the_command_trains_a_classifier_that_opens(train: Callable[..., int], tmp_path: Path) -> None:
    status = train("experiment=toon/character_classifier", "data.val.num_stories=3", "data_module.batch_size=2")
    assert status == 0
    classifier = CharacterClassifier.from_pretrained(tmp_path / "runs/toon/character_classifier/here/model")
    assert classifier.names == CHARACTERS and classifier.read(images(1, 64)).shape == (1, len(CHARACTERS))
    values = json.loads((tmp_path / "runs/toon/character_classifier/here/metrics.json").read_text())["values"]
    assert values["val/best_frame_accuracy"] == values["val/frame_accuracy"]
