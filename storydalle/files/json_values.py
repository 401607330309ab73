"""JSON of a shape that nothing promises: its type, and checks that its parts are of the kind that a reader needs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
else:  # tests check types when functions are called, and cannot check one that contains itself
    Json = object

JsonObject = Mapping[str, Json]


def are_texts(value: object) -> TypeGuard[list[str]]:
    """Tell if a value is a list of texts, which may be empty."""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def as_object(value: Json) -> dict[str, Json]:
    """Return the value if it is an object; raise TypeError, which shows it, for anything else."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.80} is no object {{...}}")
    return value


def as_list(value: Json) -> list[Json]:
    """Return the value if it is a list; raise TypeError, which shows it, for anything else."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is no list")
    return value


def as_int(value: Json) -> int:
    """Return a number, or a text of digits, as a whole number; raise TypeError, which shows it, for anything else."""
    if not isinstance(value, int | float | str):
        raise TypeError(f"{value!r:.80} is no number")
    return int(value)


def as_number(value: Json) -> int | float:
    """Return the value if it is a number; raise TypeError, which shows it, for anything else."""
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r:.80} is no number")
    return value


def as_text(value: Json) -> str:
    """Return the value if it is a text; raise TypeError, which shows it, for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
