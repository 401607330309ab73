"""The jobs of ``train -m`` as members of sweeps: planned, continued, and skipped where there is nothing to do."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from storydalle.commands.application import Command, Jobs, Request
from storydalle.commands.default_folders import told, value_of
from storydalle.commands.member_process import (
    end_with,
    is_forked,
    own_device,
    shared_threads,
    status_apart,
    visible_devices,
)
from storydalle.commands.recipes import check_recipes
from storydalle.commands.resuming import own_settings
from storydalle.commands.searching import Search, in_folder, search_of
from storydalle.commands.typed import quoted
from storydalle.files import locks
from storydalle.files.records import write_record
from storydalle.mistakes import Failure, Taken, UserError, first_few, told_of_disk
from storydalle.settings import filled
from storydalle.training import sweeps
from storydalle.training.runs import MEMORY, State, memory, state_of, write_failure
from storydalle.training.sweeps import Member, PlannedSweep
from storydalle.training.train_settings import EXPERIMENT, RunChoice, TrainSettings

PATIENCE = 60.0  # seconds to wait for another launch that plans the same sweep
MOST_NAMED = 3


class TrainingSweeps:
    """The jobs of ``train -m``, as members of sweeps; see ``request.Sweep``.

    ``prepare`` imports what a training needs, once for all members of a process; ``show`` prints the table of a folder.
    """

    def __init__(self, prepare: Callable[[], object], show: Callable[[Path], None]) -> None:
        self.prepare, self.show = prepare, show
        self.planned: list[PlannedSweep] = []
        self.single: set[Path] = set()  # experiments whose jobs are no sweep
        self.search: Search | None = None
        self.first = os.getpid()

    def plan(self, jobs: Jobs, requests: Sequence[Request]) -> list[list[str]]:
        """Write the plans of the sweeps that these jobs are, and return those to run, each with its folder.

        Every job's settings are checked first, so a mistake ends the sweep before any of it is written. A search is
        as many equal jobs as trials are left, and each of them takes the next one.
        """
        for request in requests:
            check_recipes(request)
        if any(filled(TrainSettings, request.settings).search for request in requests):
            self.search = search_of(jobs, requests)
            self.search.begin(filled(TrainSettings, requests[0].settings))
            number = self.search.num_left()
            print(f"{told_states(self.search.planned())}; {number} to run", flush=True)
            return [list(jobs[0])] * number
        pairs = list(zip(jobs, requests, strict=True))
        keys = [key for key in sweeps.swept_keys(jobs) if key != EXPERIMENT]
        left = []
        for experiment in dict.fromkeys(map(experiment_of, requests)):
            own = [pair for pair in pairs if experiment_of(pair[1]) == experiment]
            left += list(self.runs_of(experiment, own, keys))
        return left

    def runs_of(
        self, experiment: Path, pairs: Sequence[tuple[Sequence[str], Request]], keys: Sequence[str]
    ) -> Iterator[list[str]]:
        """The jobs of an experiment to run; those that are no sweep remain as they are."""
        requests = [request for _, request in pairs]
        names = [filled(RunChoice, request.settings).name for request in requests]
        folder = sweeps.sweep_folder(names, requests[0].choices.get("sweep"), keys)
        if folder is None:
            self.single.add(experiment)
            yield from (list(job) for job, _ in pairs)
            return
        values = [{key: value_of(request, key) for key in keys} for request in requests]
        asked = [
            Member(name, sweeps.settings_hash(request.settings), tuple(request.overrides))
            for name, request in zip(sweeps.proposed_names(names, values, folder, told), requests, strict=True)
        ]
        planned = PlannedSweep(experiment, folder, written(experiment, folder, asked))
        self.planned.append(planned)
        retry = filled(RunChoice, requests[0].settings).retry
        print(told_states(planned), flush=True)
        for member in planned.members:
            if reason := sweeps.why_skipped(experiment / member.name, retry):
                print(f"skipped: {reason}", flush=True)
            else:
                yield in_folder(member.name, member.overrides)

    def run(self, task: Command, request: Request, num_workers: int) -> None:
        """Train a member in a process of its own; where that is killed, the record of the member says so."""
        if self.search is None:
            self.run_member(task, request, num_workers)
            return
        with self.search.trial() as member:
            if member is not None:
                self.run_member(task, self.search.request(member), num_workers)

    def run_member(self, task: Command, request: Request, num_workers: int) -> None:
        if experiment_of(request) in self.single:
            task(request)
            return
        if num_workers and os.getpid() != self.first:
            end_with(self.first)
        if not is_forked():
            trained(task, request)
            return
        if num_workers:
            os.environ |= shared_threads(num_workers)
        self.prepare()
        with own_device(visible_devices() if num_workers and uses_devices(request) else []) as environment:

            def work() -> None:
                os.environ |= environment
                trained(task, request)

            status = status_apart(work)
        if status < 0:
            mark(request, killed_by(-status))

    def left(self, jobs: Jobs) -> list[list[str]]:
        if self.search is not None:
            return [list(job) for job in jobs[: self.search.num_left()]]
        ended = {
            name
            for each in self.planned
            for name, state in each.states().items()
            if state not in (None, State.INTERRUPTED)
        }
        return [list(job) for job in jobs if not any(f"name={quoted(name)}" in job for name in ended)]

    def end(self) -> None:
        """Print the table of each sweep. Raises Failure if a member failed."""
        failed = []
        if self.search is not None:
            self.planned = [self.search.planned()]
        for each in self.planned:
            states = each.states()
            failed += [str(each.experiment / name) for name, state in states.items() if state is State.FAILED]
            if any(states.values()):
                self.show(each.experiment / each.folder)
            print(told_states(each), flush=True)
        if self.search is not None and (reason := self.search.why_hopeless()):
            raise UserError(reason)
        if failed:
            raise Failure(f"failed: {first_few(failed, MOST_NAMED)}; retry=true tries again")


def experiment_of(request: Request) -> Path:
    """The folder of the runs of an experiment."""
    return filled(RunChoice, request.settings).runs / request.choices[EXPERIMENT]


def told_states(planned: PlannedSweep) -> str:
    experiment, folder, members = planned
    numbers = [f"{len(members)} runs", *sweeps.summary(experiment, members)]
    return f"sweep {experiment / folder}: {', '.join(numbers)}"


def written(experiment: Path, folder: str, asked: Sequence[Member]) -> tuple[Member, ...]:
    """The members as the sweep's plan has them, which is written with those that are new."""
    path = experiment / folder
    with locks.held(path, "train -m", patience=PATIENCE):
        before = sweeps.read_plan(path)
        members = sweeps.continued(before, asked, experiment)
        sweeps.write_plan(path, sweeps.with_added(before, members))
    return members


# ------------------------------------------------------------------------------------------------ as a member


def uses_devices(request: Request) -> bool:
    return filled(TrainSettings, request.settings).trainer.get("accelerator") != "cpu"


def trained(task: Command, request: Request) -> None:
    """Train a member; an error goes into its record, and ends no other one."""
    try:
        task(request)
    except Taken as error:
        print(f"skipped: {error}", flush=True)
    except Exception as error:
        if not isinstance(error, UserError | Failure) and told_of_disk(error) is None:
            traceback.print_exc()
        mark(request, error)


def killed_by(number: int) -> Failure:
    return Failure(f"killed by {signal.Signals(number).name}; the system does so if memory runs out")


def mark(request: Request, error: Exception) -> None:
    """Tell that a member failed and record it, unless it did so itself or another command has its folder by now."""
    folder = experiment_of(request) / str(filled(RunChoice, request.settings).name)
    print(f"failed: {folder}: {told_of_disk(error) or error}", file=sys.stderr, flush=True)
    with suppress(Taken, OSError), locks.held(folder, "train -m"):
        if state_of(folder) not in (None, State.INTERRUPTED):
            return
        kept = memory(folder)
        if "settings" not in kept:
            write_record(folder / MEMORY, {**kept, "settings": sweeps.settings_hash(request.settings)})
        seed = filled(RunChoice, request.settings).seed
        write_failure(folder, {"config": kept.get("config"), "seeds": [seed]}, error)


def check_member(request: Request, folder: Path) -> None:
    """Refuse a member of a sweep that has failed since it was planned, or whose folder another run has taken."""
    if not request.is_member:
        return
    if reason := sweeps.why_skipped(folder, filled(RunChoice, request.settings).retry):
        raise Taken(reason)
    begun = memory(folder).get("settings")  # none in a run of an earlier version
    if begun is not None and begun != sweeps.settings_hash(request.settings):
        raise UserError(
            f"{folder} has become a run of other settings: start the sweep again, with a folder for this one"
        )


def hash_of_run(request: Request, folder: Path, tree: Mapping[str, object]) -> str:
    """The hash of the settings of a resumed run: as it was, unless the command line changed what it depends on."""
    if request.is_member:
        return sweeps.settings_hash(request.settings)
    kept, now = memory(folder).get("settings"), sweeps.settings_hash(tree)
    return kept if kept and sweeps.settings_hash(own_settings(folder)) == now else now
