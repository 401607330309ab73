"""Several processes from the command line: how they start, what they agree on, who writes, how they end."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.utils import instantiate
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from safetensors.torch import load_file
from torch.multiprocessing import ProcessRaisedException

from storydalle.commands.application import compose, config_flags
from storydalle.mistakes import Failure, UserError
from storydalle.reporting.sample_strips import sample_strips
from storydalle.training import processes
from storydalle.training.callbacks import callbacks
from storydalle.training.runs import TrainingRun
from storydalle.training.validated import BestCheckpoint, EarlyStop
from tests.tiny import TinyStories, tiny_story_dalle
from tests.training import train_settings

ROOT = Path(__file__).parent.parent
DATA = ("data.resolution=64", "data.train.num_stories=8", "data.val.num_stories=4", "tokenizer=tiny", "backbone=tiny")
TRAINING = ("experiment=toon/text_to_image", "pretrained=base", *DATA, "trainer=smoke", "ema_decay=null")
TWO = ("data_module.batch_size=2", "trainer.devices=2")
SHARDED = ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.val_check_interval=4")


# ------------------------------------------------------------------------------------------------ one decides


def plain_trainer(**options: Any) -> pl.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", logger=False, **quiet, **options)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second one of a training."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(processes, "PATIENCE", 0)


def test_what_the_first_decides_is_what_a_process_that_it_starts_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processes.AGREED, raising=False)
    plan = {"folder": "runs/a", "settings": {"seed": 3, "list": [1, None, 0.5]}, "checkpoint": None}
    assert processes.agreed(lambda: plan) == plan
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert processes.agreed(lambda: pytest.fail("another process decides")) == plan


def test_processes_that_a_launcher_starts_agree_over_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run of a sweep is a decision of its own, and a launcher that starts all again finds none of the old."""
    store = dist.HashStore()
    store.set_timeout(timedelta(milliseconds=10))
    first, other = (processes.SharedDecisions(store) for _ in range(2))
    for name in ("a", "b"):
        first.publish(name)
    assert [other.published(), other.published()] == ["a", "b"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(dist.DistError):
        processes.SharedDecisions(store).published()


def test_other_processes_print_nothing_and_let_the_first_end(second: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="wrong"), processes.beside_the_first():
        print("writing runs/a")
        raise UserError("something is wrong")
    assert capsys.readouterr().out == ""
    print("and afterwards it prints again")
    assert capsys.readouterr().out


def test_a_started_process_gets_the_command_and_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sweep, its own member's settings and not the sweep."""
    started: list[tuple[list[str], dict[str, str]]] = []

    def popen(command: list[str], env: dict[str, str]) -> SimpleNamespace:
        started.append((command, env))
        return SimpleNamespace(poll=lambda: 0)  # it has ended well

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    monkeypatch.setattr(sys, "argv", ["storydalle", "-m", "--config-dir", "mine", "experiment=x", "seed=1,2"])
    for name in processes.LAUNCHED:
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that they are as before when the test ends
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trainer = plain_trainer(strategy="ddp", devices=3)
    processes.prepare(trainer, [*config_flags(), "experiment=x", "seed=2"])
    launcher = trainer.strategy.launcher
    assert launcher is not None and launcher.launch(lambda: "trained") == "trained"
    wanted = [sys.executable, "-m", "storydalle", "train", "--config-dir", "mine", "experiment=x", "seed=2"]
    assert [command for command, _ in started] == [wanted, wanted]
    assert [env["LOCAL_RANK"] for _, env in started] == ["1", "2"]
    assert {env["WORLD_SIZE"] for _, env in started} == {"3"}


def test_the_next_run_of_a_sweep_finds_nothing_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("MASTER_PORT", "1")
    with processes.running(plain_trainer()):
        os.environ |= {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "2"}
    assert "LOCAL_RANK" not in os.environ and "WORLD_SIZE" not in os.environ and os.environ["MASTER_PORT"] == "1"


def test_a_dead_process_is_told_in_one_line_and_takes_the_others_along() -> None:
    waiting, killed = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2))
    killed.kill()
    trainer = plain_trainer(strategy="ddp", devices=3)
    assert isinstance(trainer.strategy, DDPStrategy) and trainer.strategy.launcher is not None
    trainer.strategy.launcher.procs += [waiting, killed]
    told = f"process 2 .*pid {killed.pid}.* signal 9: continue with resume=true"
    with pytest.raises(Failure, match=told), processes.running(trainer):
        raise RuntimeError("Connection closed by peer")
    assert waiting.poll() is not None


@pytest.mark.parametrize("kind", [UserError, Failure])
def test_what_a_spawned_process_raises_is_told_as_here(kind: type[Exception]) -> None:
    raised = f"{kind.__module__}.{kind.__name__}: no"
    text = f"\n\n-- Process 0 terminated with the following error:\nTraceback ...\n{raised}"
    told = processes.retold(ProcessRaisedException(text, 0, 1))
    assert type(told) is kind and str(told) == "no"
    bug = ProcessRaisedException("Traceback ...\nKeyError: 3", 0, 1)
    assert processes.retold(bug) is bug


def test_what_a_training_holds_goes_to_a_spawned_process(tmp_path: Path) -> None:
    settings, run = train_settings(save_every=5, ema_decay=0.9), TrainingRun(tmp_path, "run", monitor="val/nats")
    more = [EarlyStop(run), BestCheckpoint(run)]
    made = [*sample_strips(tmp_path, 5, tiny_story_dalle(), TinyStories(2)), *callbacks(tmp_path, settings, more)]
    assert [type(each) for each in pickle.loads(pickle.dumps(made))] == [type(each) for each in made]


def test_the_steps_come_back_with_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = plain_trainer()
    with monkeypatch.context() as spawned:
        spawned.setattr(pl.Trainer, "global_step", 7)
        processes.StepsMade().on_fit_end(trainer, pl.LightningModule())
    assert trainer.global_step == 0
    assert processes.steps_made(trainer) == 7
    assert not trainer.callback_metrics


# ------------------------------------------------------------------------------------------------ from the shell


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with an image tokenizer to build on."""
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    instantiate(compose("train", ["experiment=toon/image_tokenizer", *DATA])["network"]).save_pretrained(
        folder / "base"
    )
    return folder


def started(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    for name in processes.LAUNCHED:
        environment.pop(name, None)
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, *launcher, "-m", "storydalle", "train", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return cast(subprocess.Popen, subprocess.Popen(command, cwd=folder, env=environment, **cast(Any, pipes)))


def trained(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> tuple[str, Path]:
    """The output of a training, and the one folder that it wrote."""
    process = started(folder, *arguments, launcher=launcher)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    before = [line.removeprefix("writing ") for line in out.splitlines() if line.startswith("writing ")]
    assert len(before) == 1, f"each process said where it writes: {out}"
    return out, folder / before[0]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model/model.safetensors")


WAYS = {
    "ddp": (("+trainer.strategy=ddp",), ()),
    "ddp_spawn": (("+trainer.strategy=ddp_spawn",), ()),
    "ddp_fork": (("+trainer.strategy=ddp_fork",), ()),
    "torchrun": ((), ("-m", "torch.distributed.run", "--nproc_per_node=2")),
    "fsdp": (SHARDED, ()),
}


@pytest.mark.slow
def test_every_way_trains_one_model_in_one_folder_as_one_process_does(base: Path) -> None:
    """Nobody gives a name: so the processes have to agree on the run's folder."""
    steps = ("trainer.max_steps=4", "max_steps=4", "trainer.log_every_n_steps=1", "save_every=2")
    four = (*steps, "trainer.limit_val_batches=1.0")  # of the same stories, however many make a batch
    _, alone = trained(base, *TRAINING, *four, "data_module.batch_size=4", "runs=alone")
    expected = json.loads((alone / "metrics.json").read_text())
    for name, (options, launcher) in WAYS.items():
        out, run = trained(base, *TRAINING, *four, *TWO, *options, f"runs={name}", launcher=launcher)
        assert [path.name for path in run.parent.iterdir()] == [run.name], f"{name}: more than one run"
        assert out.count("wrote ") == 1, out
        found = json.loads((run / "metrics.json").read_text())
        assert found["n"]["steps"] == 4, name
        for key in ("train/loss_image", "train/loss_text", "val/loss_image"):
            assert found["values"][key] == pytest.approx(expected["values"][key], abs=1e-4), (name, key)
        for key, value in weights_of(alone).items():
            torch.testing.assert_close(weights_of(run)[key], value, atol=1e-4, rtol=1e-3, msg=f"{name}: {key}")


@pytest.mark.slow
def test_a_run_goes_on_exactly_after_one_of_its_processes_was_killed(base: Path) -> None:
    steps = ("trainer.max_steps=40", "max_steps=40", "save_every=2", "trainer.limit_val_batches=0")
    _, whole = trained(base, *TRAINING, *TWO, *steps, "name=whole", "runs=killed")
    process = started(base, *TRAINING, *TWO, *steps, "name=cut", "runs=killed")
    cut = base / "killed/toon/text_to_image/cut"
    while not (cut / "checkpoints/last.safetensors").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (child,) = children(process.pid)
    os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err[-3000:]
    assert f"process 1 of the training (pid {child}) was killed by signal 9: continue with resume=true" in err
    assert "Traceback" not in err
    assert not (cut / "model").exists()
    process = started(base, *TRAINING, *TWO, *steps, "name=cut", "runs=killed", "resume=true")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    assert "resuming" in out and json.loads((cut / "metrics.json").read_text())["n"]["steps"] == 40
    for key, value in weights_of(whole).items():
        assert torch.equal(weights_of(cut)[key], value), key


@pytest.mark.slow
def test_the_jobs_of_a_sweep_run_as_on_the_nodes_of_a_cluster(tmp_path: Path) -> None:
    """submitit's local executor does here what it does on each node."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    sweep = ("-m", "experiment=toon/image_tokenizer", "seed=0,1", "hydra/launcher=submitit_local", "trainer=smoke")
    sizes = ("data.resolution=64", "data.train.num_stories=4", "data.val.num_stories=2", "data_module.batch_size=2")
    process = started(tmp_path, *sweep, *sizes, "tokenizer=tiny", "logger=none")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs/toon").rglob("metrics.json")]
    assert sorted(run["seeds"] for run in runs) == [[0], [1]]


def children(pid: int) -> list[int]:
    """The processes of the training that this one has started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if b"storydalle" in Path(f"/proc/{each}/cmdline").read_bytes()]
