"""A run of a search tells its study how it goes, and ends where the study gives it up."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn

from storydalle.mistakes import UserError, nearest
from storydalle.training.finite import any_rank
from storydalle.training.search_settings import METRIC, SearchSettings
from storydalle.training.studies import OwnTrial


class Pruning(Callback):
    """Reports the metric of each validation, and stops the training if its trial is pruned.

    Checkpoints keep the step of that: a run that was killed afterwards stops at once when it is resumed.
    """

    def __init__(self, run: Path, search: SearchSettings) -> None:
        self.trial, self.metric = OwnTrial(run, search), search.metric
        self.pruned: int | None = None  # the step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.pruned is not None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        values = trainer.callback_metrics
        if self.metric not in values:
            logged = [name for name in values if name.startswith("val/")]
            raise UserError(f"{METRIC}{self.metric} is in no validation; {nearest(self.metric, logged)}")
        step = (trainer.fit_loop.total_batch_idx + 1) // trainer.accumulate_grad_batches
        # Only one process reports: in all of them the value is the same.
        is_hopeless = trainer.is_global_zero and self.trial.is_hopeless(float(values[self.metric]), step)
        if any_rank(trainer, is_hopeless) and step != trainer.max_steps:
            self.pruned, trainer.should_stop = step, True

    def state_dict(self) -> dict[str, object]:
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        step = state_dict["pruned"]
        assert isinstance(step, int | None)
        self.pruned = step


def pruned_at(trainer: pl.Trainer) -> int | None:
    """The step at which the training was pruned, if it was."""
    found = [each.pruned for each in trainer.callbacks if isinstance(each, Pruning)]  # type: ignore[attr-defined]
    return next((step for step in found if step is not None), None)
