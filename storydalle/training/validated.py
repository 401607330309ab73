"""Callbacks that use validations: early stopping, and keeping the best model."""

import math
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from pytorch_lightning.trainer.states import TrainerFn

from storydalle.mistakes import UserError, nearest
from storydalle.training.runs import LAST, TrainingRun

BEST = LAST.with_name("best.safetensors")


def monitored(run: TrainingRun, monitor: str | None, callback: str) -> str:
    """The value that a callback monitors: ``monitor`` if given, else the ``MONITOR`` of the run's system."""
    if found := monitor or run.monitor:
        return found
    raise UserError(f"callbacks.{callback}.monitor is not set, and this system names no value: give one of val/...")


def check_logged(trainer: pl.Trainer, monitor: str, callback: str) -> None:
    """Raise UserError, listing the logged values, if the validation has not logged the monitored one."""
    if monitor not in trainer.callback_metrics:
        names = [name for name in trainer.callback_metrics if name.startswith("val/")]
        raise UserError(f"callbacks.{callback}.monitor={monitor} is in no validation; {nearest(monitor, names)}")


class EarlyStop(EarlyStopping):
    """Stops a training after ``patience`` validations without a better value.

    A run that was killed after it stopped, but before its model was written, stops at once when it is resumed.
    ``patience`` then comes from the config, which may have changed, and not from the checkpoint.
    """

    def __init__(
        self,
        run: TrainingRun,
        monitor: str | None = None,
        mode: str = "min",
        patience: int = 5,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(monitored(run, monitor, "early_stopping"), mode=mode, patience=patience, min_delta=min_delta)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._should_skip_check(trainer):
            check_logged(trainer, self.monitor, "early_stopping")
        super().on_validation_end(trainer, pl_module)

    def __str__(self) -> str:
        """The reason why it has stopped the training."""
        if self.wait_count < self.patience:
            return f"{self.monitor} is not finite"
        return f"{self.monitor} has not improved on {self.best_score:.4g} in {self.wait_count} validations"


class BestCheckpoint(Checkpoint):
    """Keeps the whole state of the best validation, beside the last checkpoint.

    It comes before the last checkpoint in a trainer's callbacks, so its state in that checkpoint includes every
    validation: in a resumed run a worse one cannot replace the best.
    """

    def __init__(self, run: TrainingRun, monitor: str | None = None, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise UserError(f"callbacks.best_checkpoint.mode={mode}: choose one of min, max")
        self.path = run.folder / BEST
        self.monitor, self.mode = monitored(run, monitor, "best_checkpoint"), mode
        self.best: float | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        check_logged(trainer, self.monitor, "best_checkpoint")
        value = float(trainer.callback_metrics[self.monitor])
        if self.is_better(value):
            self.best = value
            trainer.save_checkpoint(self.path)

    def is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        return self.best is None or (value < self.best if self.mode == "min" else value > self.best)

    def state_dict(self) -> dict[str, object]:
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take over the best value, unless another value is monitored now or its file is gone."""
        is_same = (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode)
        best = state_dict["best"]
        self.best = best if isinstance(best, float) and is_same and self.path.is_file() else None


def best_of(trainer: pl.Trainer) -> Path | None:
    """The file of the best state; None if it was not requested or there was no validation."""
    paths = [each.path for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
    return next((path for path in paths if path.is_file()), None)


def reason_to_stop(trainer: pl.Trainer) -> str | None:
    """The reason why a training has stopped before its last step, if this process knows it."""
    stops = [each for each in trainer.early_stopping_callbacks if isinstance(each, EarlyStop)]
    return next((str(each) for each in stops if each.stopping_reason_message or each.wait_count >= each.patience), None)
