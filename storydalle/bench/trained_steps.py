"""Steps of a LightningModule on one batch, as the trainer makes them: optimisation, clipping and logging included."""

import time
import warnings

import pytorch_lightning as pl
from torch.utils.data import DataLoader


def seconds_of_steps(system: pl.LightningModule, batch: object, steps: int, precision: str) -> list[float]:
    """Seconds of each step but the first."""
    watch = Stopwatch()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
        trainer.fit(system, DataLoader([batch] * steps, batch_size=None))  # type: ignore[arg-type]
    return watch.seconds[1:]


class Stopwatch(pl.Callback):
    """Seconds of each training step, its batch at hand."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_batch_start(self, *args: object) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *args: object) -> None:
        self.seconds.append(time.perf_counter() - self.started)
