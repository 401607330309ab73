"""Loggers and callbacks that a command line chooses: what they do, when a run goes on, and what is refused."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from storydalle.training.runs import LAST, State, finished_models, state_of
from storydalle.training.state import load_state
from storydalle.training.validated import BEST
from tests.test_training_runs import record, rows
from tests.training import Killed, Trainer, killed_after, train

__all__ = ["train"]
BOTH = "callbacks=[early_stopping,best_checkpoint]"
# A rate that makes every step worse than the one before, by far; a validation a step.
WORSE = ("trainer.max_steps=9", "trainer.val_check_interval=1", "system.learning_rate=0.5", "+system.warmup_steps=0")
STOPPED = (*WORSE, BOTH, "callbacks.early_stopping.patience=2")
ERROR = "val/reconstruction_error"


def test_a_run_stops_when_it_gets_no_better_and_its_model_is_the_best_one(train: Trainer) -> None:
    ended = train("name=short", *STOPPED)
    folder = train.runs / "short"
    assert ended.status == 0 and state_of(folder) is State.FINISHED
    done, best, last = record(folder), load_state(folder / BEST), load_state(folder / LAST)
    assert best["global_step"] + 2 == last["global_step"] == done["n"]["steps"] < 9
    told = f"step {last['global_step']} of 9: {ERROR} has not improved on "
    assert f"stopped early, after {told}" in ended.out and done["stopped_early"].startswith(told)
    assert f"the model is from step {best['global_step']}" in ended.out
    assert done["values"][ERROR] == best["values"][ERROR] < last["values"][ERROR]
    weights, prefix = load_file(folder / "model" / "model.safetensors"), "image_tokenizer."
    kept = {name.removeprefix(prefix): value for name, value in best["state_dict"].items()}
    assert all(torch.equal(value, kept[name]) for name, value in weights.items())
    assert finished_models(train.runs) == [folder / "model"]


def test_a_resumed_run_counts_the_validations_of_before(train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    train("name=whole", *STOPPED)
    steps = record(train.runs / "whole")["n"]["steps"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, steps - 1)
        train("name=cut", *STOPPED)
    assert train("resume=true", tiny=()).status == 0
    cut, whole = (record(train.runs / name) for name in ("cut", "whole"))
    for name in ("values", "n", "stopped_early"):
        assert cut[name] == whole[name], name
    assert rows(train.runs / "cut") == rows(train.runs / "whole")


def test_a_run_that_was_killed_when_it_had_stopped_makes_no_further_step(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("name=whole", *STOPPED)
    steps = record(train.runs / "whole")["n"]["steps"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, steps)
        train("name=cut", *STOPPED)
    ended = train("resume=true", tiny=())
    assert record(train.runs / "cut")["n"] == {"steps": steps} and "stopped early" in ended.out
    assert record(train.runs / "cut")["values"] == record(train.runs / "whole")["values"]


def test_loggers_and_callbacks_may_be_added_when_a_run_goes_on(train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 1)
        train("name=cut", "logger=csv", *WORSE)
    added = (BOTH, "callbacks.early_stopping.patience=1", "logger=[csv,wandb]", "logger.project=other")
    ended = train("resume=true", *added, tiny=())
    assert ended.status == 0 and "stopped early" in ended.out
    config = (train.runs / "cut" / "config.yaml").read_text()
    assert "best_checkpoint:" in config and "project: other" in config


def test_a_run_of_before_loggers_had_names_goes_on_with_its_own(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 1)
        train("name=cut", "logger=csv")
    config = train.runs / "cut" / "config.yaml"
    named = "logger:\n  csv:\n    _target_: storydalle.training.loggers.RunLog\n    _partial_: true\n"
    text = config.read_text()
    assert named in text
    config.write_text(text.replace(named, "logger:\n  kind: csv\n").replace("callbacks: {}\n", ""))
    assert train("resume=true", tiny=()).status == 0
    assert named in config.read_text() and len(rows(train.runs / "cut")) == 3


def test_the_learning_rate_is_logged_beside_the_losses(train: Trainer) -> None:
    assert train("name=rates", "callbacks=lr_monitor").status == 0
    first, second = (float(row["train/rate_0"]) for row in rows(train.runs / "rates") if row["train/rate_0"])
    assert 0 < first < second, "the rate of the warm-up rises"


def test_a_run_without_a_progress_bar_trains_in_silence(train: Trainer) -> None:
    run = train("name=quiet", "+trainer.enable_progress_bar=false")
    assert run.status == 0 and "it/s" not in run.out + run.err
    assert "it/s" in "".join(train("name=shown")[1:])


def test_nothing_is_logged_where_no_logger_is_chosen(train: Trainer) -> None:
    assert train("name=silent", "logger=none").status == 0
    assert not (train.runs / "silent" / "csv").exists()
    assert ERROR in record(train.runs / "silent")["values"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("+trainer.callbacks=[a]", ("trainer.callbacks=['a']", "callbacks=[NAME,...]")),
        ("+trainer.logger=false", ("trainer.logger=False", "logger=[NAME,...]")),
        ("+trainer.default_root_dir=a", ("trainer.default_root_dir=a", "runs=")),
        ("callbacks=early_stoping", ("early_stoping", "did you mean early_stopping?")),
        ("callbacks=[early_stopping,nothing]", ("nothing",)),
    ],
)
def test_what_would_have_no_effect_is_refused_in_one_line(override: str, says: tuple[str, ...], train: Trainer) -> None:
    train.refuses("name=no", override, says=says)
    assert not (train.runs / "no" / "config.yaml").exists()


@pytest.mark.parametrize("name", ["early_stopping", "best_checkpoint"])
def test_a_value_that_no_validation_has_is_told_with_those_that_it_has(name: str, train: Trainer) -> None:
    says = (f"callbacks.{name}.monitor=val/reconstruction_eror", f"did you mean {ERROR}?")
    train.refuses("name=no", f"callbacks={name}", f"callbacks.{name}.monitor=val/reconstruction_eror", says=says)


def test_tensorboard_is_refused_in_one_line_without_its_package(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    absent = ("tensorboard", "tensorboardX")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name not in absent and found(name, *rest))
    train.refuses("name=no", "logger=tensorboard", says=("pip install tensorboard",))
    assert not (train.runs / "no" / "config.yaml").exists()


def test_a_trainer_says_which_other_settings_it_has_set(train: Trainer) -> None:
    """The run itself is refused: the tiny tokenizer's training has no such settings."""
    ended = train("name=fitted", "trainer=fit_48gb", "system.optimizer=adamw")
    assert "trainer=fit_48gb sets memory_limit_gb=48, system.activation_checkpointing=True\n" in ended.out
    assert Path("runs").is_dir()
