"""The state of every run of a sweep while it trains, at a glance: ``storydalle report watch=true``.

All of it follows from files that runs write anyway: the sweep's plan, and of each run its lock, its log and its record.
Nothing is locked or changed, so a watched sweep trains as one that nobody watches.
"""

import csv
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from storydalle.files import locks
from storydalle.mistakes import UserError
from storydalle.reporting.report_costs import told_time
from storydalle.reporting.run_folders import run_folders
from storydalle.training.runs import DONE, LOGS, MEMORY, State, memory, state_of
from storydalle.training.sweeps import PLAN, last_error, num_to_come, read_plan

SECONDS = 2.0  # between two looks
PATIENCE = 30.0  # seconds for which nothing may run before the watch ends: a launch goes from one run to the next
TAIL = 2**13  # bytes at the end of a log


class Status(StrEnum):
    """The states of a run, in the order of a summary."""

    RUNNING, FINISHED, PRUNED, FAILED = "running", "finished", "pruned", "failed"
    INTERRUPTED, WAITING = "interrupted", "waiting"


class WatchedRun(NamedTuple):
    """A run as it is shown: its state, and more words about it."""

    name: str
    status: Status
    words: str = ""


# ------------------------------------------------------------------------------------------------ which runs


def members(folder: Path) -> dict[str, Path]:
    """The folders of all runs below a folder, by the names that are shown: those of plans first, then others."""
    planned = [run for path in sorted(folder.rglob(PLAN)) for run in planned_runs(path.parent)]
    found = dict.fromkeys([*planned, *run_folders(folder)])
    return {run.relative_to(folder).as_posix() if run.is_relative_to(folder) else run.as_posix(): run for run in found}


def planned_runs(sweep: Path) -> list[Path]:
    """The folders of a sweep's members, whose names begin at the folder of the experiment, above that of the sweep."""
    names = [Path(member.name) for member in read_plan(sweep)]
    above = [sweep, *sweep.parents]
    experiments = [each for each in above if all(name.is_relative_to(sweep.relative_to(each)) for name in names)]
    to_come = [sweep / f"trial-{number:03}" for number in range(len(names), len(names) + num_to_come(sweep))]
    return [*(experiments[-1] / name for name in names), *to_come]


# ------------------------------------------------------------------------------------------------ one run


def watched(name: str, run: Path) -> WatchedRun:
    """The state of a run and, by that, who runs it and how long it will take, how far it came, or its error."""
    state, who = state_of(run), locks.living_holder(run)
    if state in DONE:
        return WatchedRun(name, Status.PRUNED if state is State.PRUNED else Status.FINISHED, progress(run))
    if who is not None:
        return WatchedRun(name, Status.RUNNING, ", ".join(filter(None, [progress(run), time_left(run), f"by {who}"])))
    if state is State.FAILED:
        return WatchedRun(name, Status.FAILED, last_error(run))
    return WatchedRun(name, Status.WAITING) if state is None else WatchedRun(name, Status.INTERRUPTED, progress(run))


def progress(run: Path) -> str:
    """``step 1200 of 6000``, as far as it is known."""
    steps, last = steps_logged(run), num_steps(run)
    if steps is None:
        return ""
    return f"step {steps}" + (f" of {last}" if last else "")


def num_steps(run: Path) -> int | None:
    """The number of steps that a run was started for; None for one of an earlier version."""
    try:
        number = memory(run).get("max_steps")
    except UserError:
        return None
    return number if isinstance(number, int) else None


def steps_logged(run: Path) -> int | None:
    """The steps until the last row of a run's log; None if there is none yet."""
    path = newest_log(run)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            header = file.readline()
            file.seek(max(len(header), path.stat().st_size - TAIL))
            rows = file.read().decode(errors="replace").split("\n")[:-1]  # a row without an end is being written
    except OSError:
        return None
    columns = next(csv.reader([header.decode(errors="replace")]), [])
    place = columns.index("step") if "step" in columns else len(columns)
    for row in csv.reader(reversed(rows)):
        if len(row) == len(columns) > place and row[place].isdecimal():
            return int(row[place]) + 1
    return None


def newest_log(run: Path) -> Path | None:
    return max(run.glob(LOGS), key=lambda path: path.stat().st_mtime, default=None)


def time_left(run: Path) -> str:
    """``12 min left``, by the steps since the run was started last; empty as long as nothing tells it."""
    log, steps, last = newest_log(run), steps_logged(run), num_steps(run)
    if log is None or steps is None or last is None:
        return ""
    start = memory(run).get("start")
    done = steps - (start if isinstance(start, int) else 0)
    seconds = log.stat().st_mtime - (run / MEMORY).stat().st_mtime
    return f"{told_time(seconds / done * (last - steps))} left" if done > 0 and seconds > 0 else ""


# ------------------------------------------------------------------------------------------------ all runs


def watch(folder: Path, every: float = SECONDS, patience: float = PATIENCE) -> None:
    """Show all runs of a folder until there is nothing left to run, or until Ctrl-C.

    On a terminal the picture is drawn again and again. Elsewhere it is printed once, and then one line for each run
    whose state changes: a log of some hours stays short.
    """
    show = Screen(folder) if sys.stdout.isatty() else Log(folder)
    idle = 0.0
    try:
        while True:
            found = [watched(name, run) for name, run in members(folder).items()]
            if not found:
                raise UserError(f"no run and no {PLAN} under {folder}: give the folder of a sweep or of an experiment")
            show.update(found)
            states = {each.status for each in found}
            idle = 0.0 if Status.RUNNING in states else idle + every
            if idle > patience or not states & {Status.RUNNING, Status.WAITING, Status.INTERRUPTED}:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        return
    if idle > patience:
        print("nothing is running: the command that began the sweep continues it")


def summary(folder: Path, found: Iterable[WatchedRun]) -> str:
    """``runs/toon/by-seed: 5 runs, 1 running, 2 finished, 2 waiting``."""
    numbers = Counter(each.status for each in found)
    told = [f"{numbers[status]} {status}" for status in Status if numbers[status]]
    return f"{folder}: {numbers.total()} run{'s' if numbers.total() != 1 else ''}: {', '.join(told)}"


def lines(found: Sequence[WatchedRun]) -> Iterator[str]:
    width = max(len(each.name) for each in found)
    for each in found:
        yield f"{each.name:<{width}}  {each.status:<11}  {' '.join(each.words.split())}".rstrip()


class Screen:
    """Draws on a terminal, each time over what it drew before."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.height = folder, 0

    def update(self, found: Sequence[WatchedRun]) -> None:
        size = shutil.get_terminal_size()
        order = list(Status)
        # Where not all fit, those that someone may have to look after come first.
        shown = found if len(found) < size.lines - 1 else sorted(found, key=lambda each: order.index(each.status))
        kept = list(lines(shown))[: size.lines - 3]
        more = [f"... and {len(found) - len(kept)} more"] if len(kept) < len(found) else []
        text = [line[: size.columns - 1] for line in [summary(self.folder, found), *kept, *more]]
        back = f"\x1b[{self.height}F\x1b[J" if self.height else ""
        print(back + "\n".join(text), flush=True)
        self.height = len(text)


class Log:
    """Writes all runs once, and then a line for each change of a state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before: dict[str, Status] = {}

    def update(self, found: Sequence[WatchedRun]) -> None:
        changed = [each for each in found if self.before.get(each.name) is not each.status]
        if not changed:
            return
        print(*lines(changed), summary(self.folder, found), sep="\n", flush=True)
        self.before = {each.name: each.status for each in found}
