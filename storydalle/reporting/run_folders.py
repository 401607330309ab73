"""Where runs lie below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from storydalle.stories.own_story import natural_order
from storydalle.training.runs import CONFIG, METRICS

OF_RUNS = ("checkpoints", "csv", "model", "strips", "tensorboard", "wandb")  # folders in that of a run


def run_folders(folder: Path) -> list[Path]:
    """Every folder with a run, in the order of names, in which 10 follows 9."""
    return sorted(found_below(folder), key=lambda path: [natural_order(part) for part in path.parts])


def found_below(folder: Path) -> Iterator[Path]:
    """Folders with a run; what a run keeps in its own folders is not looked through."""
    for name, folders, files in os.walk(folder):
        if METRICS in files or CONFIG in files:
            yield Path(name)
            folders[:] = [each for each in folders if each not in OF_RUNS]
