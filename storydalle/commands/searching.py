"""A search (``train -m sweep=search``): its trials are the members of one sweep, and get their values as they begin."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storydalle.commands.recipes import check_recipes, composed_training
from storydalle.commands.request import Jobs, Request
from storydalle.commands.typed import quoted
from storydalle.files import locks
from storydalle.files.dotted import key_of
from storydalle.mistakes import Taken, UserError, nearest
from storydalle.settings import filled, mapping
from storydalle.training import studies, sweeps
from storydalle.training.runs import State, state_of
from storydalle.training.search_settings import METRIC, Choice, SearchSettings
from storydalle.training.sweeps import Member, PlannedSweep
from storydalle.training.train_settings import TrainSettings

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

LAUNCHER = "hydra/launcher"
SHORTER: Any = object()  # in place of an end, of an axis that has no more
ON_THIS_MACHINE = ("slurm_here", "submitit_local")


@dataclass(frozen=True)
class Search:
    """A search, as a sweep whose members are chosen one after the other."""

    experiment: Path
    folder: str  # of the sweep, below the experiment's
    overrides: tuple[str, ...]  # of every trial
    settings: Mapping[str, object]  # of a training, without a trial's values
    search: SearchSettings

    @property
    def path(self) -> Path:
        return self.experiment / self.folder

    def members(self) -> tuple[Member, ...]:
        return sweeps.read_plan(self.path)

    def planned(self) -> PlannedSweep:
        """The members that were chosen by now."""
        return PlannedSweep(self.experiment, self.folder, self.members())

    def begin(self, choice: TrainSettings) -> None:
        """Make the study, or open it again. Raises UserError if it asks something else."""
        studies.check_installed()
        with locks.held(self.path, "train -m", patience=studies.PATIENCE):
            studies.begin(self.path, self.search, studies.begun_with(self.search, self.settings), choice.new_study)
        with self.alone() as study:
            if choice.retry:
                studies.try_failed_again(study)
            self.write_plan(study, self.members())

    @contextmanager
    def alone(self) -> Iterator["optuna.Study"]:
        """The study, which knows of all runs that have ended, while no other process writes into it."""
        with locks.held(self.path, "train -m", patience=studies.PATIENCE), studies.opened(self.path) as study:
            studies.settle(study, self.experiment, self.search.metric)
            yield study

    def num_left(self) -> int:
        """How many trials are to begin or to go on."""
        with self.alone() as study:
            return max(0, self.search.trials - len(studies.asked(study))) + len(studies.unfinished(study))

    @contextmanager
    def trial(self) -> Iterator[Member | None]:
        """The next trial, which nobody else runs meanwhile; None if none is left. Then the study is told of its end."""
        with ExitStack() as held:
            with self.alone() as study:
                member = self.next_trial(study, held)
            yield member
        with self.alone():
            pass

    def next_trial(self, study: "optuna.Study", held: ExitStack) -> Member | None:
        """One that was interrupted or is to be tried again, else a new one.

        A new one whose settings a member has already is that member, and so may be finished before it begins.
        """
        while (member := self.unfinished(study, held)) is None:
            if len(studies.asked(study)) >= self.search.trials or self.why_hopeless() is not None:
                break
            self.ask(study)
            studies.settle(study, self.experiment, self.search.metric)
        return member

    def unfinished(self, study: "optuna.Study", held: ExitStack) -> Member | None:
        """The member of a trial that nobody runs."""
        for trial in studies.unfinished(study):
            run = self.experiment / trial.user_attrs[studies.MEMBER]
            with suppress(Taken), ExitStack() as own:
                studies.claim(run, own)
                if studies.waits(trial):
                    studies.take_from_queue(study, trial)
                elif state_of(run) not in (None, State.INTERRUPTED):
                    continue  # it ended a moment ago, and whoever ran it is about to tell the study
                held.enter_context(own.pop_all())
                return self.planned_member(study, trial)
        return None

    def planned_member(self, study: "optuna.Study", trial: "FrozenTrial") -> Member:
        """A trial's member, as this launch runs it; the one that chose it may have been killed before it had a plan."""
        name, values = trial.user_attrs[studies.MEMBER], studies.first_of(study, trial).params
        planned = {member.name: member for member in self.members()}
        if name not in planned:
            planned[name] = self.member(name, values)
            self.write_plan(study, tuple(planned.values()))
        return replace(planned[name], overrides=tuple(self.overrides_with(values)))

    def write_plan(self, study: "optuna.Study", members: Sequence[Member]) -> None:
        sweeps.write_plan(self.path, members, max(0, self.search.trials - len(studies.asked(study))))

    def ask(self, study: "optuna.Study") -> None:
        """Add a trial to the study. It counts from when it has its member's name: one that is killed before is lost."""
        number = len(studies.asked(study))
        study.sampler = studies.sampler_of(self.search, number)
        trial = study.ask(studies.distributions(self.search.axes(self.settings)))
        again = "" if study.study_name == studies.FIRST else f"study{study.study_name}-"
        proposed = self.member(f"{self.folder}/{again}trial-{number:03}", trial.params)
        own = {each.user_attrs[studies.MEMBER] for each in studies.asked(study)}
        # What was cut short for another study has to be trained for this one.
        members = [each for each in self.members() if each.name in own or not self.was_cut_short(each)]
        (member,) = sweeps.continued(members, [proposed], self.experiment)
        trial.set_user_attr(studies.MEMBER, member.name)
        self.write_plan(study, sweeps.with_added(self.members(), [member]))

    def was_cut_short(self, member: Member) -> bool:
        return state_of(self.experiment / member.name) in (State.PRUNED, State.FAILED)

    def member(self, name: str, values: Mapping[str, Choice]) -> Member:
        overrides = tuple(self.overrides_with(values))
        return Member(name, sweeps.settings_hash(composed_training(*in_folder(name, overrides)).settings), overrides)

    def request(self, member: Member) -> Request:
        """The settings of a member as it is run."""
        return composed_training(*in_folder(member.name, member.overrides))._replace(is_member=True)

    def overrides_with(self, values: Mapping[str, Choice]) -> list[str]:
        return [*self.overrides, *(f"{key}={as_override(value)}" for key, value in values.items())]

    def why_hopeless(self) -> str | None:
        """The error of a run that does not log the metric: all others would end as it did."""
        runs = [self.experiment / member.name for member in self.members()]
        errors = (sweeps.last_error(run) for run in runs if state_of(run) is State.FAILED)
        return next((error for error in errors if error.startswith(f"{METRIC}{self.search.metric} ")), None)


def in_folder(name: str, overrides: Iterable[str]) -> list[str]:
    """The overrides of a member's run, which begins or goes on in its own folder."""
    kept = [each for each in overrides if key_of(each) not in ("name", "resume")]
    return [*kept, f"name={quoted(name)}", "resume=true"]


def as_override(value: Choice) -> str:
    """A value in Hydra's grammar."""
    return quoted(value) if isinstance(value, str) else json.dumps(value)


# ------------------------------------------------------------------------------------------------ before it begins


def search_of(jobs: Jobs, requests: Sequence[Request]) -> Search:
    """The search that a command line asks for. Raises UserError for all that would be wrong in one of its trials."""
    request, settings = requests[0], filled(TrainSettings, requests[0].settings)
    assert settings.search is not None
    if len(jobs) > 1:
        several = ", ".join(sweeps.swept_keys(jobs))
        raise UserError(f"a search chooses its values itself: give one {several}, or put it into search.space")
    known = [field.name for field in fields(SearchSettings)]
    for key in mapping("search", request.settings["search"]).keys() - set(known):
        raise UserError(f"a search has no {key!r}; {nearest(key, known)}")
    check_place(request)
    studies.check_installed()
    studies.sampler_of(settings.search, 0), studies.pruner_of(settings.search)
    overrides = tuple(each for each in request.overrides if key_of(each) not in ("name", "resume"))
    folder = settings.name or request.choices.get("sweep") or "search"
    experiment = settings.runs / request.choices["experiment"]
    found = Search(experiment, folder, overrides, request.settings, settings.search)
    check_space(found, request)
    return found


def check_place(request: Request) -> None:
    """Refuse launchers that other machines would have to share a study by, and processes that torchrun started."""
    launcher = request.choices.get(LAUNCHER, "")
    if "slurm" in launcher and launcher not in ON_THIS_MACHINE:
        raise UserError(
            f"{LAUNCHER}={launcher}: a search keeps its study in SQLite, which machines cannot share safely; run the "
            f"command in one job with {LAUNCHER}=two_jobs"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("a search starts the processes of its trainings itself: leave torchrun out")


def check_space(found: Search, request: Request) -> None:
    """Compose and check settings that together have the ends of each axis, and each of its choices."""
    axes = found.search.axes(found.settings)
    for key in axes:
        if key.lstrip("+") in request.given:
            raise UserError(f"{key} is given, and in search.space: leave out one of them")
    for values in zip_longest(*(axis.ends for axis in axes.values()), fillvalue=SHORTER):
        chosen = {key: ends for key, ends in zip(axes, values, strict=True) if ends is not SHORTER}
        composed = composed_training(*found.overrides_with(chosen))
        filled(TrainSettings, composed.settings)
        check_recipes(composed)
