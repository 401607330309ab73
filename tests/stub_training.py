"""Sweeps whose members train nothing, and so start no torch; files in the working folder say what befalls them."""

import errno
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from storydalle.commands import application, members
from storydalle.commands.application import Request
from storydalle.commands.shared import shared_model
from storydalle.files.dotted import value_at
from storydalle.files.locks import held
from storydalle.files.records import write_record
from storydalle.settings import filled
from storydalle.training.runs import SHARED, check_unfinished, folder_for_run
from storydalle.training.studies import OwnTrial
from storydalle.training.sweeps import settings_hash
from storydalle.training.train_settings import RunChoice, TrainSettings, recipe_of

EXPERIMENT = "toon/image_tokenizer"
METRIC = "val/loss"  # that the stub of a training logs
RUNS = Path("runs") / EXPERIMENT
LONG = 2.0  # seconds of a training that others are to wait for
JOBLIB = ("hydra/launcher=two_jobs", "trainer.accelerator=cpu")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    return tmp_path


def run_of(experiment: Path, name: str, settings: str | None, **record: object) -> Path:
    """A run's folder, begun with settings of this hash; with ``record``, ended."""
    folder = experiment / name
    write_record(folder / "run.json", {} if settings is None else {"settings": settings})
    (folder / "config.yaml").write_text("seed: 0\n")
    if record:
        write_record(folder / "metrics.json", record)
    return folder


def stub(request: Request) -> None:
    """In place of a training: the same folder, lock and record, and a line in ``log`` for each beginning and end."""
    choice = filled(RunChoice, request.settings)
    experiment = choice.runs / request.choices["experiment"]
    with folder_for_run(experiment, choice.name, choice.resume) as folder, held(folder, "train"):
        check_unfinished(folder)
        members.check_member(request, folder)
        recipe = recipe_of(request.settings)
        if recipe is not None:
            shared_model(recipe, request, stub)
        run_of(experiment, str(choice.name), settings_hash(request.settings))
        name = experiment.name if folder.parent.name == SHARED else folder.name
        note(f"begin {name}")
        if Path("kill all").exists():
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # ends with the process that started it
        if (once := Path(f"kill worker {name}")).exists():
            once.unlink()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if Path(f"kill {name}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if Path(f"exit {name}").exists():
            os._exit(3)
        if Path(f"raise {name}").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        time.sleep(float(long.read_text() or LONG) if (long := Path(f"long {name}")).exists() else 0.05)
        record = {"error": "it broke"} if Path("break").exists() else judged(request, folder)
        write_record(folder / "metrics.json", record)
        note(f"end {name}")


def judged(request: Request, folder: Path) -> dict[str, object]:
    """The record of a run; in a search, of one that reports three values, and that may be given up before the last."""
    search = filled(TrainSettings, request.settings).search
    if search is None:
        return {"values": {}}
    value = math.nan
    for step in (1, 2, 3):
        value = loss(request.settings, step)
        if step < 3 and OwnTrial(folder, search).is_hopeless(value, step):
            return {"values": {search.metric: value}, "pruned": step}
    return (
        {"values": {search.metric: value}}
        if search.metric == METRIC
        else {"error": f"search.metric={search.metric} is nowhere"}
    )


def loss(settings: Mapping[str, object], step: int) -> float:
    """The best rate is 0.001, and more steps are better."""
    rate, steps = value_at(settings, "system.learning_rate"), settings["max_steps"]
    assert isinstance(rate, float) and isinstance(steps, int)
    return abs(math.log10(rate) + 3) + 10 / steps + 1 / step


def note(line: str) -> None:
    with Path("log").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def noted() -> list[str]:
    return Path("log").read_text(encoding="utf-8").splitlines()


def table(folder: Path) -> None:
    note(f"table {folder.name}")


def sweep(*overrides: str, experiment: str = EXPERIMENT) -> None:
    def sweeps() -> members.TrainingSweeps:
        return members.TrainingSweeps(lambda: None, table)

    flags = [each for each in overrides if each.startswith("-")]
    given = [each for each in overrides if not each.startswith("-")]
    application.run("train", stub, ["-m", *flags, f"experiment={experiment}", *given], sweeps=sweeps)


def in_process(*sweeps_at_once: Callable[[], None], seconds: float = 120) -> list[int | None]:
    """Exit statuses of processes that start at the same time; one that is not done after some seconds is killed."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=each) for each in sweeps_at_once]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def sweep_as_command(*overrides: str, experiment: str = EXPERIMENT) -> subprocess.CompletedProcess[str]:
    """A sweep as a process of its own, which ends its launcher's processes as the command does."""
    code = (
        "import sys; from tests.stub_training import sweep; sys.argv, given = sys.argv[:1], sys.argv[1:]; "
        f"sweep(*given, experiment={experiment!r})"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code, *overrides]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
