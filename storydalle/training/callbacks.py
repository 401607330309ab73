"""Callbacks of a training: checkpoints, the running mean of the weights, the last row of the log."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from storydalle.files.weights import is_finite
from storydalle.mistakes import Failure
from storydalle.training.cost import Cost
from storydalle.training.finite import FiniteSteps, Kept, any_rank, local, told, values_of
from storydalle.training.loggers import RunLog
from storydalle.training.processes import StepsMade
from storydalle.training.runs import LAST
from storydalle.training.train_settings import TrainSettings


class Checkpoints(ModelCheckpoint):
    """Write the last checkpoint every few steps, with the newest logged values.

    If a validation follows a step, the checkpoint is written after it and contains its results, so a resumed run does
    not have to repeat it. If the weights are not finite, raises Failure and keeps the earlier file.
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

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: object) -> None:
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
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        checkpoint["values"] = newest_values(trainer)
        for logger in trainer.loggers:  # no row before the checkpoint may be lost
            logger.save()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        values, step = checkpoint.get("values", {}), checkpoint["global_step"]
        assert isinstance(values, dict) and isinstance(step, int)
        self.values, self.kept.step = values, step


class LastRow(Callback):
    """Logs the last step of a training if the logging interval skipped it, also if the training ends with an error.

    So even a run that is shorter than the interval logs its losses.
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
    """Lightning's progress bar; if an error ends the training, it ends its line before the message."""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.training and self._train_progress_bar is not None:
            self.train_progress_bar.close()


class RunningMean(WeightAveraging):
    """The running mean of the weights; when the run ends, it becomes the model.

    ``mean <- k mean + (1 - k) weights`` after step t, with ``k = min(decay, (1 + t) / (10 + t))``, the ramp of
    TensorFlow's ExponentialMovingAverage: in a short run the random start must not dominate the mean.

    Parts that a system names in ``NOT_AVERAGED`` are copied: the mean of a discriminator that starts late would mostly
    be its state before the start.

    ``on_fit_end``: a run that was killed between its last checkpoint and its end has no step left to train. Lightning
    then skips ``on_train_end``, which puts the mean in place, but calls this hook.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=partial(running_mean, decay))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
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
    """Logs the learning rate of each group of parameters before each backward pass."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        names = [str(group.get("name", number)) for number, group in enumerate(groups)]
        rates = {f"train/rate_{name}": float(group["lr"]) for name, group in zip(names, groups, strict=True)}
        pl_module.log_dict(rates)


def callbacks(folder: Path, settings: TrainSettings, chosen: Sequence[Callback] = ()) -> list[Callback]:
    """The callbacks of every run and the ``chosen`` ones, in an order that puts the state of these into checkpoints."""
    average = [RunningMean(decay=settings.ema_decay)] if settings.ema_decay else []
    checkpoints = Checkpoints(folder, settings.save_every)
    interval = settings.trainer.get("log_every_n_steps")
    shows_progress = settings.trainer.get("enable_progress_bar") is not False
    return [
        *average,
        *chosen,
        checkpoints,
        FiniteSteps(checkpoints.kept),
        LastRow(interval if isinstance(interval, int) else 50),
        StepsMade(),
        Cost(),
        *([ProgressBar(refresh_rate=10)] if shows_progress else []),
    ]


def newest_values(trainer: pl.Trainer) -> dict[str, float]:
    """The newest value of everything that the run has logged, also before it was resumed."""
    saved = [callback.values for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoints)]
    return {name: value for values in [*saved, values_of(trainer)] for name, value in values.items()}


def validation_follows(trainer: pl.Trainer) -> bool:
    """True if the trainer validates after the batch that has just ended."""
    number = trainer.fit_loop.total_batch_idx + 1
    return (
        trainer.enable_validation and isinstance(trainer.val_check_batch, int) and number % trainer.val_check_batch == 0
    )
