"""Folders of training runs: which one a command begins or goes on with."""

import datetime
from pathlib import Path

from storydalle.commands.mistakes import UserError

LAST = Path("checkpoints") / "last.safetensors"


def run_folder(experiment: Path, name: str | None, resume: bool) -> Path:
    """The folder of a run: a new one, or with ``resume`` the one to go on with."""
    if name is not None:
        folder = experiment / str(name)
        if (folder / LAST).is_file() and not resume:
            raise UserError(f"{folder} holds a run: go on with resume=true, or choose another name=")
        return folder
    if resume:
        found = list(experiment.glob(f"**/{LAST}"))
        if not found:
            raise UserError(f"nothing to resume: no checkpoint under {experiment}; start without resume=true")
        return max(found, key=lambda path: path.stat().st_mtime).parent.parent
    stamp = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    number = 1
    while True:
        folder = experiment / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        return folder
