"""What happens beside the steps of a training: checkpoints, the running mean of the weights, strips."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from torch import Tensor

from storydalle.commands.models import StoryModel
from storydalle.commands.training_runs import LAST
from storydalle.commands.training_strips import SampleStrips
from storydalle.stories.story import Stories


class Checkpoints(ModelCheckpoint):
    FILE_EXTENSION = ".safetensors"


class RunningMean(WeightAveraging):
    """The running mean of the weights, which is the model when the run has ended.

    Over its first steps the mean is shorter than ``decay`` makes it, as what it began with is random and must not
    weigh on a short run: it never reaches back over more than about a ninth of the steps that were made.

    Parts that a system names in ``NOT_AVERAGED`` are kept as they are: judges that begin to learn late would be, for
    the most part, what they were before.

    A run killed between its last checkpoint and its end has no step left to train: Lightning then skips the hook that
    puts the mean in place, but not this one.
    """

    def __init__(self, decay: float) -> None:
        @torch.no_grad()
        def mean(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
            kept = min(decay, (1 + int(num_averaged)) / (10 + int(num_averaged)))
            return kept * averaged + (1 - kept) * current

        super().__init__(avg_fn=mean)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        assert self._average_model is not None
        current, mean = (dict(system.named_modules()) for system in (pl_module, self._average_model.module))
        for name in getattr(pl_module, "NOT_AVERAGED", ()):
            if name in current:
                mean[name].load_state_dict(current[name].state_dict())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_end(trainer, pl_module)


def callbacks(folder: Path, settings: dict[str, Any], model: Any, stories: Stories) -> list[Callback]:
    every, decay = settings["save_every"], settings["ema_decay"]
    strips = [SampleStrips(model, stories, folder / "strips", every=every)] if isinstance(model, StoryModel) else []
    average = [RunningMean(decay=decay)] if decay else []
    return [
        *strips,
        *average,
        Checkpoints(dirpath=folder / LAST.parent, save_last=True, save_top_k=0, every_n_train_steps=every),
        TQDMProgressBar(refresh_rate=10),
    ]
