"""One command at a time in a folder: the second is told who is at work there, and a killed one keeps nobody out."""

import datetime
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from storydalle.files.reading import read_object
from storydalle.mistakes import UserError, told_in_one_line

LOCK = ".storydalle.lock"  # the end of the name of each lock's file


@contextmanager
def held(path: Path, command: str, is_folder: bool = True, leaves_mark: bool = False) -> Iterator[None]:
    """Keep other commands out of the folder ``path``, which is made if it is not there.

    The lock is the operating system's and ends with the process, killed or not; its file, in the folder, says who
    holds it. ``is_folder=False`` is for what must not be there yet: the file then lies beside it. Afterwards the file
    goes, and so do folders that were made for it and stayed empty, unless it ``leaves_mark``. Raises UserError where
    another command holds it.
    """
    file = path / LOCK if is_folder else path.with_name(f".{path.name}{LOCK}")
    missing = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    lock = FileLock(file, timeout=0)
    with told_in_one_line(f"{path} cannot be written", OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            who = holder(file) or f"another {command}"
            raise UserError(f"{path} is being written by {who}: wait for it, or choose another") from error
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
        for folder in missing:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def holder(file: Path) -> str | None:
    """Who holds a lock, as its file says; nothing where it does not yet."""
    try:
        who = read_object(file)
        command, pid, host, since = (str(who[name]) for name in ("command", "pid", "host", "since"))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return f"storydalle {command} (process {pid} on {host}, since {since})"


def is_lock(name: str) -> bool:
    """Tell if a file is a lock's, which is nobody's work."""
    return name.endswith(LOCK)
