"""A command line as plain Python, as the commands get it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

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
Planner = Callable[[Jobs, Sequence[Request]], list[list[str]]]  # the jobs that are to run
