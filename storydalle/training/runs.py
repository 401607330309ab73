"""Folders of training runs: their states, and the folder that a command starts or resumes.

The state of a run follows from its files. ``metrics.json`` is written last, after the model:

- *finished*: it contains numbers. The folder is never changed again;
- *pruned*: it contains numbers, and the step at which a search cut the run short. It is not changed again either;
- *failed*: it contains an error, or cannot be read;
- *interrupted*: it does not exist. The run was killed, or is running and holds the folder's lock.

A failed or interrupted run with a checkpoint can be resumed.
"""

import datetime
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, NoReturn, TypedDict, cast

from storydalle.files import locks
from storydalle.files.records import write_record
from storydalle.files.text import parsed
from storydalle.files.whole import remove_empty
from storydalle.mistakes import Taken, UserError

LAST = Path("checkpoints") / "last.safetensors"
MODEL, MEMORY = "model", "run.json"
METRICS, CONFIG = "metrics.json", "config.yaml"
SHARED = "shared"  # the folder of those runs of an experiment that recipes mean
LOGS = "csv/version_*/metrics.csv"


class TrainingRun(NamedTuple):
    """Facts about a run for the loggers and callbacks that are chosen for it."""

    folder: Path
    name: str  # in reports and at services
    start: int = 0  # the step from which it goes on
    monitor: str | None = None  # the value of a validation by which its model is judged


class KeptByRun(TypedDict, total=False):
    """The facts that a run keeps for its later parts, in a file of its folder."""

    config: str
    settings: str  # sha256 of those that it depends on
    wandb: str  # the run's id there
    shared: list[dict[str, str]]  # that it has in common with other runs: what, hash, where
    pretrained: str | None  # the folder of the model that it is built on
    start: int  # the step from which it was started last
    max_steps: int


class State(StrEnum):
    FINISHED, PRUNED, FAILED, INTERRUPTED = "finished", "pruned", "failed", "interrupted"


DONE = (State.FINISHED, State.PRUNED)


def state_of(folder: Path) -> State | None:
    """The state of a run's folder; None if there is no run in it."""
    try:
        record = parsed((folder / METRICS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return State.INTERRUPTED if (folder / CONFIG).is_file() or (folder / LAST).is_file() else None
    except (OSError, ValueError):
        return State.FAILED
    if not isinstance(record, dict) or "error" in record:
        return State.FAILED
    return State.PRUNED if "pruned" in record else State.FINISHED


@contextmanager
def folder_for_run(experiment: Path, name: str | None, resume: bool) -> Iterator[Path]:
    """The folder of a run, as ``run_folder`` has it; one that is made here goes again if nothing is written into it."""
    above = [folder for folder in (experiment, *experiment.parents) if not folder.exists()]
    folder = run_folder(experiment, name, resume)
    try:
        yield folder
    finally:
        remove_empty([folder, *above] if name is None and not resume else above)


def run_folder(experiment: Path, name: str | None, resume: bool) -> Path:
    """The folder of a run: a new one, or with ``resume`` the one to resume. Finished runs are refused."""
    if name is not None:
        folder = experiment / str(name)
        check_unfinished(folder)
        if (folder / LAST).is_file() and not resume:
            raise UserError(f"{folder} already holds a run: continue it with resume=true, or choose another name=")
        return folder
    return newest_unfinished(experiment) if resume else new_folder(experiment)


def newest_unfinished(experiment: Path) -> Path:
    """The unfinished run with the newest checkpoint."""
    found = newest_first(experiment, LAST)
    folders = [path.parent.parent for path in found]
    unfinished = [folder for folder in folders if state_of(folder) not in DONE]
    if unfinished:
        return unfinished[0]
    if folders:
        refuse_finished(folders[0])
    raise UserError(f"nothing to resume: no checkpoint under {experiment}; start without resume=true")


def check_unfinished(folder: Path) -> None:
    if state_of(folder) in DONE:
        refuse_finished(folder)


def refuse_finished(folder: Path) -> NoReturn:
    """Raise Taken; a run that was killed when all but its lock was done is put in order."""
    locks.forget_killed(folder)
    raise Taken(
        f"{folder} is {state_of(folder)}: there is nothing to resume, and it is not changed; to train its model "
        f"further, start a run with another name and pretrained={folder}, or a longer one with max_steps="
    )


def new_folder(experiment: Path) -> Path:
    """A new folder, named by date and time."""
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


def finished_models(experiment: Path) -> list[Path]:
    """The models of an experiment's finished runs, the newest first."""
    found = newest_first(experiment, Path(MODEL) / "config.json")
    # A model without a run's files beside it was put there as one.
    return [path.parent for path in found if state_of(path.parent.parent) in (State.FINISHED, None)]


def newest_first(experiment: Path, name: Path) -> list[Path]:
    """The files with this name in the runs of an experiment that were asked for themselves."""
    own = (path for path in experiment.glob(f"**/{name}") if SHARED not in path.relative_to(experiment).parts)
    return sorted(own, key=lambda path: path.stat().st_mtime, reverse=True)


def memory(folder: Path) -> KeptByRun:
    """Read what a run keeps beside its config for when it is resumed; empty for older runs, which have no such file."""
    try:
        kept = parsed((folder / MEMORY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / MEMORY} cannot be read ({error}): start without resume=true") from error
    return cast(KeptByRun, kept) if isinstance(kept, dict) else {}


def write_failure(folder: Path, about: Mapping[str, object], error: Exception) -> None:
    """Record why a training failed, and the checkpoint from which it can be resumed, if there is one."""
    text = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    kept = {"checkpoint": str(folder / LAST)} if (folder / LAST).is_file() else {}
    write_record(folder / METRICS, {**about, "error": text, **kept})
