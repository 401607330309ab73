"""Where a run's numbers are logged: a csv always, Weights & Biases beside it."""

import os
from pathlib import Path

import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger


def loggers(folder: Path, experiment: str) -> list[Logger]:
    """CSV always; W&B in its own folder, online where a key is set and offline otherwise."""
    offline = "WANDB_API_KEY" not in os.environ
    settings = wandb.Settings(silent=True, console="off")
    name = f"{experiment}/{folder.name}"
    online = WandbLogger(project="storydalle", name=name, save_dir=folder, offline=offline, settings=settings)
    # Lightning hands on a setting that is gone, about which every run would be warned.
    getattr(online, "_wandb_init", {}).pop("anonymous", None)
    return [CSVLogger(folder, name="csv"), online]
