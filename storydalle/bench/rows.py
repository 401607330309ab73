"""A bench's table: a row for each thing that is measured, with its ratio to the floor."""

from collections.abc import Iterable
from typing import NamedTuple

from storydalle.evaluation.toon_table import markdown


class SpeedRow(NamedTuple):
    name: str
    measured: str  # as it is shown, in the unit of its column
    ratio: float


class Measured(NamedTuple):
    """A bench as markdown, and its numbers as json holds them."""

    text: str
    values: dict[str, object]


def table(rows: Iterable[SpeedRow], unit: str, ratio_to: str) -> str:
    """Markdown; ``ratio_to`` heads the ratios."""
    return markdown(["", unit, ratio_to], [[row.name, row.measured, f"{row.ratio:.2f}"] for row in rows])
