"""Trainings of a search report their validations, and are given up by its pruner."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from storydalle.commands import main
from storydalle.commands.recipes import composed_training
from storydalle.training import studies
from storydalle.training.runs import State, state_of
from tests.stub_training import in_process
from tests.training import EXPERIMENT, TINY, killed_after

pytest.importorskip("optuna", reason="needs the extra search")

RUN = Path("runs") / EXPERIMENT / "tiny/trial-000"
COMMAND = ["train", "-m", "--config-dir=own", f"experiment={EXPERIMENT}", *TINY, "sweep=tiny", "logger=none"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


def write_search(**changed: Any) -> None:
    """A search of one run, whose pruner gives it up at its first validation, of step 2."""
    search = {"metric": "val/reconstruction_error", "direction": "minimize", "trials": 1}
    search |= {"pruner": {"name": "threshold", "upper": 0.0}, "space": {"system.learning_rate": [1e-3]}} | changed
    composed_training.cache_clear()  # a command reads a file once
    Path("own/sweep").mkdir(parents=True)
    settings = {"trainer": {"max_steps": 6, "val_check_interval": 2}, "search": search}
    Path("own/sweep/tiny.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(settings)}")


def trial() -> Any:
    with studies.opened(RUN.parent) as study:
        (found,) = study.trials
    return found


def test_a_run_that_is_given_up_keeps_its_values_and_its_model() -> None:
    write_search()
    assert main.main(COMMAND) == 0
    record = json.loads((RUN / "metrics.json").read_text())
    assert record["pruned"] == 2 and record["n"]["steps"] == 2 and state_of(RUN) is State.PRUNED
    assert record["stopped_early"] == "step 2 of 6: the search gave it up"
    assert trial().state.name == "PRUNED"
    assert trial().intermediate_values == {2: record["values"]["val/reconstruction_error"]}
    assert (RUN / "model").is_dir()


@pytest.mark.slow
def test_a_run_that_was_killed_when_it_was_given_up_makes_no_further_step(monkeypatch: pytest.MonkeyPatch) -> None:
    write_search()
    with monkeypatch.context() as patch:
        killed_after(patch, 2, lambda: os.kill(os.getppid(), signal.SIGKILL))
        assert in_process(partial(main.main, COMMAND)) == [-signal.SIGKILL]
    assert trial().state.name == "RUNNING" and state_of(RUN) is State.INTERRUPTED
    assert main.main(COMMAND) == 0
    assert json.loads((RUN / "metrics.json").read_text())["n"]["steps"] == 2
    assert trial().state.name == "PRUNED"


@pytest.mark.slow
def test_a_run_that_is_not_given_up_reports_every_validation_and_its_last_value_counts() -> None:
    write_search(pruner="none")
    assert main.main(COMMAND) == 0
    assert list(trial().intermediate_values) == [2, 4, 6]
    values = json.loads((RUN / "metrics.json").read_text())["values"]
    assert trial().value == values["val/reconstruction_error"] == trial().intermediate_values[6]


def test_a_metric_that_no_validation_has_is_told_with_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    write_search(metric="val/reconstruction")
    assert main.main(COMMAND) == 2
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("storydalle: ")]
    assert "search.metric=val/reconstruction is in no validation; did you mean val/reconstruction_error?" in told
