"""The cost of what a report compares, from the records of trainings: time, size, memory and energy."""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from storydalle.reporting.report_runs import ScoredRun
from storydalle.reporting.report_scores import MAX_DRAWN, Comparison


class CostColumn(NamedTuple):
    """A column: its title, and how a number is written."""

    title: str
    told: Callable[[float], str]


def told_time(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{rounded(seconds / size)} {unit}"
    return f"{rounded(seconds)} s"


def told_count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{rounded(number / size)} {unit}"
    return f"{number:.0f}"


def told_energy(joules: float) -> str:
    hours = joules / 3600
    return f"{rounded(hours / 1000)} kWh" if hours >= 1000 else f"{rounded(hours)} Wh"


def told_memory(megabytes: float) -> str:
    return f"{rounded(megabytes / 1024)} GB" if megabytes >= 1024 else f"{megabytes:.0f} MB"


def rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


COSTS = {
    "seconds": CostColumn("training time", told_time),
    "parameters": CostColumn("parameters", told_count),
    "trained_parameters": CostColumn("trained", told_count),
    "peak_megabytes": CostColumn("peak memory", told_memory),
    "joules": CostColumn("energy", told_energy),
}


ALIKE = 1.02  # costs whose ratio is smaller make no plot


def mean_cost(runs: Sequence[ScoredRun], name: str) -> float | None:
    """The mean over the runs of a line that recorded it."""
    found = [run.cost[name] for run in runs if name in run.cost]
    return statistics.fmean(found) if found else None


def cost_rows(found: Comparison) -> list[list[str]]:
    """A header, then one line for each configuration whose cost is known; nothing if none is."""
    costs = {line: {name: mean_cost(runs, name) for name in COSTS} for line, runs in found.runs.items()}
    names = [name for name in COSTS if any(each[name] is not None for each in costs.values())]
    rows = [
        [line, *("-" if (value := each[name]) is None else COSTS[name].told(value) for name in names)]
        for line, each in costs.items()
        if any(value is not None for value in each.values())
    ]
    return [["config", *(COSTS[name].title for name in names)], *rows] if names else []


def cost_points(found: Comparison, score: str) -> dict[str, dict[str, tuple[float, float, float, float]]]:
    """Each line's costs, each beside the score and the ends of its interval; only costs that differ clearly."""
    points: dict[str, dict[str, tuple[float, float, float, float]]] = {}
    for line, runs in list(found.runs.items())[:MAX_DRAWN]:
        costs = {name: mean_cost(runs, name) for name in COSTS} if score in found.lines[line] else {}
        points[line] = {
            name: (cost, *found.lines[line][score].point) for name, cost in costs.items() if cost is not None
        }
    values = {name: [own[name][0] for own in points.values() if name in own] for name in COSTS}
    apart = [name for name, each in values.items() if each and max(each) > ALIKE * min(each)]
    drawn = {line: {name: own[name] for name in apart if name in own} for line, own in points.items()}
    return {line: own for line, own in drawn.items() if own}
