"""What ends a command in one line: a user's mistake, exit status 2, or work that failed, exit status 1."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MOST_SHOWN = 40  # names of a list of choices


class UserError(ValueError):
    """What ``storydalle`` answers with one line on stderr and exit status 2, never with a traceback."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class Failure(RuntimeError):
    """Work that was rightly asked for and went wrong: one line on stderr and exit status 1, without a traceback."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest ones, or all where none is near and they are few."""
    choices = sorted(set(choices))
    if not choices:
        return "there are none yet"
    lower = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
    if matches:
        best = likeness(name, matches[0])
        return f"did you mean {' or '.join(lower[match] for match in matches if likeness(name, match) > best - 0.1)}?"
    shown = choices[:MOST_SHOWN]
    return f"choose one of {', '.join(shown)}" + (", ..." if len(choices) > len(shown) else "")


def likeness(name: str, choice: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), choice).ratio()


@contextmanager
def told_in_one_line(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Say an error of the given kinds (by default a ValueError) as a user's mistake: ``what``, then its first line."""
    kinds = kinds or (ValueError,)
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        first_line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise UserError(f"{what}: {first_line}" if what else first_line) from error
