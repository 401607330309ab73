"""Plots of a search: its history, what mattered, its value along each setting, trials as lines over all settings."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storydalle.reporting.plots import COLORS, NARROW, as_svg, one_panel, panels_of, save_figure
from storydalle.reporting.report_searches import FINISHED, FoundSearch, TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Axes", FoundSearch], None]
OTHERS = "pruned"
LOOKS: dict[str, dict[str, Any]] = {
    FINISHED: {"marker": "o", "color": COLORS[0]},
    OTHERS: {"marker": "x", "color": "#8a93a3"},
}
BEST: dict[str, Any] = {"marker": "*", "color": COLORS[1], "s": 110, "zorder": 3}
UNDER_WORDS = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
BEYOND = 5.0  # times the distance of the quartiles: a value so much worse than them is drawn at the edge
HISTORY, IMPORTANCE = "Every trial", "What mattered"


def plot_search(search: FoundSearch, path: Path) -> None:
    """History, importance and slices in one picture."""
    drawn: dict[str, Draw] = {HISTORY: draw_history}
    drawn |= {IMPORTANCE: draw_importances} if search.importances else {}
    drawn |= {short(search, key): slice_of(key) for key in search.space}
    save_figure(panels_drawn(search, drawn), path)


def search_svgs(search: FoundSearch) -> dict[str, str]:
    """Figures of a page; the first ones are narrow, slices and the parallel view as wide as the page."""
    narrow: dict[str, Draw] = {HISTORY: draw_history}
    narrow |= {IMPORTANCE: draw_importances} if search.importances else {}
    found = {}
    for title, draw in narrow.items():
        figure, axes = one_panel(title, width=NARROW)
        draw(axes, search)
        found[title] = as_svg(figure)
    slices = panels_drawn(search, {short(search, key): slice_of(key) for key in search.space})
    return found | {"slices": as_svg(slices), "parallel": as_svg(parallel_figure(search))}


def panels_drawn(search: FoundSearch, drawn: dict[str, Draw]) -> "Figure":
    figure, panels = panels_of(list(drawn), height=2.4)
    for draw, axes in zip(drawn.values(), panels, strict=True):
        draw(axes, search)
    return figure


def slice_of(key: str) -> Draw:
    return lambda axes, search: draw_slice(axes, search, key)


def short(search: FoundSearch, key: str) -> str:
    """The last part of a setting's name, if no other one ends so."""
    last = key.rpartition(".")[2]
    return last if [each.rpartition(".")[2] for each in search.space].count(last) == 1 else key


# ------------------------------------------------------------------------------------------------ one panel


def draw_history(axes: "Axes", search: FoundSearch) -> None:
    """The value of each trial in the order of their beginnings, and the best one until then."""
    from matplotlib.ticker import MaxNLocator

    numbers = {trial.name: number for number, trial in enumerate(search.trials)}
    draw_values(axes, search, [float(numbers[trial.name]) for trial in judged(search)])
    finished = [trial for trial in judged(search) if trial.state == FINISHED]
    best = (np.minimum if search.direction == "minimize" else np.maximum).accumulate(
        [trial.value for trial in finished if trial.value is not None]
    )
    axes.step([numbers[trial.name] for trial in finished], best, where="post", color=COLORS[1], linewidth=1.2)
    axes.set_xlabel("trial", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if finished:
        axes.legend(fontsize=8, frameon=False)


def draw_importances(axes: "Axes", search: FoundSearch) -> None:
    names = [short(search, key) for key in search.importances]
    axes.barh(range(len(names)), list(search.importances.values()), color=COLORS[0], height=0.6)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the differences", fontsize=9)
    axes.grid(axis="y", visible=False)


def draw_slice(axes: "Axes", search: FoundSearch, key: str) -> None:
    """The value of each trial over its value of one setting."""
    axis = search.space[key]
    draw_values(axes, search, [axis.place(trial.settings[key]) for trial in judged(search)])
    if axis.choices:
        axes.set_xticks(range(len(axis.choices)), [str(choice) for choice in axis.choices])
        axes.set_xlim(-0.5, len(axis.choices) - 0.5)
    if axis.is_log:
        axes.set_xscale("log")


def draw_values(axes: "Axes", search: FoundSearch, places: Sequence[float]) -> None:
    """Values of trials at places, the best one as a star; values far beyond most others at the edge of the panel."""
    trials, values = judged(search), shown_values(search)
    for state, look in LOOKS.items():
        kept = [(x, y) for trial, x, y in zip(trials, places, values, strict=True) if trial.state == state]
        if kept:
            across, up = zip(*kept, strict=True)
            axes.scatter(across, up, s=22, label=state, **look)
    for trial, x, y in zip(trials, places, values, strict=True):
        if trial.value != y:  # far beyond the others, and drawn at the edge
            axes.annotate(f"{trial.value:.3g}", (x, y), (0, 4), textcoords="offset points", fontsize=7, ha="center")
    best = search.best_first[0]
    if best.state == FINISHED:
        place = trials.index(best)
        axes.scatter([places[place]], [values[place]], label="best", **BEST)
    axes.set_ylabel(search.metric, fontsize=9)
    axes.margins(0.08)


def judged(search: FoundSearch) -> list[TrialRow]:
    """Trials with a value, finished or pruned."""
    return [trial for trial in search.trials if trial.value is not None and trial.state in LOOKS]


def shown_values(search: FoundSearch) -> list[float]:
    """The values of judged trials, the far worse ones as the edge of what is shown."""
    values = np.array([trial.value for trial in judged(search)], dtype=float)
    if not len(values):
        return []
    low, high = np.quantile(values, [0.25, 0.75])
    reach = BEYOND * (high - low)
    worst = (None, high + reach) if search.direction == "minimize" else (low - reach, None)
    return np.clip(values, *worst).tolist()


# ------------------------------------------------------------------------------------------------ parallel view


def parallel_figure(search: FoundSearch) -> "Figure":
    """A line a finished trial over all settings to its value; the better, the darker, the best in its own colour."""
    figure, axes = one_panel("", width=13.0)
    names = [*(short(search, key) for key in search.space), search.metric]
    finished = [trial for trial in search.best_first if trial.state == FINISHED]
    columns = [placed(search, key, finished) for key in search.space]
    columns.append(spread(np.array([trial.value for trial in finished], dtype=float)))
    for rank in reversed(range(len(finished))):
        color = COLORS[1] if rank == 0 else COLORS[0]
        fade = 1 - 0.85 * rank / max(1, len(finished) - 1)
        axes.plot(range(len(names)), [column[rank] for column in columns], color=color, alpha=fade, linewidth=1.6)
    for place, key in enumerate(search.space):
        label_axis(axes, search, key, place)
    told = [f"{trial.value:.4g}" for trial in (finished[0], finished[-1])] if finished else []
    for text, column in zip(told, (columns[-1][0], columns[-1][-1]) if finished else (), strict=True):
        axes.text(len(names) - 0.97, column, f" {text}", va="center", fontsize=9)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.3, len(names) - 0.7)
    axes.set_yticks([])
    axes.grid(axis="x", color="#c8c8c8")
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def placed(search: FoundSearch, key: str, trials: Sequence[TrialRow]) -> list[float]:
    """Where trials cross the axis of a setting: from 0, the lowest value of any trial, to 1."""
    axis = search.space[key]
    low, high = ends_of(search, key)
    places = [scaled(axis.place(trial.settings[key]), axis.is_log) for trial in trials]
    return [(place - low) / (high - low) if high > low else 0.5 for place in places]


def ends_of(search: FoundSearch, key: str) -> tuple[float, float]:
    axis = search.space[key]
    if axis.choices:
        return 0.0, len(axis.choices) - 1.0
    places = [scaled(axis.place(trial.settings[key]), axis.is_log) for trial in search.trials]
    return min(places), max(places)


def scaled(value: float, is_log: bool) -> float:
    return math.log10(value) if is_log else value


def spread(values: np.ndarray) -> list[float]:
    """Values from 0 to 1; nearly equal ones are all in the middle."""
    if not len(values):
        return []
    reach = values.max() - values.min()
    return ((values - values.min()) / reach if reach > 0 else np.full(len(values), 0.5)).tolist()


def label_axis(axes: "Axes", search: FoundSearch, key: str, place: int) -> None:
    """The choices of an axis, or the lowest and the highest value of any trial."""
    axis = search.space[key]
    if axis.choices:
        last = max(1, len(axis.choices) - 1)
        told = {number / last if len(axis.choices) > 1 else 0.5: str(each) for number, each in enumerate(axis.choices)}
    else:
        low, high = ((10**end if axis.is_log else end) for end in ends_of(search, key))
        told = {0.0: f"{low:.4g}", 1.0: f"{high:.4g}"} if high > low else {0.5: f"{low:.4g}"}
    for height, text in told.items():
        axes.text(place - 0.02, height, text, va="center", ha="right", fontsize=9, bbox=UNDER_WORDS)
