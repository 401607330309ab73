"""The jobs of ``train -m`` as members of sweeps: planned, continued, and skipped where there is nothing to do."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from storydalle.commands.application import Jobs, Request
from storydalle.commands.default_folders import told, value_of
from storydalle.commands.resuming import own_settings
from storydalle.commands.typed import quoted
from storydalle.files import locks
from storydalle.files.dotted import key_of
from storydalle.mistakes import Taken, UserError
from storydalle.settings import filled
from storydalle.training import sweeps
from storydalle.training.runs import memory
from storydalle.training.sweeps import Member
from storydalle.training.train_settings import RunChoice, TrainSettings

PATIENCE = 60.0  # seconds to wait for another launch that plans the same sweep
EXPERIMENT = "experiment"


def planned(jobs: Jobs, requests: Sequence[Request]) -> list[list[str]]:
    """Write the plans of the sweeps that these jobs are, and return those to run, each with its folder.

    Every job's settings are checked first, so a mistake ends the sweep before any of it is written.
    """
    for request in requests:
        filled(TrainSettings, request.settings)
    pairs = list(zip(jobs, requests, strict=True))
    keys = [key for key in sweeps.swept_keys(jobs) if key != EXPERIMENT]
    left = []
    for experiment in dict.fromkeys(map(experiment_of, requests)):
        own = [pair for pair in pairs if experiment_of(pair[1]) == experiment]
        left += list(runs_of(experiment, own, keys))
    return left


def experiment_of(request: Request) -> Path:
    """The folder of the runs of an experiment."""
    return filled(RunChoice, request.settings).runs / request.choices[EXPERIMENT]


def runs_of(
    experiment: Path, pairs: Sequence[tuple[Sequence[str], Request]], keys: Sequence[str]
) -> Iterator[list[str]]:
    """The jobs of an experiment to run; those that are no sweep remain as they are."""
    requests = [request for _, request in pairs]
    names = [filled(RunChoice, request.settings).name for request in requests]
    folder = sweeps.sweep_folder(names, requests[0].choices.get("sweep"), keys)
    if folder is None:
        yield from (list(job) for job, _ in pairs)
        return
    values = [{key: value_of(request, key) for key in keys} for request in requests]
    asked = [
        Member(name, sweeps.settings_hash(request.settings), tuple(request.overrides))
        for name, request in zip(sweeps.proposed_names(names, values, folder, told), requests, strict=True)
    ]
    members = written(experiment, folder, asked)
    retry = filled(RunChoice, requests[0].settings).retry
    print(f"sweep {experiment / folder}: {len(members)} runs, {', '.join(sweeps.summary(experiment, members))}")
    for member in members:
        if reason := sweeps.why_skipped(experiment / member.name, retry):
            print(f"skipped: {reason}")
        else:
            yield in_folder(member)


def written(experiment: Path, folder: str, asked: Sequence[Member]) -> tuple[Member, ...]:
    """The members as the sweep's plan has them, which is written with those that are new."""
    path = experiment / folder
    with locks.held(path, "train -m", patience=PATIENCE):
        before = sweeps.read_plan(path)
        members = sweeps.continued(before, asked, experiment)
        sweeps.write_plan(path, sweeps.with_added(before, members))
    return members


def in_folder(member: Member) -> list[str]:
    """The overrides of a member's run, which begins or goes on in its own folder."""
    kept = [each for each in member.overrides if key_of(each) not in ("name", "resume")]
    return [*kept, f"name={quoted(member.name)}", "resume=true"]


# ------------------------------------------------------------------------------------------------ as a member


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
