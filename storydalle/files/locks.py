"""One command at a time in a folder: a second one is told who holds the lock; a killed one leaves no lock."""

import datetime
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from storydalle.files.json_values import as_int
from storydalle.files.reading import read_object
from storydalle.files.whole import remove_empty
from storydalle.mistakes import Taken, told_in_one_line

UNTOLD = 1.0  # seconds of waiting of which nothing is told
LOCK = ".storydalle.lock"  # the end of the name of each lock's file


@contextmanager
def held(
    path: Path, command: str, is_folder: bool = True, leaves_mark: bool = False, patience: float = 0
) -> Iterator[None]:
    """Keep other commands out of the folder ``path``, which is created if needed.

    The operating system holds the lock and ends it with the process, killed or not. A file in the folder says who holds
    it. With ``is_folder=False``, for a path that must not exist yet, this file is beside ``path``. Afterwards the file
    is removed, and so are folders that were created for it and stayed empty, unless ``leaves_mark``. Raises Taken if
    another command still holds the lock after ``patience`` seconds.
    """
    file = path / LOCK if is_folder else path.with_name(f".{path.name}{LOCK}")
    missing = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    lock = FileLock(file, timeout=patience)
    with told_in_one_line(f"{path} cannot be written", OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            who = holder(file) or f"another {command}"
            raise Taken(f"{path} is being written by {who}: wait for it, or choose another") from error
    try:
        since = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}"
        holding = {"command": command, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
        file.write_text(json.dumps(holding) + "\n", encoding="utf-8")
        yield
    finally:
        if leaves_mark:
            file.write_text("", encoding="utf-8")
        else:
            file.unlink(missing_ok=True)
        lock.release()
        remove_empty(missing)


@contextmanager
def after_others(file: Path, told: str) -> Iterator[None]:
    """Hold the lock of ``file``; where others have it, print what is waited for, and wait."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=UNTOLD)
    except Timeout:
        print(told, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def forget_killed(path: Path) -> None:
    """Remove the lock's file that a killed command left in the folder ``path``; that of a running command stays."""
    file = path / LOCK
    if file.exists():
        with suppress(Timeout, OSError), FileLock(file, timeout=0):
            file.unlink(missing_ok=True)


def holder(file: Path) -> str | None:
    """The holder of a lock, by its file; empty if the file does not say it yet."""
    who = told_by(file)
    return None if who is None else who.told


class Holder(NamedTuple):
    """The command that holds a lock."""

    command: str
    pid: int
    host: str
    since: str

    @property
    def told(self) -> str:
        return f"storydalle {self.command} (process {self.pid} on {self.host}, since {self.since})"

    @property
    def is_gone(self) -> bool:
        """True if it was killed; of a process on another machine nothing tells that."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it is another user's
            return False
        return False


def told_by(file: Path) -> Holder | None:
    try:
        who = read_object(file)
        return Holder(str(who["command"]), as_int(who["pid"]), str(who["host"]), str(who["since"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def living_holder(path: Path) -> str | None:
    """The command that writes into the folder ``path``; None if there is none, or if it was killed.

    Only the lock's file is read: to try the lock itself would keep a command out that starts at this moment.
    """
    who = told_by(path / LOCK)
    return None if who is None or who.is_gone else who.told


def is_lock(name: str) -> bool:
    """True for the file of a lock."""
    return name.endswith(LOCK)
