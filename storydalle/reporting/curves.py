"""Learning curves: the values that a run logged in training."""

import csv
import io
import math
from pathlib import Path

from storydalle.files.reading import read_text
from storydalle.mistakes import told_in_one_line
from storydalle.stories.own_story import natural_order
from storydalle.training.runs import LOGS

Curve = list[tuple[int, float]]  # (step, value)
LARGEST = 1e100  # of values that can be drawn


def read_curves(run: Path) -> dict[str, Curve]:
    """The curves of a run's folder, by name; a resumed run continues in separate files."""
    curves: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob(LOGS), key=lambda path: natural_order(path.parent.name)):
        with told_in_one_line(f"{path} is no log of a training", ValueError, csv.Error):
            rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        for row in rows:
            step = row.get("step") or ""
            for name, value in row.items() if step.isdecimal() else ():  # a kill may have cut the last row
                if name and "/" in name and (number := number_of(value)) is not None:
                    curves.setdefault(name, {})[int(step)] = number
    return {name: sorted(points.items()) for name, points in curves.items() if len(points) > 1}


def number_of(value: str | list[str] | None) -> float | None:
    """The number that a cell of a table holds, if it is one that can be drawn."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    return number if abs(number) <= LARGEST else None
