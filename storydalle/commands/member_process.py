"""A member of a sweep in a process of its own: where one is killed, as for want of memory, the others go on."""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path

from storydalle.files import locks
from storydalle.mistakes import Taken

POLL, GRACE = 0.1, 5.0  # seconds between looks at a process or device, and for a member's end after Ctrl-C
DEVICES, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
STOPPED = 130
QUEUE_SIGNALS = ("SIGUSR1", "SIGUSR2")  # by which SLURM says that a job will end; a launcher requeues it


def is_forked() -> bool:
    """True if members are processes of their own: not where there are no forks, nor among the processes of torchrun."""
    return sys.platform == "linux" and int(os.environ.get("WORLD_SIZE", 1)) == 1


def status_apart(work: Callable[[], None]) -> int:
    """Do ``work`` in a forked process, and return its exit status: negative for the signal that killed it.

    That process ends with this one.
    """
    process = multiprocessing.get_context("fork").Process(target=alone, args=(work,))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:
        process.join(GRACE)
        raise
    finally:
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


@cache  # one thread is enough for all jobs of a worker
def end_with(launcher: int) -> None:
    """End this process, a worker of ``launcher``, with it: in a job, and while the worker waits for another."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.getppid() != launcher:  # it was killed before this job began
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()


def alone(work: Callable[[], None]) -> None:
    """Do ``work`` as a forked process, without the signal handlers of the process above, and end with that."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in QUEUE_SIGNALS:
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        work()
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def end_with_parent() -> None:
    above = multiprocessing.parent_process()
    assert above is not None
    wait([above.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------ what a member may use


def shared_threads(num_workers: int) -> dict[str, str]:
    """The environment of one of several members at a time: together they have no more threads than cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // num_workers)
    own = os.environ.get(THREADS, "")
    return {THREADS: str(min(share, int(own)) if own.isdigit() and int(own) else share)}


@contextmanager
def own_device(devices: Sequence[str], folder: Path | None = None) -> Iterator[Mapping[str, str]]:
    """The environment of a member that has one of these devices to itself; waits until one is free.

    Locks in ``folder``, by default one for all sweeps of a user, say which are taken.
    """
    if not devices:
        yield {}
        return
    folder = folder or Path(tempfile.gettempdir()) / f"storydalle-devices-{os.getuid()}"
    with ExitStack() as held:
        while True:
            for name in devices:
                try:
                    held.enter_context(locks.held(folder / name, "train -m"))
                except Taken:
                    continue
                yield {DEVICES: name}
                return
            time.sleep(POLL)


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if DEVICES in os.environ:
        return [name for name in os.environ[DEVICES].split(",") if name and name != "-1"]
    from torch.cuda import device_count  # asks the driver, and so leaves CUDA to the member

    return list(map(str, range(device_count())))
