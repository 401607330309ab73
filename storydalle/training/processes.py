"""Several processes that train one model: start them, share decisions of the first, end them together.

The first process checks, decides, prints and writes; the others receive its decisions and train. Either it starts them
(Lightning's strategies ddp, ddp_spawn, ddp_fork), or a launcher such as torchrun starts all of them.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import TypeVar, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch.multiprocessing import ProcessRaisedException

from storydalle import mistakes
from storydalle.files.text import parsed
from storydalle.mistakes import Failure, UserError

AGREED = "STORYDALLE_AGREED"  # what the first process has decided, for those that it starts
LAUNCHED = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS", AGREED)
STEPS = "steps_made"
Decided = TypeVar("Decided")  # made of what json holds
PATIENCE = 10.0  # seconds that another process waits for the first to end, which says what is wrong


def is_first() -> bool:
    return not getattr(rank_zero_only, "rank", 0)


@contextmanager
def beside_the_first() -> Iterator[None]:
    """In every process but the first: print nothing, and end after the first one."""
    if is_first():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        try:
            yield
        except Exception:
            time.sleep(PATIENCE)
            raise


# ------------------------------------------------------------------------------------------------ agreeing


def agreed(decide: Callable[[], Decided]) -> Decided:
    """Return in every process of a training what ``decide`` returns in the first one, as json holds it."""
    shared = _decisions() if is_launched() else None
    if is_first():
        decided = json.dumps(decide())
        os.environ[AGREED] = decided
        if shared is not None:
            shared.publish(decided)
        return cast(Decided, parsed(decided))
    return cast(Decided, parsed(shared.published() if shared is not None else os.environ[AGREED]))


class SharedDecisions:
    """Decisions of the first process, in the store through which processes of an external launcher find each other."""

    def __init__(self, store: dist.Store) -> None:
        self.store, self.number = store, 0

    def key(self) -> str:
        """The key of the next decision: different for each run of a sweep and for each start by a launcher."""
        self.number += 1
        return f"storydalle/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{self.number}"

    def publish(self, decided: str) -> None:
        self.store.set(self.key(), decided)

    def published(self) -> str:
        return self.store.get(self.key()).decode()


def is_launched() -> bool:
    """True if torchrun, or a launcher like it, has started this process; False if this program starts the others."""
    told = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return told and int(os.environ["WORLD_SIZE"]) > 1


@cache
def _decisions() -> SharedDecisions:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, *_ = next(iter(dist.rendezvous("env://", rank, size)))
    return SharedDecisions(store)


# ------------------------------------------------------------------------------------------------ starting, ending


class StepsMade(Callback):
    """Adds the number of steps to the results that come back from spawned processes."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.callback_metrics[STEPS] = torch.tensor(trainer.global_step)


def steps_made(trainer: pl.Trainer) -> int:
    """Remove the number of steps from the results and return it."""
    return int(trainer.callback_metrics.pop(STEPS, trainer.global_step))


class _Scripts(_SubprocessScriptLauncher):
    """Starts the other processes of this machine as ``storydalle train`` with the settings of this one run."""

    def __init__(self, launcher: _SubprocessScriptLauncher, arguments: Sequence[str]) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self.arguments = arguments

    def launch(self, function: Callable, *args: object, trainer: pl.Trainer | None = None, **kwargs: object) -> object:
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            _Observer(os.getpid(), self.procs).start()
        _set_num_threads_if_needed(self.num_processes)
        return function(*args, **kwargs)

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        there = self.cluster_environment
        os.environ |= {
            "MASTER_ADDR": there.main_address,
            "MASTER_PORT": str(there.main_port),
            "NODE_RANK": str(there.node_rank()),
            "LOCAL_RANK": str(there.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        command = [sys.executable, "-m", "storydalle", "train", *self.arguments]
        for rank in range(1, self.num_processes):
            self.procs.append(subprocess.Popen(command, env=os.environ | {"LOCAL_RANK": str(rank)}))


class _Observer(_ChildProcessObserver):
    """Kills all processes if one has failed and the first waits for it without noticing."""

    def _terminate_all(self) -> None:
        time.sleep(PATIENCE)
        super()._terminate_all()


def prepare(trainer: pl.Trainer, arguments: Sequence[str]) -> None:
    """Adapt Lightning's strategy to this program: parameters may be unused in a step, and processes start as commands.

    ``arguments`` are the arguments of ``storydalle train`` that make other processes train the same run.
    """
    strategy = trainer.strategy
    if isinstance(strategy, ModelParallelStrategy) and any(
        isinstance(each, WeightAveraging)
        for each in trainer.callbacks  # type: ignore[attr-defined]
    ):
        raise UserError("a sharded model cannot keep a running mean: set ema_decay=null with trainer=fsdp")
    if isinstance(strategy, DDPStrategy):
        strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
    launcher = strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        strategy._launcher = _Scripts(launcher, arguments)


@contextmanager
def running(trainer: pl.Trainer) -> Iterator[None]:
    """Wrap ``fit``: the processes that it starts end with it, and leave nothing for the next run of a sweep.

    Raises Failure if one of them was killed, or the error that a spawned process raised.
    """
    before = {name: os.environ.get(name) for name in LAUNCHED}
    started: list[subprocess.Popen] = []
    try:
        yield
    except ProcessRaisedException as error:
        raise retold(error) from error
    except Exception as error:
        started = getattr(trainer.strategy.launcher, "procs", [])
        if isinstance(error, RuntimeError) and (dead := first_dead(started)) is not None:
            raise Failure(dead) from error
        raise
    finally:
        for process in started:
            process.kill()
        for process in getattr(trainer.strategy.launcher, "procs", []):
            if isinstance(process, subprocess.Popen):
                process.wait()
        if dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def first_dead(started: Sequence[subprocess.Popen]) -> str | None:
    """A message about a process that has ended, for which the others would wait for ever; None if all are running."""
    deadline = time.monotonic() + 2
    while started and time.monotonic() < deadline and not any(process.poll() for process in started):
        time.sleep(0.05)
    for rank, process in enumerate(started, start=1):
        if process.returncode:
            how = f"was killed by signal {-process.returncode}" if process.returncode < 0 else "failed"
            return f"process {rank} of the training (pid {process.pid}) {how}: continue with resume=true"
    return None


def retold(error: ProcessRaisedException) -> Exception:
    """Make a UserError again from the traceback of a spawned process, which is all that comes back."""
    said = re.search(rf"^{re.escape(mistakes.__name__)}\.(\w+): (.*)\Z", str(error).strip(), re.MULTILINE | re.DOTALL)
    kinds = {"UserError": UserError, "Failure": Failure}
    return kinds[said[1]](said[2]) if said and said[1] in kinds else error
