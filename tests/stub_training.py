"""Sweeps whose members train nothing, and so start no torch; files in the working folder say what befalls them."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from storydalle.commands import application, members
from storydalle.commands.application import Request
from storydalle.files.locks import held
from storydalle.files.records import write_record
from storydalle.settings import filled
from storydalle.training.runs import check_unfinished, folder_for_run
from storydalle.training.sweeps import settings_hash
from storydalle.training.train_settings import RunChoice

EXPERIMENT = "toon/image_tokenizer"
RUNS = Path("runs") / EXPERIMENT
JOBLIB = ("hydra/launcher=two_jobs", "trainer.accelerator=cpu")


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
        run_of(experiment, str(choice.name), settings_hash(request.settings))
        note(f"begin {folder.name}")
        if Path("kill all").exists():
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # ends with the process that started it
        if (once := Path(f"kill worker {folder.name}")).exists():
            once.unlink()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if Path(f"kill {folder.name}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if Path(f"raise {folder.name}").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        time.sleep(0.05)
        error = {"error": "it broke"} if Path("break").exists() else {"values": {}}
        write_record(folder / "metrics.json", error)
        note(f"end {folder.name}")


def note(line: str) -> None:
    with Path("log").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def noted() -> list[str]:
    return Path("log").read_text(encoding="utf-8").splitlines()


def table(folder: Path) -> None:
    note(f"table {folder.name}")


def sweep(*overrides: str) -> None:
    def sweeps() -> members.TrainingSweeps:
        return members.TrainingSweeps(lambda: None, table)

    application.run("train", stub, ["-m", f"experiment={EXPERIMENT}", *overrides], sweeps=sweeps)


def sweep_as_command(*overrides: str) -> subprocess.CompletedProcess[str]:
    """A sweep as a process of its own, which ends its launcher's processes as the command does."""
    code = (
        "import sys; from tests.stub_training import sweep; sys.argv, given = sys.argv[:1], sys.argv[1:]; sweep(*given)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code, *overrides]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
