"""A search: its trials are members of a sweep; continued, pruned, failed, changed, launched twice and killed."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from storydalle.commands import main
from storydalle.commands.recipes import composed_training
from storydalle.commands.request import Request
from storydalle.commands.searching import check_place
from storydalle.mistakes import Failure, UserError
from storydalle.training import studies
from storydalle.training.runs import State, state_of
from storydalle.training.sweeps import read_plan
from tests.stub_training import EXPERIMENT, JOBLIB, METRIC, RUNS, in_process, noted, sweep, sweep_as_command

optuna = pytest.importorskip("optuna", reason="needs the extra search")

SPACE: dict[str, Any] = {
    "system.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "max_steps": {"low": 2, "high": 20},
}
SEARCH: dict[str, Any] = {
    "metric": METRIC,
    "direction": "minimize",
    "trials": 3,
    "sampler": "tpe",
    "pruner": "none",
    "space": SPACE,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    written()
    return tmp_path


def written(**changed: Any) -> None:
    """Write ``sweep=tiny`` into the folder of the user's own configs."""
    composed_training.cache_clear()  # a command reads a file once
    path = Path("own/sweep/tiny.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# @package _global_\n{yaml.safe_dump({'search': SEARCH | changed}, sort_keys=False)}")


OWN = ("--config-dir=own", "sweep=tiny")


def search(*overrides: str, name: str = "tiny") -> None:
    sweep(*OWN, f"name={name}", *overrides)


def trials(name: str = "tiny") -> list[Any]:
    with studies.opened(RUNS / name) as study:
        return study.trials


def found(name: str = "tiny") -> list[tuple[dict[str, Any], str, float | None]]:
    """What trials were given and what came of them."""
    return [(trial.params, trial.state.name, trial.value) for trial in trials(name)]


def ended() -> list[str]:
    return [line for line in noted() if line.startswith("end")]


# ------------------------------------------------------------------------------------------------ begun again


SAMPLERS = ["random", {"name": "tpe", "n_startup_trials": 2, "seed": 3}, pytest.param("qmc", marks=pytest.mark.slow)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_is_cut_and_continued_has_the_trials_of_one_that_was_not(sampler: Any) -> None:
    if sampler == "qmc":
        pytest.importorskip("scipy", reason="the sampler qmc needs it")
    written(sampler=sampler)
    search("search.trials=4", name="whole")
    search("search.trials=1", name="cut")
    Path("kill all").touch()
    assert in_process(partial(search, "search.trials=4", name="cut")) == [-signal.SIGKILL]
    assert [trial.state.name for trial in trials("cut")] == ["COMPLETE", "RUNNING"]
    Path("kill all").unlink()
    search("search.trials=4", name="cut")
    assert found("cut") == found("whole")
    values = [value for _, _, value in found("whole")]
    assert len(set(values)) == 4 and None not in values, "no trial repeats another"
    assert len(ended()) == 8, "no run was trained twice"


def test_each_trial_is_a_member_with_its_values_as_overrides_of_four_digits(capsys: pytest.CaptureFixture[str]) -> None:
    search()
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"sweep {RUNS}/tiny: 0 runs; 3 to run"
    assert told[-1] == f"sweep {RUNS}/tiny: 3 runs, 3 finished"
    for number, (member, trial) in enumerate(zip(read_plan(RUNS / "tiny"), trials(), strict=True)):
        assert member.name == f"tiny/trial-{number:03}"
        assert {f"{key}={value}" for key, value in trial.params.items()} <= set(member.overrides)
        assert state_of(RUNS / member.name) is State.FINISHED
        rate, steps = trial.params["system.learning_rate"], trial.params["max_steps"]
        assert float(f"{rate:.4g}") == rate and isinstance(rate, float) and 1e-5 <= rate <= 1e-1
        assert isinstance(steps, int) and 2 <= steps <= 20
    assert noted()[-1] == "table tiny"
    search()
    assert len(ended()) == 3, "nothing is left to do"


def test_choices_that_were_trained_already_are_not_trained_again() -> None:
    written(space={"max_steps": [2, 4]}, trials=4)
    search()
    assert len(ended()) == 2 == len(read_plan(RUNS / "tiny"))
    assert len(trials()) == 4 and all(value is not None for _, _, value in found())


# ------------------------------------------------------------------------------------------------ pruned, failed


def test_a_run_that_is_given_up_is_no_failure_and_keeps_its_record() -> None:
    written(pruner={"name": "median", "n_startup_trials": 2}, trials=7)
    search()
    pruned = [trial for trial in trials() if trial.state.name == "PRUNED"]
    assert pruned, "of seven trials some are worse than the median"
    for trial in pruned:
        before = [each for each in trials()[: trial.number] if each.state.name == "COMPLETE"]
        values = sorted(each.intermediate_values[trial.last_step] for each in before)
        assert len(values) >= 2 and trial.value > (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
        run = RUNS / trial.user_attrs[studies.MEMBER]
        assert state_of(run) is State.PRUNED and trial.last_step in (1, 2)
        assert f'"pruned": {trial.last_step}' in (run / "metrics.json").read_text()
    search()
    assert len(ended()) == 7, "a run that was given up is not trained again"


def test_a_trial_that_fails_is_recorded_and_tried_again_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("raise trial-001").touch()
    for _ in range(2):
        with pytest.raises(Failure, match=r"failed: .*trial-001; retry=true"):
            search()
    before = found()
    assert [state for _, state, _ in before] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert len(ended()) == 2
    Path("raise trial-001").unlink()
    search("retry=true")
    assert [line for line in ended()[2:]] == ["end trial-001"]
    assert found()[:3] == before and found()[3][:2] == (before[1][0], "COMPLETE")
    with studies.opened(RUNS / "tiny") as study:
        assert len(studies.asked(study)) == 3, "it counts once"
        assert [trial.state.name for trial in studies.newest_of_each(study)] == ["COMPLETE"] * 3
    search("retry=true")
    assert len(ended()) == 3


def test_a_metric_that_no_run_logs_ends_the_search_with_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    written(metric="val/los")
    with pytest.raises(UserError, match=r"search\.metric=val/los is nowhere"):
        search()
    assert len(trials()) == 1
    written()
    search("new_study=true", "search.trials=2")
    assert [state for _, state, _ in found()] == ["COMPLETE"] * 2
    assert ended() == ["end trial-000", "end study2-trial-000", "end study2-trial-001"]


# ------------------------------------------------------------------------------------------------ changed


def test_a_search_that_asks_something_else_is_refused_with_what_has_changed() -> None:
    search("search.trials=1")
    changes: list[tuple[dict[str, Any], str, str]] = [
        ({"space": SPACE | {"max_steps": {"low": 2, "high": 30}}}, "seed=0", "max_steps is 2 to 30 and was 2 to 20"),
        ({"space": SPACE | {"save_every": [1, 2]}}, "seed=0", r"save_every is \[1, 2\] and was not there"),
        ({"space": {"max_steps": SPACE["max_steps"]}}, "seed=0", "learning_rate is left out and was 1e-05 to 0.1, log"),
        ({"direction": "maximize"}, "seed=0", r"search\.direction is maximize and was minimize"),
        ({}, "seed=1", "seed is 1 and was 0"),
    ]
    for changed, override, says in changes:
        written(**changed)
        with pytest.raises(UserError, match=says):
            search(override)
    assert len(ended()) == 1


def test_a_search_is_begun_anew_beside_the_old_runs_when_asked() -> None:
    search("search.trials=1")
    for _ in range(2):  # the same command continues the new one
        search("seed=1", "new_study=true", "search.trials=1")
    assert len(ended()) == 2 and len(trials()) == 1
    assert [member.name for member in read_plan(RUNS / "tiny")] == ["tiny/trial-000", "tiny/study2-trial-000"]


def test_more_trials_another_sampler_and_another_pruner_continue_a_search() -> None:
    search("search.trials=1")
    search("search.trials=2", "search.sampler=random", "search.pruner=median", "logger=none")
    assert len(ended()) == 2 == len(trials())


# ------------------------------------------------------------------------------------------------ several, killed


def test_two_launches_at_once_share_the_trials_and_repeat_none() -> None:
    assert in_process(*[partial(search, "search.trials=4")] * 2) == [0, 0]
    assert sorted(ended()) == [f"end trial-{number:03}" for number in range(4)]
    assert len({str(values) for values, _, _ in found()}) == 4 == len(trials())
    assert {state for _, state, _ in found()} == {"COMPLETE"}


def test_two_workers_of_a_launcher_share_the_trials_and_one_that_is_killed_loses_none() -> None:
    Path("kill worker trial-001").touch()
    assert sweep_as_command(*OWN, *JOBLIB, "search.trials=4").returncode == 0
    assert sorted(set(ended())) == [f"end trial-{number:03}" for number in range(4)] and len(ended()) == 4
    assert len({str(values) for values, _, _ in found()}) == 4 == len(trials())


@pytest.mark.slow
def test_a_search_that_is_killed_at_many_moments_counts_no_trial_twice_and_loses_none() -> None:
    search("search.trials=8", name="whole")
    for number in range(12):
        in_process(partial(search, "search.trials=8", name="cut"), seconds=0.4 + 0.25 * number)
    search("search.trials=8", name="cut")
    assert [each for each in found("cut") if each[1] != "FAIL"] == found("whole")
    with studies.opened(RUNS / "cut") as study:
        assert len(studies.asked(study)) == 8
    assert len(read_plan(RUNS / "cut")) == 8


def test_a_trial_that_was_asked_for_in_vain_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch that is killed between the study and the plan, before its trial has a name."""
    search("search.trials=2", name="whole")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "set_user_attr", killed)
        with pytest.raises(KeyboardInterrupt):
            search("search.trials=2")
    search("search.trials=2")
    assert found()[0][1] == "FAIL" and found()[1:] == found("whole")


# ------------------------------------------------------------------------------------------------ refused, shown


@pytest.mark.parametrize(
    ("changed", "override", "says"),
    [
        ({"space": {"system.leaning_rate": [1, 2]}}, "seed=0", "no setting 'system.leaning_rate'; .*learning_rate"),
        ({"space": {"tokenizer": ["toon", "ton"]}}, "seed=0", "no tokenizer 'ton'; did you mean toon"),
        ({"space": {"save_every": [1, 0]}}, "seed=0", "save_every=0"),
        ({"space": {"save_every": {"low": 3, "high": 2}}}, "seed=0", "low must be below high"),
        ({"space": {"save_every": {"low": 3, "hi": 2}}}, "seed=0", "no 'hi'; did you mean high"),
        ({"space": {"save_every": {"low": 0, "high": 2, "log": True}}}, "seed=0", "low is above 0"),
        ({"space": {"save_every": 3}}, "seed=0", "use a list of choices"),
        ({"space": {"name": ["a", "b"]}}, "seed=0", "no training depends on it"),
        ({"space": {}}, "seed=0", "space is empty"),
        ({"sampling": "random"}, "seed=0", "a search has no 'sampling'; did you mean sampler"),
        ({"sampler": "tpa"}, "seed=0", "no search.sampler=tpa; did you mean tpe"),
        ({"sampler": {"name": "tpe", "startup": 3}}, "seed=0", "search.sampler is refused: .*startup"),
        ({"pruner": {"name": "percentile", "percentile": 300}}, "seed=0", "search.pruner is refused"),
        ({"direction": "down"}, "seed=0", "direction=down"),
        ({}, "seed=0,1", "chooses its values itself: give one seed"),
        ({}, "max_steps=3", "max_steps is given, and in search.space"),
        ({}, "search.trials=0", "search.trials=0"),
    ],
)
def test_a_mistake_ends_a_search_before_it_begins(
    here: Path, changed: dict[str, Any], override: str, says: str
) -> None:
    written(**changed)
    with pytest.raises(UserError, match=says):
        search(override)
    assert [path.name for path in here.iterdir()] == ["own"]


def test_without_the_extra_one_line_names_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r'pip install "storydalle\[search\]"'):
        search()
    assert [path.name for path in here.iterdir()] == ["own"]


def test_a_search_needs_a_sweep_and_one_machine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = main.main(["train", OWN[0], f"experiment={EXPERIMENT}", *OWN[1:]])
    assert status == 2 and [path.name for path in here.iterdir()] == ["own"]
    with pytest.raises(UserError, match="launcher=slurm: a search keeps its study in SQLite"):
        check_place(Request({}, choices={"hydra/launcher": "slurm"}))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="leave torchrun out"):
        search()


def test_the_settings_of_a_search_are_shown_with_its_space(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["train", "-m", OWN[0], f"experiment={EXPERIMENT}", *OWN[1:], "--cfg", "job"]) == 0
    told = capsys.readouterr().out
    assert yaml.safe_load(told)["search"] == SEARCH
    assert told.splitlines()[-3:] == [
        "# This is a search of 3 trials, which have these settings but for:",
        "#   system.learning_rate: 1e-05 to 0.1, log",
        "#   max_steps: 2 to 20",
    ]
    assert [path.name for path in here.iterdir()] == ["own"]
