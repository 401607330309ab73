"""Plots of runs: pictures of scores and of learning curves, and figures in SVG for pages.

matplotlib is imported only when something is drawn, since the import is slow.
"""

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storydalle.files.whole import replaced_when_whole
from storydalle.reporting.curves import Curve
from storydalle.reporting.report_costs import COSTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CostPoint = tuple[float, float, float, float]  # a cost; a score and the ends of its interval
Point = tuple[float, float, float]  # a value and the ends of its interval
Points = Mapping[str, Point]  # by the name on the axis

MAX_PANELS, COLUMNS = 24, 4
COLORS = ("#2b6cb0", "#dd6b20", "#2f855a", "#c53030", "#6b46c1", "#b7791f", "#4a5568", "#00838f")
MARKERS = "osD^v"
NARROW = 4.8  # inches, so that text stays legible on a phone
MAX_POINTS = 500  # of a curve on a page
BAND = "line: mean over seeds; band: from the lowest to the highest"
ROUNDING = 1e-6  # by which a share may exceed 1


# ------------------------------------------------------------------------------------------------ pictures


def plot_scores(scores: Mapping[str, Points], path: Path) -> None:
    """One panel a metric, one line a config: its mean and the ends of its interval (nan if there is none)."""
    names = names_in(scores.values())[:MAX_PANELS]
    width = 0.07 * max(map(len, scores))  # of the names beside the first panel of a row, in inches
    figure, panels = panels_of(names, height=0.6 + 0.25 * len(scores), margin=width)
    for number, (name, axes) in enumerate(zip(names, panels, strict=True)):
        for color, rows in coloured(scores, name).items():
            values, errors = values_and_errors(rows)
            axes.errorbar(values, list(rows), xerr=errors, fmt="o", color=color, capsize=3)
        axes.set_yticks(range(len(scores)), list(scores))
        axes.tick_params(labelleft=number % COLUMNS == 0)
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.margins(x=0.15)
    save_figure(figure, path)


def coloured(scores: Mapping[str, Points], name: str) -> dict[str, dict[int, Point]]:
    """The points of one metric by their colour and row, so that a colour is drawn at once."""
    found: dict[str, dict[int, Point]] = {}
    for row, points in enumerate(scores.values()):
        if name in points:
            found.setdefault(color_of(row), {})[row] = points[name]
    return found


def plot_curves(curves: Mapping[str, Sequence[Mapping[str, Curve]]], path: Path) -> None:
    """One panel a logged value, one colour a config: the mean of its runs, in a band from the lowest to the highest."""
    names = names_in(run for runs in curves.values() for run in runs)[:MAX_PANELS]
    figure, panels = panels_of(names, height=2.2)
    for name, axes in zip(names, panels, strict=True):
        for number, (config, runs) in enumerate(curves.items()):
            draw_runs(axes, [run[name] for run in runs if name in run], config, number)
    legend_below(figure, panels[0], title=BAND if any(len(runs) > 1 for runs in curves.values()) else None)
    save_figure(figure, path)


def plot_costs(rows: Mapping[str, Mapping[str, CostPoint]], score: str, path: Path) -> None:
    """One panel a cost, one dot a config: its score, with the ends of its interval, against the cost."""
    save_figure(costs_figure(rows, score), path)


def costs_figure(rows: Mapping[str, Mapping[str, CostPoint]], score: str) -> "Figure":
    names = names_in(rows.values())
    figure, panels = panels_of([COSTS[name].title for name in names], height=2.6)
    for name, axes in zip(names, panels, strict=True):
        draw_costs(axes, rows, name)
        axes.set_ylabel(score, fontsize=8)
    legend_below(figure, panels[0])
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    with replaced_when_whole(path, is_synced=False) as file:
        figure.savefig(file, format="png", dpi=120)


def legend_below(figure: "Figure", axes: "Axes", title: str | None = None) -> None:
    """A legend of one or two columns, as their width allows, for which the figure grows."""
    handles, labels = axes.get_legend_handles_labels()
    inches = 0.6 + 0.062 * max(map(len, labels), default=0)  # of a line of the legend
    columns = max(1, min(2, int(figure.get_figwidth() // inches)))
    figure.set_figheight(figure.get_figheight() + 0.17 * (math.ceil(len(labels) / columns) - 1 + bool(title)))
    look = {"fontsize": 8, "title": title, "title_fontsize": 8, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **look)


def panels_of(names: Sequence[str], height: float, margin: float = 0.0) -> "tuple[Figure, list[Axes]]":
    """A figure with one titled panel a name, in rows of four."""
    from matplotlib.figure import Figure

    rows, columns = math.ceil(len(names) / COLUMNS), min(COLUMNS, len(names))
    figure = Figure(figsize=(3 * columns + margin, (height + 0.5) * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(names) :]:
        axes.remove()
    for name, axes in zip(names, panels, strict=False):
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels[: len(names)]


# ------------------------------------------------------------------------------------------------ figures of pages


def plot_bars(rows: Mapping[str, Points], title: str) -> str:
    """Bars with intervals, a group a name and a colour a row, as SVG."""
    names = names_in(rows.values())
    figure, axes = one_panel(title, width=13.0)
    width = 0.8 / len(rows)
    for number, (row, points) in enumerate(rows.items()):
        places = [names.index(name) + offset(number, len(rows), width) for name in points]
        values, errors = values_and_errors(points)
        thin = {"elinewidth": 0.8, "capsize": 2}
        axes.bar(places, values, width * 0.92, yerr=errors, color=color_of(number), label=row, error_kw=thin)
    axes.set_xticks(range(len(names)), names)
    return finished(figure, axes)


def plot_lines(rows: Mapping[str, Points], title: str, label: str) -> str:
    """Lines with bands, a colour a row, over whole numbers, as SVG."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = one_panel(title, width=6.5)
    for number, (row, points) in enumerate(rows.items()):
        color, places = color_of(number), [int(name) for name in points]
        values, low, high = zip(*points.values(), strict=True)
        axes.plot(places, values, marker="o", markersize=4, color=color, label=row)
        axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finished(figure, axes)


def plot_dots(rows: Mapping[str, Points], title: str) -> str:
    """Scores from top to bottom, one dot with its interval for each row, as SVG; from 0 to 1 if all are shares.

    A row without points keeps its colour, so that colours are the same in the next plot.
    """
    names, pitch = names_in(rows.values()), 0.8 / len(rows)
    figure, axes = one_panel("", width=NARROW)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.set_figheight(
        1.0 + height_of_legend(row for row in rows if rows[row]) + len(names) * max(0.24, 0.075 * len(rows) + 0.06)
    )
    for number, (row, points) in enumerate(rows.items()):
        if not points:
            continue
        places = [names.index(name) + offset(number, len(rows), pitch) for name in points]
        values, errors = values_and_errors(points)
        color, marker = color_of(number), MARKERS[number // len(COLORS) % len(MARKERS)]
        look = axes.errorbar(values, places, xerr=errors, fmt=marker, color=color, markersize=4, elinewidth=1.2)
        look.set_label(in_lines(row))
    if all(0 <= value <= 1 + ROUNDING for points in rows.values() for value, _, _ in points.values()):
        axes.set_xlim(-0.02, 1.02)
    for border in range(1, len(names)):
        axes.axhline(border - 0.5, color="#e8e8e8", linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return finished(figure, axes, columns=1)


def plot_steps(runs: Mapping[str, Sequence[Curve]], title: str) -> str:
    """Curves of training, one colour a config, with a band over its runs, as SVG; long ones are thinned."""
    figure, axes = one_panel(title, width=NARROW)
    figure.set_figheight(2.8 + height_of_legend(runs))
    for number, (config, curves) in enumerate(runs.items()):
        thinned = [curve[:: math.ceil(len(curve) / MAX_POINTS)] for curve in curves]
        draw_runs(axes, thinned, in_lines(config), number)
    axes.set_xlabel("step")
    return finished(figure, axes, columns=1)


def one_panel(title: str, width: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left")
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def finished(figure: "Figure", axes: "Axes", columns: int = 2) -> str:
    """A figure as SVG text, with the legend below."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    return as_svg(figure)


def as_svg(figure: "Figure") -> str:
    """A figure as SVG text; the same figure gives the same text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "storydalle"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def in_lines(name: str) -> str:
    """A name, broken into lines for the legend of a narrow plot."""
    return textwrap.fill(name, 56, break_on_hyphens=False)


def height_of_legend(names: Iterable[str]) -> float:
    """In inches."""
    return sum(0.03 + 0.14 * (in_lines(name).count("\n") + 1) for name in names)


# ------------------------------------------------------------------------------------------------ both


def draw_costs(axes: "Axes", rows: Mapping[str, Mapping[str, CostPoint]], name: str) -> None:
    """Dots with intervals; the axis of the cost is logarithmic where costs differ by more than ten times."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    costs = [points[name][0] for points in rows.values() if name in points]
    if min(costs) > 0 and max(costs) > 10 * min(costs):
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: COSTS[name].told(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for number, (row, points) in enumerate(rows.items()):
        if name in points:
            cost, *point = points[name]
            value, error = values_and_errors({row: (point[0], point[1], point[2])})
            marker = MARKERS[number // len(COLORS) % len(MARKERS)]
            axes.errorbar([cost], value, yerr=error, fmt=marker, color=color_of(number), label=in_lines(row), capsize=2)
    axes.margins(0.12)


def names_in(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """All names that rows have, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def color_of(number: int) -> str:
    return COLORS[number % len(COLORS)]


def offset(number: int, count: int, pitch: float) -> float:
    """The horizontal offset of one of ``count`` rows from the middle of its group."""
    return (number - (count - 1) / 2) * pitch


def values_and_errors(points: Mapping[Any, Point]) -> tuple[np.ndarray, np.ndarray]:
    """Values, and the lengths of their intervals below and above; 0 without an interval."""
    values, low, high = (np.array(list(each)) for each in zip(*points.values(), strict=True))
    return values, np.nan_to_num(np.stack([values - low, high - values]).clip(0))


def draw_runs(axes: "Axes", curves: Sequence[Curve], label: str, number: int) -> None:
    """Draw a config's curve in its colour; of several runs their mean, in a band from the lowest to the highest."""
    if not curves:
        return
    steps, mean, low, high = banded(curves)
    axes.plot(steps, mean, color=color_of(number), label=label, linewidth=1.2)
    if len(curves) > 1:
        axes.fill_between(steps, low, high, color=color_of(number), alpha=0.18, linewidth=0)


def banded(curves: Sequence[Curve]) -> tuple[np.ndarray, ...]:
    """All steps, and at each the mean, the lowest and the highest of the runs that came so far; lines between steps."""
    points = [np.array(curve, dtype=float).T for curve in curves]
    steps = np.unique(np.concatenate([own for own, _ in points]))
    inside = [np.interp(steps, own, values, left=np.nan, right=np.nan) for own, values in points]
    # A run that begins to log later leaves a gap only where no run has a value, so there is none.
    return steps, np.nanmean(inside, 0), np.nanmin(inside, 0), np.nanmax(inside, 0)
