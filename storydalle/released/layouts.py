"""Tables for files of other programs: a row has their name of a tensor, our name, and its axes.

From a table follow both directions of conversion, the sizes of a network, and messages about files that do not fit.
Nothing is ignored silently: every key is converted, or dropped by name, or named in an error.

In names, ``{i}`` stands for a number, ``{q|k|v}`` for one of these words; both names of a row have the same brackets in
the same order. An axis is a number, or the name of a size, in which ``{0}`` is the content of the name's first bracket:
``Row("down.{i}.conv.weight", "down.{i}.conv.weight", "width{0} width{0} 3 3")``.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from storydalle.mistakes import first_few

Shape = tuple[int, ...]
BRACKET = re.compile(r"\{([^}]*)\}")
NAMED = 3  # keys that an error names; of the rest it gives the number


class LayoutError(ValueError):
    """Tensors that do not fit a layout; the message names the layout and the keys.

    ``path`` is their file, if any; ``layout`` is the name of the layout if names or shapes do not fit it.
    """

    def __init__(self, message: str, path: Path | None = None, layout: str | None = None) -> None:
        super().__init__(message)
        self.path, self.layout = path, layout


class Row(NamedTuple):
    """One kind of tensor; ``turn`` is the einops pattern from theirs to ours, empty if they are equal."""

    theirs: str
    ours: str
    axes: str  # of theirs
    turn: str = ""

    def fits(self, shape: Shape) -> bool:
        """True if their tensor could have this shape: the same number of axes, and the same fixed numbers."""
        axes = self.axes.split()
        return len(axes) == len(shape) and all(not a.isdigit() or int(a) == n for a, n in zip(axes, shape, strict=True))

    def forward(self, tensor: Tensor) -> Tensor:
        return rearrange(tensor, self.turn) if self.turn else tensor

    def backward(self, tensor: Tensor) -> Tensor:
        return rearrange(tensor, " -> ".join(reversed(self.turn.split(" -> ")))) if self.turn else tensor


class Match(NamedTuple):
    """The source of one of our tensors."""

    theirs: str
    row: Row


@cache
def pattern(name: str) -> re.Pattern[str]:
    """The regular expression of a row's name; the brackets are groups."""
    parts = BRACKET.split(name)
    brackets = (rf"({part})" if "|" in part else r"(\d+)" for part in parts[1::2])
    literals = map(re.escape, parts[::2])
    return re.compile("".join(a + b for a, b in zip(literals, [*brackets, ""], strict=True)))


def filled(name: str, values: Sequence[str]) -> str:
    """A row's name with its brackets filled, from the first to the last."""
    left = iter(values)
    return BRACKET.sub(lambda _: next(left), name)


def count(keys: Iterable[str], name: str, first: int = 0) -> int:
    """The number of values, from ``first`` on without a gap, of the one bracket of a name among keys."""
    found = {int(match[1]) for key in keys if (match := pattern(name).match(key))}
    return next(n for n in range(len(found) + 1) if first + n not in found)


def listed(keys: Sequence[str]) -> str:
    return first_few(keys, NAMED)


class Sizes(dict[str, int]):
    """Sizes by name; a size that no tensor tells raises an error that names the tensors that would tell it."""

    def __init__(self, layout: "Layout", keys: Iterable[str]) -> None:
        super().__init__()
        self.layout, self.keys_of_file = layout, list(keys)

    def __missing__(self, name: str) -> int:
        tell = [
            row.theirs
            for row in self.layout.rows
            if any(re.fullmatch(re.sub(r"\\\{\d\\\}", r"\\w+", re.escape(axis)), name) for axis in row.axes.split())
        ]
        raise self.layout.error(missing=tell, unknown=self.layout.unknown(self.keys_of_file))


class Layout:
    """A file format: rows, of which the first that fits a name counts, and names that are not needed.

    ``dropped`` maps names that are not needed to reasons; a name that ends in a dot stands for all names that begin so.
    """

    def __init__(self, name: str, rows: Sequence[Row], dropped: Mapping[str, str] | None = None) -> None:
        self.name, self.rows, self.reasons = name, tuple(rows), dict(dropped or {})
        for row in self.rows:
            assert BRACKET.findall(row.theirs) == BRACKET.findall(row.ours), row

    def row_of(self, key: str) -> tuple[Row, Sequence[str]] | None:
        """The row of one of their keys, and the contents of its brackets."""
        for row in self.rows:
            if match := pattern(row.theirs).fullmatch(key):
                return row, match.groups()
        return None

    def dropped(self, keys: Iterable[str]) -> list[str]:
        """Their keys that are known but not needed."""
        return [key for key in keys if self.reason(key) is not None]

    def reason(self, key: str) -> str | None:
        """The reason why one of their keys is not needed; None if it is needed or unknown."""
        for name, reason in self.reasons.items():
            match = pattern(name).match(key)
            if match and (name.endswith(".") or match.end() == len(key)):
                return reason
        return None

    def left_out(self, keys: Iterable[str]) -> list[str]:
        """A sentence for every reason to drop keys: how many, why, and which."""
        found: dict[str, list[str]] = defaultdict(list)
        for key in self.dropped(keys):
            found[self.reason(key) or ""].append(key)
        return [
            f"left out {len(names)} tensor{'s' * (len(names) > 1)}, {reason}: {listed(names)}"
            for reason, names in found.items()
        ]

    def unknown(self, keys: Iterable[str]) -> list[str]:
        keys = list(keys)
        dropped = set(self.dropped(keys))
        return [key for key in keys if key not in dropped and self.row_of(key) is None]

    def error(self, missing: Sequence[str] = (), unknown: Sequence[str] = (), wrong: Sequence[str] = ()) -> LayoutError:
        told = [f"missing: {listed(missing)}"] if missing else []
        told += [f"unknown: {listed(unknown)}"] if unknown else []
        told += [f"of another shape: {listed(wrong)}"] if wrong else []
        return LayoutError(f"the weights are not those of the layout {self.name}; {'; '.join(told)}", layout=self.name)

    def sizes(self, theirs: Mapping[str, Shape]) -> Sizes:
        """The sizes by the names in ``axes``, each as most tensors have it.

        Raises LayoutError, naming them, for tensors with another size.
        """
        axes = {key: self._axes(key) for key in theirs}
        votes: dict[str, Counter[int]] = defaultdict(Counter)
        for key, names in axes.items():
            if len(names) == len(theirs[key]):
                for name, n in zip(names, theirs[key], strict=True):
                    votes[name][n] += 1
        sizes, tied = Sizes(self, theirs), set()
        for name, counts in votes.items():
            (sizes[name], most), *others = counts.most_common()
            if others and others[0][1] == most:
                tied.add(name)
        wrong = []
        for key, names in axes.items():
            shape, belongs = tuple(theirs[key]), tuple(int(n) if n.isdigit() else sizes.get(n, n) for n in names)
            if names and shape != belongs:
                wrong.append(f"{key} has the shape {shape} where {belongs} belongs")
            elif doubtful := sorted(tied & set(names)):
                wrong.append(f"{key} has the shape {shape}, and as many others have another {', '.join(doubtful)}")
        if wrong:
            raise self.error(wrong=wrong)
        return sizes

    def told(self, theirs: Mapping[str, Shape], *names: str) -> dict[str, int]:
        """These sizes; LayoutError as in ``sizes``, or if no tensor tells one of them."""
        sizes = self.sizes(theirs)
        return {name: sizes[name] for name in names}

    def _axes(self, key: str) -> list[str]:
        """The axes of one of their tensors; none of one that is dropped or unknown."""
        found = None if self.dropped([key]) else self.row_of(key)
        return [axis.format(*found[1]) for axis in found[0].axes.split()] if found else []

    def matched(self, theirs: Mapping[str, Shape], ours: Mapping[str, Shape]) -> dict[str, Match]:
        """The source of each of our tensors, in our order; ``ours`` are the shapes of the network to fill.

        Raises LayoutError for keys that are missing or unknown and for tensors of another shape, with both shapes.
        """
        matches: dict[str, Match] = {}
        unknown = self.unknown(theirs)
        for key in theirs.keys() - set(unknown) - set(self.dropped(theirs)):
            found = self.row_of(key)
            assert found is not None
            matches[filled(found[0].ours, found[1])] = Match(key, found[0])
        unknown += sorted(match.theirs for name, match in matches.items() if name not in ours)
        missing = [self.theirs_of(name)[0] for name in ours if name not in matches]
        wrong = []
        for name, match in matches.items():
            if name in ours:
                belongs = tuple(match.row.backward(torch.empty(ours[name], device="meta")).shape)
                if belongs != tuple(theirs[match.theirs]):
                    wrong.append(f"{match.theirs} has the shape {tuple(theirs[match.theirs])} where {belongs} belongs")
        if missing or unknown or wrong:
            raise self.error(missing, unknown, sorted(wrong))
        return {name: matches[name] for name in ours}

    def theirs_of(self, name: str) -> tuple[str, Row]:
        """Their name of one of our tensors; LayoutError if they have no such tensor."""
        for row in self.rows:
            if match := pattern(row.ours).fullmatch(name):
                return filled(row.theirs, match.groups()), row
        raise LayoutError(f"the layout {self.name} has no place for our {name}")

    def theirs_to_ours(self, theirs: Mapping[str, Tensor], ours: Mapping[str, Shape]) -> dict[str, Tensor]:
        """Their tensors under our names; LayoutError as in ``matched``."""
        matches = self.matched({key: tuple(value.shape) for key, value in theirs.items()}, ours)
        return {name: match.row.forward(theirs[match.theirs]) for name, match in matches.items()}

    def ours_to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under their names; LayoutError for one that they have no place for."""
        places = {name: self.theirs_of(name) for name in ours}
        return {theirs: row.backward(ours[name]) for name, (theirs, row) in places.items()}
