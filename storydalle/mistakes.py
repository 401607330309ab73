"""Errors that end a command in one line: a user's mistake, exit status 2, or work that failed, exit status 1."""

import difflib
import errno
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import cast

# What a disk may say to a writer, whoever asks it to write.
FULL = {
    errno.ENOSPC: "no disk space left",
    errno.EDQUOT: "the disk quota is used up: no disk space left for you",
    errno.EFBIG: "a file would be larger than allowed: no disk space left for it",
    errno.EROFS: "the disk is read-only",
}
MAX_SEED = 2**63 - 1
MOST_SHOWN = 40  # names of a list of choices


class UserError(ValueError):
    """A mistake of the user: one line on stderr and exit status 2, without a traceback."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class Taken(UserError):
    """Work that another command does or has done: a mistake of the user, but not of a member of a sweep."""


class Failure(RuntimeError):
    """A failure that is not the user's mistake: one line on stderr and exit status 1, without a traceback."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest names, or all if none is near and they are few."""
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


def first_few(told: Sequence[str], most: int, separator: str = ", ") -> str:
    """At most ``most`` of what is told, and the number of the others: "a, b and 3 more"."""
    others = len(told) - most
    return separator.join(told[:most]) + (f"{separator.strip(' ,')} and {others} more" if others > 0 else "")


def likeness(name: str, choice: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), choice).ratio()


def told_of_disk(error: BaseException) -> str | None:
    """A message if the error is about a full or read-only disk; None for other errors.

    Libraries written in Rust raise their own errors, which end in "(os error 28)".
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])
    return FULL.get(number) if number is not None else None


@contextmanager
def told_in_one_line(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn an error of the given kinds (by default ValueError) into a UserError: ``what``, then its first line."""
    kinds = kinds or (ValueError,)
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # A worker of a data loader hands its error on behind a traceback of its own.
        line = lines[-1].partition(": ")[2] if lines[0].startswith("Caught ") else lines[0]
        raise UserError(f"{what}: {line}" if what else line) from error


def check_number(
    name: str, value: object, low: int | float, high: int | float | None = None, whole: bool = False
) -> None:
    """Refuse a setting that is not a number between ``low`` and ``high``, both included."""
    bound = f"between {low} and {high}" if high is not None else f"{low} or more" if low > -math.inf else "of any size"
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_number or not low <= (number := cast(float, value)) or (high is not None and number > high):
        raise UserError(f"{name}={value}: use {'a whole number' if whole else 'a number'}, {bound}")


def check_seed(seed: object) -> None:
    """Refuse a seed that is not a whole number between 0 and 2**63 - 1."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= int(seed) <= MAX_SEED:
        raise UserError(f"seed={seed} is out of range: use a whole number between 0 and 2**63 - 1")


def cause_of(error: Exception) -> Exception:
    """The cause of an error while a config was built: a refused setting is a user's mistake, anything else a bug."""
    cause = error.__cause__
    if isinstance(cause, Exception) and not isinstance(cause, ValueError | TypeError):
        return cause
    return cause if isinstance(cause, UserError) else UserError(f"a setting is refused: {cause or error}")
