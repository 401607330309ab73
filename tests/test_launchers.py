"""Launchers of sweeps: what SLURM is asked for is what the config says, and each kind runs members."""

import os
import re
import sys
from pathlib import Path

import pytest

from storydalle.commands.application import compose
from storydalle.commands.launchers import workers_of
from storydalle.mistakes import UserError
from tests.stub_training import EXPERIMENT, JOBLIB, RUNS, sweep, sweep_as_command

CHOSEN = {
    "partition": "gpu",
    "timeout_min": 90,
    "gpus_per_node": 2,
    "mem_gb": 48,
    "cpus_per_task": 6,
    "array_parallelism": 3,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    return tmp_path


def flags_of(script: str) -> dict[str, str]:
    """What a script asks SLURM for; a flag without a value is empty."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE)
    return dict(found)


def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> str:
    """The script that submitit hands to a sbatch that writes it down."""
    (tmp_path / "bin").mkdir()
    for name, says in (("sbatch", 'cp "$1" "$SCRIPT"; echo Submitted batch job 7'), ("srun", ""), ("sacct", "")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SCRIPT", str(tmp_path / "script"))
    import submitit

    monkeypatch.setattr(submitit.Job, "results", lambda job: [None])
    with pytest.raises(AttributeError):  # there is no result of a job that nobody has run
        sweep("seeds=5", "hydra/launcher=slurm", *overrides)
    return (tmp_path / "script").read_text()


def test_slurm_is_asked_for_what_the_config_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    asked = [f"hydra.launcher.{key}={value}" for key, value in CHOSEN.items()]
    flags = flags_of(scripted(here, monkeypatch, *asked))
    assert flags["partition"] == "gpu" and flags["nodes"] == "1"
    assert (flags["time"], flags["gpus-per-node"], flags["mem"], flags["cpus-per-task"]) == ("90", "2", "48GB", "6")
    assert flags["array"] == "0-4%3", "five runs, three at a time"
    assert flags["requeue"] == "" and flags["open-mode"] == "append" and flags["signal"].endswith("@120")


def test_without_slurm_nothing_starts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(UserError, match="no SLURM here"):
        sweep("seeds=2", "hydra/launcher=slurm")
    assert list(here.iterdir()) == []


def test_workers_are_those_of_joblib() -> None:
    asked = [f"experiment={EXPERIMENT}", *JOBLIB]
    assert workers_of(compose("train", asked, with_hydra=True).hydra.launcher) == 2
    assert workers_of(compose("train", asked[:1], with_hydra=True).hydra.launcher) == 0


@pytest.mark.slow
def test_submitit_runs_members_on_this_machine(here: Path) -> None:
    pytest.importorskip("submitit")
    ended = sweep_as_command("seeds=2", "hydra/launcher=slurm_here")
    assert ended.returncode == 0, ended.stderr
    assert len(list(RUNS.glob("by-seed/*/metrics.json"))) == 2
