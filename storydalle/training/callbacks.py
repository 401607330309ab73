"""Work beside the steps of a training: checkpoints, the running mean of the weights, strips, the last row."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from torch import Tensor

from storydalle.files.weights import is_finite
from storydalle.mistakes import Failure
from storydalle.training.finite import FiniteSteps, Kept, any_rank, local, told, values_of
from storydalle.training.loggers import RunLog
from storydalle.training.processes import StepsMade
from storydalle.training.runs import LAST
from storydalle.training.train_settings import TrainSettings


class Checkpoints(ModelCheckpoint):
    """The last checkpoint, every few steps, with the newest values of what is logged.

    Where a validation follows a step, its checkpoint is written after that: what the validation found is in it, and a
    run that goes on from there has nothing to catch up on. Raises Failure where the weights are not finite, and keeps
    the file that is there.
    """

    FILE_EXTENSION = ".safetensors"

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(
            dirpath=folder / LAST.parent,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=every,
            enable_version_counter=False,  # one file, where the folder has moved too
        )
        self.kept, self.every = Kept(folder), every
        self.is_due = False
        self.values: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        log = next((logger for logger in trainer.loggers if isinstance(logger, RunLog)), None)
        interval = getattr(trainer, "log_every_n_steps", 0)
        if log is not None and interval and log.start % interval == 0:
            log.complete({name: value for name, value in self.values.items() if name.startswith("train/")})

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        if self.is_due:  # the validation did not come
            self._save_last_checkpoint(trainer, {})
        ends_step = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.global_step % self.every or not ends_step:
            return
        self.is_due = validation_follows(trainer)
        if not self.is_due:
            self._save_last_checkpoint(trainer, {})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.is_due:
            self._save_last_checkpoint(trainer, {})

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        self.is_due = False
        bad = [name for name, value in trainer.lightning_module.state_dict().items() if not is_finite(local(value))]
        if any_rank(trainer, bool(bad)):
            what = f"{len(bad)} tensors of the weights are not finite after it ({', '.join(bad[:2])})"
            raise Failure(told(trainer.global_step, what, self.kept, trainer))
        super()._save_checkpoint(trainer, filepath)
        self.kept.step = trainer.global_step

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["values"] = newest_values(trainer)
        for logger in trainer.loggers:  # no row before the checkpoint may be lost
            logger.save()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.values, self.kept.step = checkpoint.get("values", {}), checkpoint["global_step"]


class LastRow(Callback):
    """Logs the last step of a training where the interval of logging has left it out, also where it ends in an error.

    So even a run that is shorter than that leaves its losses.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.interval or trainer.global_step % self.interval:
            self.write(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Failure):
            self.write(trainer)

    @staticmethod
    def write(trainer: pl.Trainer) -> None:
        values = {name: value for name, value in values_of(trainer).items() if name.startswith("train/")}
        for logger in trainer.loggers if values else []:
            logger.log_metrics(values, step=trainer.fit_loop.total_batch_idx // trainer.accumulate_grad_batches)


class ProgressBar(TQDMProgressBar):
    """Lightning's, which ends its line where an error ends the training: the message stands on one of its own."""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.training and self._train_progress_bar is not None:
            self.train_progress_bar.close()


class RunningMean(WeightAveraging):
    """The running mean of the weights, which is the model when the run has ended.

    ``mean <- k mean + (1 - k) weights`` after step t, with ``k = min(decay, (1 + t) / (10 + t))``: over its first steps
    the mean is shorter than ``decay`` makes it, as what it began with is random and must not weigh on a short run.

    Parts that a system names in ``NOT_AVERAGED`` are kept as they are: judges that begin to learn late would be, for
    the most part, what they were before.

    A run killed between its last checkpoint and its end has no step left to train: Lightning then skips the hook that
    puts the mean in place, but not this one.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=partial(running_mean, decay))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        assert self._average_model is not None
        current, mean = (dict(system.named_modules()) for system in (pl_module, self._average_model.module))
        for name in getattr(pl_module, "NOT_AVERAGED", ()):
            if name in current:
                mean[name].load_state_dict(current[name].state_dict())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_end(trainer, pl_module)


@torch.no_grad()
def running_mean(decay: float, averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
    kept = min(decay, (1 + int(num_averaged)) / (10 + int(num_averaged)))
    return kept * averaged + (1 - kept) * current


class LearningRates(Callback):
    """Logs the learning rate of each group of parameters, as it is when a loss goes backward."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        names = [str(group.get("name", number)) for number, group in enumerate(groups)]
        rates = {f"train/rate_{name}": float(group["lr"]) for name, group in zip(names, groups, strict=True)}
        pl_module.log_dict(rates)


def callbacks(folder: Path, settings: TrainSettings, chosen: Sequence[Callback] = ()) -> list[Callback]:
    """Those of every run, around the ``chosen`` ones, whose state each checkpoint has."""
    average = [RunningMean(decay=settings.ema_decay)] if settings.ema_decay else []
    checkpoints = Checkpoints(folder, settings.save_every)
    return [
        *average,
        *chosen,
        checkpoints,
        FiniteSteps(checkpoints.kept),
        LastRow(settings.trainer.get("log_every_n_steps", 50)),
        StepsMade(),
        ProgressBar(refresh_rate=10),
    ]


def newest_values(trainer: pl.Trainer) -> dict[str, float]:
    """The newest of every value that the run has logged, before it was resumed too."""
    saved = [callback.values for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoints)]
    return {name: value for values in [*saved, values_of(trainer)] for name, value in values.items()}


def validation_follows(trainer: pl.Trainer) -> bool:
    """Tell if the trainer validates after the batch that has just ended."""
    number = trainer.fit_loop.total_batch_idx + 1
    return (
        trainer.enable_validation and isinstance(trainer.val_check_batch, int) and number % trainer.val_check_batch == 0
    )
