"""report.html: tables with intervals, plots of scores, drift, characters and training, and what failed."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image

from storydalle.metrics.topics import bars
from storydalle.mistakes import told_in_one_line
from storydalle.reporting.blocks import Grid
from storydalle.reporting.curves import Curve
from storydalle.reporting.pages import Plot, page
from storydalle.reporting.plots import (
    BAND,
    MAX_PANELS,
    ROUNDING,
    Points,
    as_svg,
    costs_figure,
    names_in,
    plot_bars,
    plot_dots,
    plot_lines,
    plot_steps,
)
from storydalle.reporting.report_costs import cost_points
from storydalle.reporting.report_runs import ScoredRun
from storydalle.reporting.report_scores import MAX_DRAWN, Comparison, families, matching
from storydalle.reporting.report_searches import FoundSearch
from storydalle.reporting.report_tables import failure_rows, part_of
from storydalle.reporting.search_plots import search_svgs
from storydalle.reporting.side_by_side import SharedStory, shared_stories
from storydalle.stories.pictures import open_picture

SHOWN = ("best", "median", "worst")
STRIP = re.compile(r"strip-[0-9]+\.png")  # the pictures of an evaluation
STRIP_SIZE = (1200, 1200)
POSITION = re.compile(r".*_at_\d+")
SHORT, LONG = 40, 160  # letters of a name below a plot, where two stand side by side and where one does
NO_SHARE = re.compile(r"(.*/)?(nats|probe|loss|grad|lr).*")  # no shares, even if all values are between 0 and 1

Patterns = Sequence[str] | None  # of the scores that are asked for
Curves = Mapping[str, Sequence[Mapping[str, Curve]]]  # by config, run and name


class ProtocolPart(NamedTuple):
    """The part of the page for one protocol."""

    heading: str
    notes: list[str]
    tables: dict[str, Grid]  # by title; one without a title has an empty one
    legend: str
    plots: list[Plot]
    facts: dict[str, str]  # what the protocol fixes
    pages: dict[str, str]  # links to pages of evaluations, by what they say
    strips: list[tuple[str, Image.Image]]  # with their headings
    stories: list[SharedStory]


def report_page(
    title: str,
    found: Sequence[Comparison],
    runs: Sequence[ScoredRun],
    curves: Curves,
    patterns: Patterns,
    baseline: str | None,
    out: Path,
    searches: Sequence[FoundSearch] = (),
) -> str:
    """The page, which needs no other file; it links from ``out`` to pages of evaluations, which have the strips."""
    return page(
        "report.html",
        title,
        searches=[search_part(each) for each in searches],
        protocols=[protocol_part(each, runs, patterns, baseline, out) for each in found if each.names(patterns)],
        curves=curve_plots(curves),
        band=BAND if any(len(own) > 1 for own in curves.values()) else "",
        failures=Grid.of(failure_rows(run for run in runs if run.failure)),
    )


class SearchPart(NamedTuple):
    """The part of the page for one search."""

    heading: str
    note: str
    table: Grid
    plots: list[Plot]


def search_part(found: FoundSearch) -> SearchPart:
    *narrow, slices, parallel = search_svgs(found).values()
    plots = [*(Plot(svg, "narrow") for svg in narrow), Plot(slices, "wide"), Plot(parallel, "wide")]
    return SearchPart(found.heading, found.note, Grid.of(found.rows()), plots)


def protocol_part(
    found: Comparison, runs: Sequence[ScoredRun], patterns: Patterns, baseline: str | None, out: Path
) -> ProtocolPart:
    """One protocol: tables, plots, its fields, and strips of its runs."""
    names = found.names(patterns)
    own = [run for run in runs if run.protocol == found.protocol]
    part = part_of(found, patterns, baseline, {name: words(name) for name in names})
    legend = "; ".join(part.legend)
    facts = {"hash": found.protocol} | {name: str(value) for name, value in found.fields.items() if value is not None}
    common = found.common(str).replace("all with", "All with", 1)
    plots = [*score_plots(found, names), *cost_plots(found, names[0])]
    return ProtocolPart(
        heading=found.heading(str),
        notes=[common, *(note.replace("`", "") for note in found.notes), drawn_note(found)],
        tables={title: Grid.of(rows) for title, rows in part.tables.items()},
        legend=f"{legend}." if legend else "",
        plots=[*plots, *drift_plots(found, patterns), *character_plots(found, patterns)],
        facts=facts if found.protocol else {},
        pages=links(own, out),
        strips=list(shown_strips(own)),
        stories=shared_stories(found),
    )


def drawn_note(found: Comparison) -> str:
    """A sentence about the lines that no plot has room for."""
    return f"Plots show the first {MAX_DRAWN} of {len(found.lines)} lines." if len(found.lines) > MAX_DRAWN else ""


def words(name: str) -> str:
    """A score's name with places where a browser may break it."""
    return name.replace("_", " ")


def links(runs: Iterable[ScoredRun], out: Path) -> dict[str, str]:
    """Links to the pages beside records, by their folders."""
    beside = dict.fromkeys(run.folder / "index.html" for run in runs)
    found = [Path(os.path.relpath(path, out)) for path in beside if path.is_file()]
    return {str(path.parent): quote(path.as_posix()) for path in found}


def shown_strips(runs: Iterable[ScoredRun]) -> Iterator[tuple[str, Image.Image]]:
    """The best, the median and the worst stories of each evaluation, each above the true frames."""
    strips_of = {run.folder: run.strips for run in runs}
    for folder, headings in strips_of.items():
        for file, heading in headings.items():
            is_ours = STRIP.fullmatch(file) and (folder / file).is_file() and not (folder / file).is_symlink()
            if is_ours and any(f": {kind} of" in heading for kind in SHOWN):
                with told_in_one_line(f"{folder / file} cannot be shown"):
                    picture = open_picture(folder / file)
                picture.thumbnail(STRIP_SIZE)
                yield heading, picture


# ------------------------------------------------------------------------------------------------ plots


def score_plots(found: Comparison, names: Sequence[str]) -> list[Plot]:
    """Scores with intervals, one plot for each family; shares have a separate plot."""
    plots = []
    for title, family in families(names).items():
        shares = [name for name in family if is_share(found, name)]
        for part in (shares, [name for name in family if name not in shares]):
            if part:
                rows = points(found, {name: words(name) for name in part}, LONG)
                plots.append(Plot(plot_dots(rows, title or "Scores"), "narrow"))
    return plots


def is_share(found: Comparison, name: str) -> bool:
    values = [scores[name].mean for scores in found.lines.values() if name in scores]
    return not NO_SHARE.fullmatch(name) and all(0 <= value <= 1 + ROUNDING for value in values)


def cost_plots(found: Comparison, score: str) -> list[Plot]:
    """The first score against each cost in which lines differ."""
    costs = cost_points(found, score)
    short = short_names(costs, LONG)
    rows = {short[line]: points for line, points in costs.items()}
    return [Plot(as_svg(costs_figure(rows, words(score))), "wide")] if rows else []


def drift_plots(found: Comparison, patterns: Patterns) -> list[Plot]:
    """Scores by frame of the story, a plot a score."""
    names = [name for name in matching(found.all_names(), patterns) if POSITION.fullmatch(name)]
    scores: dict[str, dict[str, str]] = {}
    for name in names:
        score, _, place = name.rpartition("_at_")
        scores.setdefault(score, {})[name] = place
    return [
        Plot(plot_lines(lines, f"{words(score).capitalize()} by frame", "frame of the story"))
        for score, places in scores.items()
        if (lines := filled(points(found, places)))
    ]


def character_plots(found: Comparison, patterns: Patterns) -> list[Plot]:
    plots = []
    for prefix, title in bars().items():
        names = [name for name in matching(found.all_names(), patterns) if name.startswith(prefix)]
        rows = filled(points(found, {name: words(name.removeprefix(prefix)) for name in names}))
        plots += [Plot(plot_bars(rows, title), "wide")] if rows else []
    return plots


def filled(rows: Mapping[str, Points]) -> dict[str, Points]:
    return {row: each for row, each in rows.items() if each}


def points(found: Comparison, titles: Mapping[str, str], max_label: int = SHORT) -> dict[str, Points]:
    """Points of some scores, by lines with short names; intervals of shares are cut at 0 and 1."""
    short = short_names(found.lines, max_label)
    shares = {title for name, title in titles.items() if is_share(found, name)}
    rows: dict[str, Points] = {}
    for line, each in found.points(titles, MAX_DRAWN).items():
        rows[short[line]] = {title: clipped(point) if title in shares else point for title, point in each.items()}
    return rows


def clipped(point: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = point
    return value, max(low, 0.0) if low == low else low, min(high, 1.0) if high == high else high


def short_names(names: Iterable[str], length: int) -> dict[str, str]:
    """Names that fit below a plot: beginning and end, and a number if another name has the same."""
    short: dict[str, str] = {}
    half = length // 2
    for name in names:
        text = name if len(name) <= length else f"{name[: half - 2]}...{name[-half:]}"
        short[name] = text if text not in short.values() else f"{text} ({len(short) + 1})"
    return short


def curve_plots(curves: Curves) -> list[Plot]:
    """One plot for each value that the runs logged."""
    names = names_in(run for runs in curves.values() for run in runs)[:MAX_PANELS]
    short = short_names(curves, LONG)
    plots = []
    for name in names:
        logged = {short[config]: [run[name] for run in runs if name in run] for config, runs in curves.items()}
        plots.append(Plot(plot_steps(logged, name), "narrow"))
    return plots
