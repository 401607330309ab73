"""A sweep's jobs, chosen before the first one starts: a hook into Hydra's sweeper, which has none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from storydalle.commands.request import Jobs

Chooser = Callable[[Any, Jobs], list[list[str]]]  # of the sweeper and of all jobs: the jobs that are to run


class OnlyShown(Exception):
    """Ends a sweep of which only the settings were asked for."""


@contextmanager
def jobs_chosen(choose: Chooser | None, sweepers: Callable[[], Any]) -> Iterator[None]:
    """Let ``choose`` choose the jobs of Hydra's sweeper, before it writes anything; None: all run.

    ``sweepers`` returns the sweeper's class.
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
        sweeper.validate_batch_is_legal = lambda _: None  # each was composed for the choice

    kind.setup = set_up_with_choice
    try:
        with suppress(OnlyShown):
            yield
    finally:
        kind.setup = set_up
