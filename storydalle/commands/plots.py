"""Plots of runs: final scores with their intervals, and learning curves."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[int, float]]  # (step, value)
LOGS = "csv/version_*/metrics.csv"
MAX_PANELS, COLUMNS = 24, 4
COLORS = ("#2b6cb0", "#dd6b20", "#2f855a", "#c53030", "#6b46c1", "#b7791f", "#4a5568", "#00838f")


def plot_scores(scores: Mapping[str, Mapping[str, tuple[float, float]]], path: Path) -> None:
    """One panel a metric, one line a config: its mean and the half width of its interval (nan where there is none)."""
    names = list(dict.fromkeys(name for values in scores.values() for name in values))[:MAX_PANELS]
    configs = list(scores)
    width = 0.07 * max(map(len, configs))  # of the names beside the first panel of a row, in inches
    figure, panels = panels_of(names, height=0.6 + 0.25 * len(configs), margin=width)
    for number, (name, axes) in enumerate(zip(names, panels, strict=True)):
        for row, config in enumerate(configs):
            if name in scores[config]:
                mean, half_width = scores[config][name]
                error = None if math.isnan(half_width) else half_width
                axes.errorbar(mean, row, xerr=error, fmt="o", color=COLORS[row % len(COLORS)], capsize=3)
        axes.set_yticks(range(len(configs)), configs if number % COLUMNS == 0 else [""] * len(configs))
        axes.set_ylim(len(configs) - 0.5, -0.5)
        axes.margins(x=0.15)
    figure.savefig(path, dpi=120)


def panels_of(names: Sequence[str], height: float, margin: float = 0.0) -> "tuple[Figure, list[Axes]]":
    """A figure with one titled panel a name, in rows of four."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(names) / COLUMNS)
    figure = Figure(figsize=(3 * min(COLUMNS, len(names)) + margin, (height + 0.5) * rows), layout="constrained")
    panels = list(figure.subplots(rows, min(COLUMNS, len(names)), squeeze=False).flat)
    for axes in panels[len(names) :]:
        axes.remove()
    for name, axes in zip(names, panels, strict=False):
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels[: len(names)]


def plot_curves(curves: Mapping[str, Sequence[Mapping[str, Curve]]], path: Path) -> None:
    """One panel a logged value, one colour a config, one line a run."""
    names = list(dict.fromkeys(name for runs in curves.values() for run in runs for name in run))[:MAX_PANELS]
    figure, panels = panels_of(names, height=2.2)
    for name, axes in zip(names, panels, strict=True):
        for number, (config, runs) in enumerate(curves.items()):
            for i, run in enumerate(runs):
                if name in run:
                    steps, values = zip(*run[name], strict=True)
                    label = config if i == 0 else None
                    axes.plot(steps, values, color=COLORS[number % len(COLORS)], label=label, linewidth=1.2)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def read_curves(run: Path) -> dict[str, Curve]:
    """What a run logged while it trained, by name; a resumed run goes on in files of its own."""
    curves: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob(LOGS), key=lambda path: int(path.parent.name.rpartition("_")[2])):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and "/" in name:
                        curves.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items() if len(points) > 1}
