"""Runs from the command line: what a run leaves, how it is resumed, and what is refused before anything is lost."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from storydalle.commands import main
from storydalle.files.locks import LOCK
from storydalle.mistakes import UserError
from storydalle.reporting.compared_runs import Report
from storydalle.training.runs import LAST, State, finished_models, run_folder, state_of
from storydalle.training.state import load_state
from storydalle.training.train_settings import unfinished_stages
from tests.training import EXPERIMENT, TINY, Killed, Trainer, killed_after, train, train_settings

__all__ = ["train"]
STEPS = ("trainer.max_steps=4", "trainer.val_check_interval=2")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("csv/*/metrics.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of four steps: ``whole``, and ``cut``, which was killed after the second."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "disabled")
        command = ["train", f"experiment={EXPERIMENT}", *TINY, *STEPS, "system.edge_emphasis=2.0"]
        assert main.main([*command, "name=whole"]) == 0
        killed_after(patch, 2)
        with pytest.raises(Killed):
            main.main([*command, "name=cut"])
    return folder


@pytest.fixture
def cut(begun: Path, train: Trainer) -> Path:
    """The killed run, beside the whole one, in the folder that is worked in."""
    shutil.copytree(begun / "runs", "runs")
    assert state_of(train.runs / "cut") is State.INTERRUPTED
    return train.runs / "cut"


# ------------------------------------------------------------------------------------------------ states


def test_the_state_of_a_run_follows_from_its_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert state_of(run) is None
    (run / "config.yaml").write_text("seed: 0\n")
    assert state_of(run) is State.INTERRUPTED
    for text, state in (
        ('{"values": {}}', State.FINISHED),
        ('{"error": "full"}', State.FAILED),
        ("{", State.FAILED),
        ("[]", State.FAILED),
    ):
        (run / "metrics.json").write_text(text)
        assert state_of(run) is state


def made(experiment: Path, name: str, age: int, metrics: str | None) -> Path:
    """A run with a checkpoint and a model, so many seconds old."""
    run = experiment / name
    for path in (run / LAST, run / "model" / "config.json"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{}")
        os.utime(path, (1e9 - age, 1e9 - age))
    (run / "config.yaml").write_text("")
    if metrics is not None:
        (run / "metrics.json").write_text(metrics)
    return run


def test_only_an_unfinished_run_is_resumed_and_only_a_finished_one_is_built_on(tmp_path: Path) -> None:
    made(tmp_path, "newest", 0, '{"values": {}}')
    failed = made(tmp_path, "failed", 20, '{"error": "full"}')
    cut = made(tmp_path, "cut", 10, None)
    made(tmp_path, "older", 30, '{"values": {}}')
    assert run_folder(tmp_path, None, resume=True) == cut
    assert run_folder(tmp_path, "failed", resume=True) == failed
    assert [model.parent.name for model in finished_models(tmp_path)] == ["newest", "older"]
    for resume in (True, False):
        (tmp_path / "newest" / LOCK).write_text("of a command that was killed when all else was done")
        with pytest.raises(UserError, match=rf"{tmp_path}/newest is finished.*pretrained={tmp_path}/newest"):
            run_folder(tmp_path, "newest", resume=resume)
        assert not (tmp_path / "newest" / LOCK).exists()


def test_a_finished_run_is_touched_by_no_command(cut: Path, train: Trainer) -> None:
    shutil.rmtree(cut)
    before = contents(train.runs)
    for overrides in (["resume=true"], ["name=whole", "trainer.max_steps=9"]):
        train.refuses(*overrides, says=(f"{train.runs}/whole is finished", "pretrained=", "max_steps="))
        assert contents(train.runs) == before


# ------------------------------------------------------------------------------------------------ resuming


def test_a_resumed_run_ends_as_the_one_that_was_never_cut(cut: Path, train: Trainer) -> None:
    """Weights, scores, name in reports and csv, though the command line says none of its settings again."""
    (path,) = cut.glob("csv/*/metrics.csv")
    columns = path.read_text().splitlines()[0].split(",")
    late = ["99" if name == "train/loss" else "2" if name == "step" else "" for name in columns]
    path.write_text(f"{path.read_text()}{','.join(late)}\n3,")  # what the killed run wrote after it, the last line torn
    assert train("resume=true", tiny=()).out.startswith(f"resuming {cut}\n")
    whole = train.runs / "whole"
    first, second = (load_file(each / "model" / "model.safetensors") for each in (whole, cut))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    one, other = record(whole), record(cut)
    for name in ("values", "config", "n", "seeds", "protocol_hash"):
        assert one[name] == other[name], name
    assert "val/reconstruction_error" in other["values"] and "edge_emphasis=2.0" in other["config"]
    assert rows(cut) == rows(whole) and [row["step"] for row in rows(cut)] == ["0", "1", "1", "2", "3", "3"]


def test_a_run_with_no_step_left_keeps_its_scores(cut: Path, train: Trainer) -> None:
    """It was killed between its last checkpoint, which is written after the last validation, and its end."""
    whole = train.runs / "whole"
    before, logged = record(whole), rows(whole)
    (whole / "metrics.json").unlink()
    shutil.rmtree(whole / "model")
    assert train("name=whole", "resume=true", tiny=()).status == 0
    assert record(whole)["values"] == before["values"] and "val/codebook_usage" in before["values"]
    assert record(whole)["n"] == {"steps": 4}
    assert rows(whole) == logged
    assert (whole / "model" / "model.safetensors").is_file()


def test_settings_that_differ_from_the_runs_own_are_refused_by_name(cut: Path, train: Trainer) -> None:
    before = contents(cut)
    for overrides, told in (
        (["system.learning_rate=1e-5", "seed=3"], ["system.learning_rate=1e-05 (it has 0.001)", "seed=3 (it has 0)"]),
        (["+system.commitment=0.5"], ["system.commitment=0.5 (it has (nothing))"]),
        (["tokenizer=toon"], ["network.ch=48 (it has 8)"]),
        (["trainer.max_steps=3"], ["trainer.max_steps=3 (it has 4, and may have more)"]),
    ):
        train.refuses("resume=true", *overrides, says=(str(cut), *told, "without resume=true"), tiny=())
        assert contents(cut) == before


def test_logging_saving_and_more_steps_may_change(cut: Path, train: Trainer) -> None:
    (cut / "metrics.json").write_text('{"config": "x", "seeds": [0], "error": "no disk space"}')
    more = ("trainer.max_steps=5", "save_every=2", "trainer.log_every_n_steps=5", "logger.project=other", "runs=./runs")
    assert train("resume=true", *more, tiny=()).status == 0
    assert record(cut)["n"] == {"steps": 5}
    assert state_of(cut) is State.FINISHED
    config = (cut / "config.yaml").read_text()
    assert "save_every: 2" in config and "project: other" in config and config.count("max_steps: 5") == 2


def test_todays_defaults_do_not_reach_a_resumed_run(cut: Path, train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting whose default has changed since, and one that has gone from the config; the failed try is forgotten."""
    (cut / "metrics.json").write_text('{"error": "no disk space"}')
    config = (cut / "config.yaml").read_text()
    assert "edge_emphasis: 2.0" in config
    (cut / "config.yaml").write_text(config.replace("edge_emphasis: 2.0", "edge_emphasis: 1.5\n  commitment: 0.5"))
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train("resume=true", tiny=())
    assert "edge_emphasis: 1.5\n  commitment: 0.5" in (cut / "config.yaml").read_text()
    assert state_of(cut) is State.INTERRUPTED


def test_a_batch_size_that_would_lose_the_place_in_the_data_is_refused(cut: Path, train: Trainer) -> None:
    says = ("place in the data", "stories a step: 2, now 4")
    train.refuses("resume=true", "data_module.batch_size=4", says=says, tiny=())


def test_a_changed_number_of_devices_is_refused_unless_the_step_reads_the_same_stories() -> None:
    from storydalle.tokens.shards import ShardedStoryCodes
    from tests.tiny import TinyData, tiny_story_dalle

    made = tiny_story_dalle()
    two = {"start": 7, "counted_in": {"stories a step": 4}}  # two devices of two stories each
    one = TinyData(made, batch_size=4)
    one.load_state_dict(two)
    assert one.start == 7
    with pytest.raises(ValueError, match=r"stories a step: 4, now 2"):
        TinyData(made, batch_size=2).load_state_dict(two)
    shards = ShardedStoryCodes("a", "b", made.image_tokenizer, made.caption_tokenizer, batch_size=2, num_workers=1)
    state = shards.state_dict()
    shards.num_workers = 2
    with pytest.raises(ValueError, match=r"workers: 1, now 2"):
        shards.load_state_dict(state)


# ------------------------------------------------------------------------------------------------ failing


def test_a_training_that_diverges_fails_in_one_line_and_is_reported_as_failed(train: Trainer) -> None:
    run = ("name=wild", "system.learning_rate=1e36", "trainer.max_steps=5")
    train.refuses(*run, status=1, says=("step 2: train/loss is nan", "checkpoint of step 1 is kept", "learning rate"))
    folder = train.runs / "wild"
    assert not (folder / "model").exists()
    assert load_state(folder / LAST)["global_step"] == 1
    assert "train/loss is nan" in record(folder)["error"] and record(folder)["checkpoint"] == str(folder / LAST)
    (told,) = Report.of(Path("runs")).runs
    assert told.failure is not None and told.failure.startswith("failed: step 2")
    assert "| failed: step 2" in Report.of(Path("runs")).text()
    assert [row["step"] for row in rows(folder)] == ["0", "1"], "the losses are in the csv, the last one too"


def test_a_model_that_cannot_be_saved_fails_the_run_and_leaves_its_checkpoint(train: Trainer) -> None:
    """Weights that the last step has spoiled: no loss comes after it, and no checkpoint is due."""
    run = ("name=last", "system.learning_rate=3e38", "+system.warmup_steps=0", "save_every=9", "trainer.max_steps=1")
    ended = train(*run)
    assert ended.status == 1 and "storydalle: " in ended.err
    assert state_of(train.runs / "last") is State.FAILED and not (train.runs / "last" / LAST).exists()
    assert not finished_models(train.runs)


# ------------------------------------------------------------------------------------------------ settings


def test_a_run_shorter_than_every_interval_leaves_losses_and_scores_and_is_told(train: Trainer) -> None:
    ended = train(
        *("name=short", "trainer.log_every_n_steps=20", "trainer.val_check_interval=500"),
        "+system.steps_without_quantization=2",
    )
    assert ended.status == 0
    assert "note: trainer.max_steps=2 ends the training before system.steps_without_quantization=2 is over" in ended.out
    values = record(train.runs / "short")["values"]
    assert "val/reconstruction_error" in values
    (loss,) = [row for row in rows(train.runs / "short") if row["train/loss"]]
    assert loss["step"] == "1" and float(loss["train/loss"]) == pytest.approx(values["train/loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data_module.batch_size=9", ("batch_size=9 is larger than the data (4)",)),
        ("trainer.accelerator=gpu", ("trainer.accelerator=gpu", "accelerator=auto uses what is")),
        ("trainer.precision=64-mixed", ("64-mixed",)),
        ("save_every=0", ("save_every=0", "1 or more")),
    ],
)
def test_a_setting_that_would_spoil_a_run_is_one_line(override: str, says: tuple[str, ...], train: Trainer) -> None:
    train.refuses("name=no", override, says=says)
    assert not finished_models(train.runs)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"trainer__max_steps": 0}, r"trainer\.max_steps=0.*1 or more"),
        ({"trainer__max_steps": -1}, r"trainer\.max_steps=-1"),
        ({"trainer__accumulate_grad_batches": 0}, r"accumulate_grad_batches=0"),
        ({"data_module__batch_size": 0}, r"data_module\.batch_size=0"),
        ({"ema_decay": 1.5}, r"ema_decay=1\.5.*between 0 and 1"),
        ({"system__clip": 0}, r"system\.clip=0 sets every gradient to zero"),
        ({"system__clip": "abc"}, r"system\.clip=abc is no number"),
        ({"system__gradient_clip": -1.0}, r"system\.gradient_clip=-1"),
        ({"system__clip": float("nan")}, r"system\.clip=nan"),
        ({"pretrained": "story_dalle"}, r"pretrained=story_dalle.*starts from scratch"),
    ],
)
def test_counts_and_limits_under_which_nothing_trains_are_refused(changed: dict[str, Any], says: str) -> None:
    assert unfinished_stages(train_settings()) == []
    with pytest.raises(UserError, match=says):
        train_settings(**changed)
