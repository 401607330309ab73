"""The rows of a bench's table: a case in one of its variants, beside the reference of the case and its floor."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from storydalle.bench.measuring import MAX_SPREAD, Timing
from storydalle.evaluation.toon_table import markdown

SCALES = {"ms": 1e3, "GB/s": 1e-9, "GFLOP/s": 1e-9}  # of the units that are not the measured ones

DEFAULT = "ours"  # the variant that users get


class BenchRow(NamedTuple):
    """One thing that was measured; of the first variant of a case, the reference, ``ratio`` is 1."""

    case: str
    variant: str
    timing: Timing  # in seconds, or in items a second
    ratio: float | None = None  # times as fast as the reference
    unit: str = "ms"
    floor: float | None = None  # seconds that no implementation in fp32 can beat
    own_floor: float | None = None  # seconds of what this variant itself reads and multiplies
    agreement: float | None = None  # share of the codes that are those of the reference
    peak_bytes: int | None = None  # of the tensors that were made

    @property
    def measured(self) -> str:
        return f"{digits(self.timing.median * SCALES.get(self.unit.split()[0], 1))} {self.unit}"

    @property
    def spread(self) -> str:
        if self.timing.spread is None:
            return "one value"
        return f"{100 * self.timing.spread:.0f} %{'' if self.timing.is_steady else ', unreliable'}"

    def times(self, floor: float | None) -> str:
        return "" if floor is None else f"{self.timing.median / floor:.1f}"


class Measured(NamedTuple):
    """A bench as markdown, and its numbers as json holds them."""

    text: str
    values: dict[str, object]
    rows: list[BenchRow]


COLUMNS: dict[str, Callable[[BenchRow], str]] = {
    "measured": lambda row: row.measured,
    "spread": lambda row: row.spread,
    "times as fast as the first": lambda row: "" if row.ratio is None else f"{row.ratio:.2f}",
    "times the floor": lambda row: row.times(row.floor),
    "times its own floor": lambda row: row.times(row.own_floor),
    "peak memory": lambda row: "" if row.peak_bytes is None else f"{digits(row.peak_bytes / 1e6)} MB",
    "equal codes": lambda row: "" if row.agreement is None else f"{100 * row.agreement:.1f} %",
}


def table(rows: Sequence[BenchRow]) -> str:
    """Markdown, with the columns that some row fills; a case is named in its first row alone."""
    cells = [["", "", *COLUMNS]]
    for before, row in zip([None, *rows], rows, strict=False):
        is_new = before is None or before.case != row.case
        cells.append([row.case if is_new else "", row.variant, *(column(row) for column in COLUMNS.values())])
    kept = [place for place in range(len(cells[0])) if any(line[place] for line in cells[1:])]
    head, *lines = ([line[place] for place in kept] for line in cells)
    return markdown(head, lines)


def digits(value: float) -> str:
    """Three digits, or as many as stand before the point: 0.0123, 12.3, 1,230."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def spread_note(rows: Sequence[BenchRow]) -> str:
    """The meaning of the spread, and which rows are beyond its bound."""
    note = "Spread: interquartile range over the median."
    unsteady = sum(not row.timing.is_steady for row in rows)
    return f"{note} Above {MAX_SPREAD:.0%}, in {unsteady} of {len(rows)} rows, a time is unreliable."
