"""A sweep's jobs, chosen before the first one starts, and started again: hooks into Hydra's sweeper, which has none."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

from storydalle.commands.launchers import fit_workers
from storydalle.commands.request import Jobs, Sweep
from storydalle.files.dotted import key_of
from storydalle.training.search_settings import told_of_search
from storydalle.training.sweeps import swept_keys

Chooser = Callable[[Any, Jobs], list[list[str]]]  # of the sweeper and of all jobs: the jobs that are to run
MOST_STARTS = 3


class OnlyShown(Exception):
    """Ends a sweep of which only the settings were asked for."""


@contextmanager
def jobs_chosen(choose: Chooser | None, sweep: Sweep | None, sweepers: Callable[[], Any]) -> Iterator[None]:
    """Let ``choose`` choose the jobs of Hydra's sweeper, before it writes anything; None: all run.

    If a process of its launcher is killed, those jobs of ``sweep`` that are left start again. ``sweepers`` returns the
    class of sweepers.
    """
    if choose is None:
        yield
        return
    kind = sweepers()
    set_up, jobs_of = kind.setup, kind.split_arguments

    def set_up_with_choice(sweeper: Any, **context: Any) -> None:
        set_up(sweeper, **context)

        def chosen(overrides: list[Any], batch_size: int | None) -> list[list[list[str]]]:
            (jobs,) = jobs_of(overrides, None)
            left = choose(sweeper, jobs)
            return list(sweeper.split_overrides_to_chunks(left, batch_size)) if left else []

        sweeper.split_arguments = chosen
        if sweep is not None:
            sweeper.launcher.launch = surviving(sweeper.launcher, sweep)
        sweeper.validate_batch_is_legal = lambda _: None  # each was composed for the choice

    kind.setup = set_up_with_choice
    try:
        with suppress(OnlyShown):
            yield
    finally:
        kind.setup = set_up


def surviving(launcher: Any, sweep: Sweep) -> Callable[..., Any]:
    """A launcher's ``launch`` that starts jobs again after the end of their process, and tells of a lost job."""
    launch = launcher.launch

    def launched(jobs: Jobs, initial_job_idx: int) -> Any:
        for _ in range(MOST_STARTS):
            fit_workers(launcher, len(jobs))
            try:
                return launch(jobs, initial_job_idx=initial_job_idx)
            except BrokenProcessPool:
                jobs = sweep.left(jobs)
                print(f"a process of the sweep was killed: {len(jobs)} runs go on", flush=True)
            except RuntimeError as error:
                if not type(error).__module__.startswith("submitit"):
                    raise
                print(f"a job of the sweep was lost: {' '.join(str(error).split())[:300]}", flush=True)
                return []
            if not jobs:
                break
        return []

    return launched


def told_of_jobs(jobs: Jobs, settings: Mapping[str, object]) -> list[str]:
    """What each job of a sweep has for itself; ``settings`` are those of the first one."""
    if settings.get("search") is not None:
        return told_of_search(settings)
    keys = swept_keys(jobs)
    own = [" ".join(each for each in job if key_of(each) in keys) for job in jobs]
    return [f"This is the first of {len(jobs)} jobs:", *(f"  {each}" for each in own)]
