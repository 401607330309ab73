"""Sweeps of joblib, killed at any moment and continued by the same command, or launched twice: part of ``make kills``.

The members train nothing, and so start no torch: each counts, in a file of its own, the steps that its processes do. A
member that runs twice is seen there, and one that is lost; the folder and the table at the end must be those of a sweep
that nobody killed. ``python -m tests.sweep_kills --kills 200`` kills; ``--launches 100`` starts the same sweep twice at
once.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from random import Random

from storydalle.commands import application, members
from storydalle.commands.application import Request
from storydalle.files.locks import held
from storydalle.files.reading import read_object
from storydalle.files.records import metrics_record, write_record
from storydalle.files.whole import write_text
from storydalle.mistakes import Failure
from storydalle.reporting.compared_runs import Report
from storydalle.settings import filled
from storydalle.training.runs import CONFIG, MEMORY, METRICS, check_unfinished, folder_for_run
from storydalle.training.sweeps import settings_hash
from storydalle.training.train_settings import RunChoice
from tests.killing import LOG, Writes, ended, kill_group, living, outlived, start

EXPERIMENT = "toon/image_tokenizer"
SWEEP = Path("runs") / EXPERIMENT / "by-seed"
MEMBERS, STEPS, SAVE_EVERY, SECONDS = 3, 9, 3, 0.03  # of a step
COMMAND = ["-m", f"experiment={EXPERIMENT}", f"seeds={MEMBERS}", "retry=true", "hydra/launcher=two_jobs"]
CHECKPOINT, COUNTS = "checkpoint.json", "counts"
KILLS_A_ROUND, PATIENCE = 5, 300.0
WRITES_OF_A_MEMBER, WRITES_OF_A_LAUNCHER, MOST_FAULTS = 40, 8, 20
STRUCK = "(a kill)"  # in the log
WRITE = "KILL_AT_WRITE"  # of a member: its name, the number of the write, and who is killed
VICTIMS = ("all", "launcher", "worker", "member")
KILLS, INSIDE, LAUNCHES = "kills", "inside a write", "two launches at once"
TWICE, LOST, DIFFERENT, OTHER = "run twice", "lost", "different at the end", "other faults"


# ------------------------------------------------------------------------------------------------ a sweep that counts


def counted(request: Request) -> None:
    """In place of a training: the same folder and lock, and steps, of which every third is followed by a checkpoint."""
    choice = filled(RunChoice, request.settings)
    experiment, name = choice.runs / request.choices["experiment"], Path(str(choice.name)).name
    listen(name)
    with folder_for_run(experiment, choice.name, choice.resume) as folder, held(folder, "train"):
        check_unfinished(folder)
        members.check_member(request, folder)
        write_record(folder / MEMORY, {"settings": settings_hash(request.settings)})
        write_text(folder / CONFIG, f"seed: {choice.seed}\n")
        (folder / METRICS).unlink(missing_ok=True)
        path = folder / CHECKPOINT
        kept = read_object(path) if path.exists() else {"step": 0, "state": f"{choice.seed}"}
        step, state = int(str(kept["step"])), str(kept["state"])
        while step < STEPS:
            step, state = step + 1, hashlib.sha256(f"{state} {step}".encode()).hexdigest()
            count(name, step)
            time.sleep(SECONDS)
            if step % SAVE_EVERY == 0:
                write_record(path, {"step": step, "state": state})
        write_record(folder / METRICS, record(choice.seed, state))


def record(seed: int, state: str) -> dict[str, object]:
    made = metrics_record(
        {"val/loss": int(state[:8], 16) / 2**32},
        protocol={"kind": "training"},
        n={"steps": STEPS},
        seeds=[seed],
        device="cpu",
        wall_seconds=0,
        config="counted",
    )
    return made | {"dirty": None}  # whoever edits a file meanwhile


def count(name: str, step: int) -> None:
    Path(COUNTS).mkdir(exist_ok=True)
    file = os.open(Path(COUNTS) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{os.getpid()} {step}\n".encode())
    os.close(file)


def listen(name: str) -> None:
    """Die at the chosen write, if it is one of this member."""
    member, number, victim = os.environ.get(WRITE, "- 0 -").split()
    if member == name:
        Writes(Path.cwd(), int(number), partial(strike, victim))


def strike(victim: str) -> None:
    """Kill this process alone or with the whole sweep, and leave a line in the log."""
    os.write(1, f"{STRUCK}\n".encode())
    if victim == "all":
        kill_group()
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(*_: object) -> None:
    pass


def sweep() -> int:
    """The sweep as a command: its exit status."""
    try:
        application.run("train", counted, COMMAND, sweeps=lambda: members.TrainingSweeps(nothing, nothing))
    except Failure as error:
        print(error)
        return 1
    return 0


# ------------------------------------------------------------------------------------------------ what is there

Fault = tuple[str, str]


def faults_of(name: str, lines: Sequence[str]) -> Iterator[Fault]:
    """Faults in the steps of a member, of which each line tells the process: the next one starts at a checkpoint."""
    done = 0
    runs = [(pid, [int(line.split()[1]) for line in own]) for pid, own in groupby(lines, lambda line: line.split()[0])]
    if len({pid for pid, _ in runs}) < len(runs):
        yield TWICE, f"{name} ran in two processes at once"
    for _, steps in runs:
        begin = steps[0] - 1
        saved = done - done % SAVE_EVERY
        allowed = {saved, saved - SAVE_EVERY} if done == saved > 0 else {saved}  # killed before it could save
        if begin not in allowed:
            yield TWICE if begin < done else LOST, f"{name} did step {begin + 1} after step {done}"
        done = steps[-1]
        if steps != list(range(begin + 1, done + 1)):
            yield TWICE, f"{name} did steps {steps}"
    if done != STEPS:
        yield LOST, f"{name} ended at step {done}"


def broken(folder: Path) -> Iterator[Fault]:
    """Files with their final names that are not whole."""
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            yield OTHER, f"{path.relative_to(folder)} is not whole"


def contents(folder: Path) -> dict[str, str]:
    """Table and files, which another sweep must have, too."""
    paths = (path for path in (folder / SWEEP).rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in paths}
    return files | {"the table": Report.of(folder / SWEEP).text()}


def faults_at_the_end(folder: Path, whole: Mapping[str, str]) -> Iterator[Fault]:
    for name in (f"seed{seed}" for seed in range(MEMBERS)):
        path = folder / COUNTS / name
        yield from faults_of(name, path.read_text().splitlines() if path.exists() else [])
    own = contents(folder)
    for name in sorted(own.keys() | whole.keys()):
        if own.get(name) != whole.get(name):
            yield DIFFERENT, f"{name} is {'different' if name in own else 'missing'}"


# ------------------------------------------------------------------------------------------------ many kills


class Sweeps:
    """Rounds in folders of their own, each compared with one that nobody disturbed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, Random(seed)
        self.counts, self.rounds = Counter[str](), 0
        self.groups: list[int] = []  # of processes
        self.told: list[str] = []
        begin = time.monotonic()
        (whole := folder / "whole").mkdir(parents=True)
        if ended(start(sweep, whole), PATIENCE) != 0:
            raise RuntimeError((whole / LOG).read_text())
        self.seconds = time.monotonic() - begin
        self.whole = contents(whole)

    def round(self, disturb: Callable[[Path], Iterator[Fault]]) -> None:
        """Disturb a sweep, and see that the same command ends it as if nobody had."""
        (folder := self.folder / f"round-{self.rounds}").mkdir()
        self.rounds += 1
        faults = list(disturb(folder))
        for group in self.groups:
            if left := outlived(group, 10):
                faults.append((OTHER, f"{len(left)} processes outlived their launcher"))
                os.killpg(group, signal.SIGKILL)
        self.groups.clear()
        faults += faults_at_the_end(folder, self.whole)
        self.counts.update({kind for kind, _ in faults})
        self.told += [f"{folder.name}: {told}" for _, told in faults]
        print(f"{folder.name}: {self.counts[KILLS]} kills", *(told for _, told in faults), sep="; ", flush=True)
        if not faults:
            shutil.rmtree(folder)

    def begin(self, folder: Path, work: Callable[[], int] = sweep) -> int:
        self.groups.append(start(work, folder))
        return self.groups[-1]

    def kills(self, folder: Path, most: int) -> Iterator[Fault]:
        """Start and kill, until a sweep ends by itself."""
        for _ in range(most):
            victim, is_inside = self.random.choice(VICTIMS), self.random.random() < 0.5
            struck = (folder / LOG).read_text().count(STRUCK) if (folder / LOG).exists() else 0
            if is_inside and victim != "worker":
                status = ended(self.begin(folder, self.dying(folder, victim)), PATIENCE)
            else:
                is_inside, status = False, self.kill_at_some_moment(folder, victim)
            number = (folder / LOG).read_text().count(STRUCK) - struck
            self.counts.update({KILLS: number, victim: number, INSIDE: number * is_inside})
            yield from broken(folder)
            if status == 0:
                return
        if (status := ended(self.begin(folder), PATIENCE)) != 0:
            yield OTHER, f"the last sweep ended with {status}"

    def dying(self, folder: Path, victim: str) -> Callable[[], int]:
        """A sweep in which somebody dies inside a write."""
        is_member = victim == "member" or (victim == "all" and self.random.random() < 0.7)
        member, number = f"seed{self.random.randrange(MEMBERS)}", self.random.randint(1, WRITES_OF_A_MEMBER)

        def work() -> int:
            if is_member:
                os.environ[WRITE] = f"{member} {number} {victim}"
            else:
                Writes(folder, 1 + number % WRITES_OF_A_LAUNCHER, partial(strike, victim))
            return sweep()

        return work

    def kill_at_some_moment(self, folder: Path, victim: str) -> int | None:
        pid = self.begin(folder)
        status = ended(pid, self.random.uniform(0.1, 1.0) * self.seconds)
        if status is not None:
            return status
        processes = living(pid)
        running = [member for member in last_processes(folder) if member in processes]
        found = {"all": [pid], "launcher": [pid], "member": running, "worker": [processes[each] for each in running]}
        if not (chosen := found[victim]):
            return ended(pid, PATIENCE)
        with suppress(ProcessLookupError), (folder / LOG).open("a") as log:
            (os.killpg if victim == "all" else os.kill)(self.random.choice(chosen), signal.SIGKILL)
            log.write(f"{STRUCK}\n")
        return ended(pid, PATIENCE)

    def two_launches(self, folder: Path) -> Iterator[Fault]:
        """The same sweep twice at once."""
        pids = [self.begin(folder)]
        time.sleep(self.random.choice([0, self.random.uniform(0, self.seconds)]))
        pids.append(self.begin(folder))
        self.counts[LAUNCHES] += 1
        for pid in pids:
            if (status := ended(pid, PATIENCE)) != 0:
                yield OTHER, f"a launch ended with {status}"

    def table(self) -> str:
        names = (KILLS, *VICTIMS, INSIDE, LAUNCHES, TWICE, LOST, DIFFERENT, OTHER)
        return "\n".join(
            f"{name:22}{self.counts[name]:6}" for name in names if name not in VICTIMS or self.counts[KILLS]
        )


def last_processes(folder: Path) -> list[int]:
    """Those that have run the members last."""
    lines = [path.read_text().splitlines() for path in (folder / COUNTS).glob("*")]
    return [int(own[-1].split()[0]) for own in lines if own]


def main(kills: int, launches: int, seed: int, folder: Path) -> int:
    begin = time.monotonic()
    sweeps = Sweeps(folder, seed)
    while sweeps.counts[KILLS] < kills and len(sweeps.told) < MOST_FAULTS:
        sweeps.round(partial(sweeps.kills, most=min(KILLS_A_ROUND, kills - sweeps.counts[KILLS])))
    while sweeps.counts[LAUNCHES] < launches and len(sweeps.told) < MOST_FAULTS:
        sweeps.round(sweeps.two_launches)
    print(sweeps.table(), f"{sweeps.rounds} rounds in {time.monotonic() - begin:.0f} s", sep="\n")
    return int(bool(sweeps.told))


if __name__ == "__main__":
    from tests import sweep_kills  # by its name, so that workers find its functions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--launches", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for what is written, kept where something went wrong")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(sweep_kills.main(given.kills, given.launches, given.seed, given.keep or Path(temporary)))
