"""Processes that are killed: at any moment, or inside a write."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

LOG = "log.txt"  # what a process prints, which nobody compares


class Writes:
    """Counts what a process, and those that it forks, do to files below a folder; ``strike`` comes at the chosen one.

    That may kill, or tell somebody and let the write go on; a file of which half is written needs ``die``.
    """

    def __init__(
        self, folder: Path, chosen: int | None, strike: Callable[[], object], die: Callable[[], object] | None = None
    ) -> None:
        self.folder, self.chosen, self.strike, self.die = str(folder), chosen, strike, die or strike
        self.shared = mmap(-1, 8)
        sys.addaudithook(self.hear)
        os.fsync = self.half  # type: ignore[assignment]

    @property
    def number(self) -> int:
        return int.from_bytes(self.shared[:8])

    def hear(self, event: str, values: tuple[Any, ...]) -> None:
        is_write = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if event == "open":
            is_write = isinstance(values[2], int) and bool(values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if is_write and self.is_below(values[0]) and self.is_chosen():
            self.strike()

    def is_below(self, path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        name = os.fspath(path)
        return isinstance(name, str) and Path(name).name != LOG and os.path.abspath(name).startswith(self.folder)

    def is_chosen(self) -> bool:
        self.shared[:8] = (self.number + 1).to_bytes(8)
        return self.number == self.chosen

    def half(self, file: int) -> None:
        """In place of ``os.fsync``, which every file that matters passes: half of it may be written."""
        if self.is_chosen():
            os.ftruncate(file, os.fstat(file).st_size // 2)
            self.die()


def kill_group() -> None:
    """Kill this process with its group."""
    os.killpg(0, signal.SIGKILL)


def start(work: Callable[[], int], folder: Path) -> int:
    """Fork a process of a group of its own that works in a folder and prints into its log; return its id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.argv = ["storydalle"]
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int, seconds: float) -> int | None:
    """The exit status, negative for a signal; nothing where the process is still there after so long."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def kill(pid: int) -> int:
    """Kill a process that leads a group, with the group."""
    os.killpg(pid, signal.SIGKILL)
    status = ended(pid, 60)
    assert status is not None
    return status


def living(group: int) -> dict[int, int]:
    """The processes of a group with the parent of each; those that have ended and wait for their parent are none."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, own = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(own) == group and state not in "ZX":
            found[int(path.parent.name)] = int(parent)
    return found


def outlived(group: int, seconds: float) -> dict[int, int]:
    """The processes of a group that are still there after so long."""
    until = time.monotonic() + seconds
    while (left := living(group)) and time.monotonic() < until:
        time.sleep(0.05)
    return left
