"""A command line as plain Python, as the commands get it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from storydalle.files.dotted import key_of


class Request(NamedTuple):
    """A command line as plain Python: settings, and how they were chosen."""

    settings: dict[str, object]
    overrides: tuple[str, ...] = ()  # what the command line (or the sweep) says, as key=value
    choices: Mapping[str, str] = MappingProxyType({})  # config group -> the name chosen in it
    is_member: bool = False  # of a planned sweep

    @property
    def given(self) -> frozenset[str]:
        """The keys that the command line sets; all others have their defaults."""
        return frozenset(map(key_of, self.overrides))


Command = Callable[[Request], None]
Kind = Callable[[], type]  # the dataclass of a command's settings
Jobs = Sequence[Sequence[str]]  # of a sweep, each with its overrides


@runtime_checkable
class Sweep(Protocol):
    """The jobs of one command line with ``-m``, as members of sweeps that survive."""

    def plan(self, jobs: Jobs, requests: Sequence[Request]) -> list[list[str]]:
        """Return the jobs that are to run."""

    def run(self, task: Command, request: Request, num_workers: int) -> None:
        """Run a job, one of ``num_workers`` at a time on this machine, or 0 if the launcher says what it may use."""

    def left(self, jobs: Jobs) -> list[list[str]]:
        """Of the jobs that were to run, those that have not ended."""

    def end(self) -> None:
        """Tell what came of all jobs; raises Failure if one failed."""


Sweeps = Callable[[], Sweep]
