"""Trainings through the command, in this process: a tokenizer of a few weights, on four stories, in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from storydalle.commands import main
from storydalle.settings import filled
from storydalle.training.train_settings import TrainSettings

EXPERIMENT = "toon/image_tokenizer"
TINY = (
    *("data.resolution=64", "data.train.num_stories=4", "data.val.num_stories=2", "data_module.batch_size=2"),
    *("trainer=smoke", "tokenizer=tiny", "save_every=1"),
)


def train_settings(**changed: Any) -> TrainSettings:
    """The least that a training is told, with changes; ``trainer__max_steps`` is a setting of the trainer's."""
    tree: dict[str, Any] = {
        **{"seed": 0, "runs": "runs", "name": None, "resume": False, "save_every": 1, "ema_decay": None},
        **{"pretrained": None, "memory_limit_gb": None, "sampling": None, "network": {}, "system": {}},
        **{"logger": {}, "callbacks": {}},
        **{"data": {"num_targets": 4}, "data_module": {"batch_size": 2}, "trainer": {"max_steps": 4}},
    }
    for name, value in changed.items():
        group, _, key = name.rpartition("__")
        (tree[group] if group else tree)[key] = value
    return filled(TrainSettings, tree)


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Trainer:
    """``storydalle train`` in an empty folder, without Weights & Biases; the experiment's runs are in ``runs``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.runs = Path("runs") / EXPERIMENT

    def __call__(self, *overrides: str, experiment: str = EXPERIMENT, tiny: tuple[str, ...] = TINY) -> Ended:
        self.capsys.readouterr()
        status = main.main(["train", f"experiment={experiment}", *tiny, *overrides])
        return Ended(status, *self.capsys.readouterr())

    def refuses(self, *overrides: str, says: tuple[str, ...], status: int = 2, **more: str) -> None:
        """It ends with a status, and with one line that holds these words."""
        ended = self(*overrides, **more)  # type: ignore[arg-type]
        lines = [line for line in ended.err.splitlines() if line.startswith("storydalle: ")]
        assert ended.status == status and len(lines) == 1, ended
        assert "Traceback" not in ended.err
        for words in says:
            assert words in lines[0], lines[0]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trainer:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return Trainer(capsys)


class Killed(BaseException):
    """As a kill: nothing that ends a training in order is done."""


def killed_after(monkeypatch: pytest.MonkeyPatch, step: int, kill: Callable[[], None] = lambda: None) -> None:
    """Let the next training end, after ``kill``, when the checkpoint of a step has been written."""
    from pytorch_lightning import Trainer as Fitting

    plain = Fitting.save_checkpoint

    def save(self: Fitting, *given: Any) -> None:
        plain(self, *given)
        if self.global_step == step:
            kill()
            raise Killed

    monkeypatch.setattr(Fitting, "save_checkpoint", save)
