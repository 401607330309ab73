"""Settings as frozen dataclasses, filled from a config's plain values and checked once.

  @dataclass(frozen=True)
  class Drawing:
      captions: Path                                     # one a line
      seed: Seed
      num_candidates: Annotated[int, Between(1, 512)]     # frames drawn for each caption
      splits: tuple[str, ...] | None                     # null takes all; one name stands for a list of one
      data: DataSettings                                 # a config group: a dataclass of its own

  settings = filled(Drawing, request.settings)

A mistake raises a UserError that names key, value and remedy, with dotted keys for groups (``data.resolution``). The
class itself checks in ``__post_init__`` what depends on several settings.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from storydalle.files import dotted
from storydalle.files.paths import user_path
from storydalle.mistakes import UserError, check_number, check_seed, nearest

S = TypeVar("S")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both included; without ``high`` there is no upper bound."""

    low: int | float
    high: int | float | None = None


@dataclass(frozen=True)
class OneOf:
    """The allowed names, or a function that returns them."""

    choices: Iterable[str] | Callable[[], Iterable[str]]

    def check(self, key: str, value: str) -> None:
        names = list(self.choices() if callable(self.choices) else self.choices)
        if value not in names:
            raise UserError(f"no {key}={value}; {nearest(value, names)}")


SEED = "seed"
Seed = Annotated[int, SEED]  # 0 to 2**63 - 1
Count = Annotated[int, Between(1)]  # 1 or more
Number = int | float  # as it was typed: 0 is not written as 0.0 again


def filled(kind: type[S], values: Mapping[str, object], group: str = "") -> S:
    """Build the dataclass ``kind`` from a config's values; other keys of the config are ignored.

    ``group`` is the dotted key of the config group of these values, with a dot at its end.
    """
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):  # type: ignore[arg-type]  # S is a dataclass
        key = f"{group}{field.name}"
        if field.name in values:
            found[field.name] = read(key, values[field.name], hints[field.name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise not_set(key)
    return kind(**found)


def declared(kind: type, tree: Mapping[str, object]) -> dict[str, object]:
    """The part of a config that ``filled`` reads for ``kind``, with the values that it refers to (``${max_steps}``)."""
    known: set[str] = set()
    found = set(declared_keys(kind, tree))
    while found - known:
        known |= found
        found = {name for key in known for name in references(dotted.value_at(tree, key))}
    return part(tree, known)


def declared_keys(kind: type, tree: Mapping[str, object], group: str = "") -> Iterator[str]:
    """Dotted keys of the fields of ``kind``; a group without the fields of its own dataclass is declared whole."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        key, hint, value = f"{group}{field.name}", hints[field.name], tree.get(field.name)
        if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping) and can_fill(hint, value):
            yield from declared_keys(hint, value, f"{key}.")
        else:
            yield key


def can_fill(kind: type, values: Mapping[str, object]) -> bool:
    return all(f.name in values for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)


def references(value: object) -> Iterator[str]:
    """Dotted keys that a value, as it is written, takes something from."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, str):
        yield from REFERENCE.findall(value)


def part(tree: Mapping[str, object], keys: set[str], group: str = "") -> dict[str, object]:
    """The tree with the values and groups of the dotted keys alone."""
    found = {}
    for name, value in tree.items():
        key = f"{group}{name}"
        if key in keys:
            found[name] = value
        elif isinstance(value, Mapping) and any(other.startswith(f"{key}.") for other in keys):
            found[name] = part(value, keys, f"{key}.")
    return found


def read(key: str, value: object, hint: object) -> object:
    """The value of one setting, converted to its annotation."""
    checks: tuple[object, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *checked = get_args(hint)
        checks = tuple(checked)
    origin = get_origin(hint)
    if hint == Number:
        return read_scalar(key, value, Number, checks)
    if origin in (Union, UnionType):
        return read_union(key, value, get_args(hint), checks)
    if is_dataclass(hint) and isinstance(hint, type):
        return filled(hint, mapping(key, value), f"{key}.")
    if origin in (tuple, list):
        return read_sequence(key, value, hint, checks)
    if origin is not None and issubclass(origin, Mapping):
        return mapping(key, value)
    return value if hint is object else read_scalar(key, value, hint, checks)


def read_union(key: str, value: object, members: Sequence[object], checks: tuple[object, ...]) -> object:
    """Read a value as the member of the union that it looks like; null only if the union has None."""
    if value is None and NoneType in members:
        return None
    kinds = [member for member in members if member is not NoneType]
    fitting = [kind for kind in kinds if looks_like(value, kind)] or kinds
    return read(key, value, Annotated[fitting[0], *checks] if checks else fitting[0])


def looks_like(value: object, hint: object) -> bool:
    """True if the value has the form of the annotation: a list, a group or a single value."""
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    origin = get_origin(hint) or hint
    if origin in (tuple, list):
        return isinstance(value, list | tuple)
    if is_dataclass(origin) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return isinstance(value, Mapping)
    return not isinstance(value, list | tuple | Mapping)


def read_sequence(key: str, value: object, hint: object, checks: tuple[object, ...]) -> object:
    """A tuple or a list; a single value becomes a tuple of one."""
    kind, element = get_origin(hint), get_args(hint)[0]
    if not isinstance(value, list | tuple):
        if kind is list or value is None or isinstance(value, Mapping):
            raise UserError(f"{key}={value}: use a list, [A,B]")
        value = (value,)
    element = Annotated[element, *checks] if checks else element
    return (tuple if kind is tuple else list)(read(key, each, element) for each in value)


def read_scalar(key: str, value: object, kind: object, checks: tuple[object, ...]) -> object:
    """A truth value, a number, a text or a path, within its bounds."""
    if kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"{key}={value}: use true or false")
        return value
    if SEED in checks:
        check_seed(value)
        return value
    if kind in (int, float, Number):
        bounds = next((check for check in checks if isinstance(check, Between)), Between(-float("inf")))
        check_number(key, value, bounds.low, bounds.high, whole=kind is int)
        return float(cast(float, value)) if kind is float else value
    assert kind in (str, Path), f"settings are not filled with {kind}"
    if value is None:
        raise not_set(key)
    if isinstance(value, list | tuple | Mapping):
        raise UserError(f"{key}={value}: use one {'path' if kind is Path else 'text'}")
    text = str(value)
    for check in checks:
        if isinstance(check, OneOf):
            check.check(key, text)
    return user_path(text) if kind is Path else text


def mapping(key: str, value: object) -> Mapping[str, object]:
    if value is None:
        raise not_set(key)
    if not isinstance(value, Mapping):
        raise UserError(f"{key}={value}: use settings with names, {{NAME:VALUE}}")
    return {str(name): each for name, each in value.items()}


def not_set(key: str) -> UserError:
    return UserError(f"{key} is not set: give {key}=VALUE")
