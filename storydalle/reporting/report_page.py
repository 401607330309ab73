"""report.html: tables with intervals, plots of scores, drift, characters and training, and what failed."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from storydalle.metrics.declared import declared
from storydalle.mistakes import told_in_one_line
from storydalle.reporting import strips
from storydalle.reporting.plots import MAX_PANELS, ROUNDING, Curve, Points, plot_bars, plot_dots, plot_lines, plot_steps
from storydalle.reporting.report_runs import Run
from storydalle.reporting.report_scores import LEGEND, Comparison, families, matching
from storydalle.reporting.report_tables import failure_table, score_table
from storydalle.stories.pictures import open_picture

SHOWN = ("best", "median", "worst")
STRIP = re.compile(r"strip-[0-9]+\.png")  # the pictures of an evaluation
STRIP_SIZE = (1200, 1200)
POSITION = re.compile(r".*_at_\d+")
SHORT, LONG = 40, 160  # letters of a name below a plot, where two stand side by side and where one does
NO_SHARE = re.compile(r"(.*/)?(nats|probe|loss|grad|lr).*")  # what is none, be it between 0 and 1

Curves = Mapping[str, Sequence[Mapping[str, Curve]]]  # by config, run and name


def page_of(
    title: str,
    found: Sequence[Comparison],
    runs: Sequence[Run],
    curves: Curves,
    patterns: Sequence[str] | None,
    out: Path,
) -> str:
    """The page, which needs no other file; it links from ``out`` to pages of evaluations, where their strips are."""
    parts = []
    for each in found:
        if each.names(patterns):
            parts += protocol_parts(each, patterns)
            own = [run for run in runs if run.protocol == each.protocol]
            parts += [links(own, out), *shown_strips(own)]
    if trained := curve_plots(curves):
        parts += ["<h2>While they trained</h2>", f'<div class="plots">{"".join(trained)}</div>']
    if failures := [run for run in runs if run.failure]:
        parts += [
            f"<h2>Without numbers: {len(failures)}</h2>",
            as_html(failure_table(failures)).replace("<td>", '<td style="text-align: left">'),
        ]
    return strips.page_of(title, list(filter(None, parts)))


def protocol_parts(found: Comparison, patterns: Sequence[str] | None) -> list[str]:
    """One protocol: its tables, its plots, and what it fixes."""
    names = found.names(patterns)
    parts = [f"<h2>{strips.escaped(found.heading(str))}</h2>"]
    notes = [found.common(str).replace("all with", "All with", 1), *(note.replace("`", "") for note in found.notes)]
    parts += [paragraph(note) for note in notes if note]
    for title, columns in families(names).items():
        parts += [f"<p><b>{strips.escaped(title)}</b></p>"] if title else []
        parts.append(as_html(score_table(found, columns, {name: words(name) for name in columns})))
    legend = "; ".join(LEGEND[kind] for kind in found.kinds(names))
    parts += [paragraph(f"{legend}.")] if legend else []
    plots = [*score_plots(found, names), *drift_plots(found, patterns), *character_plots(found, patterns)]
    parts.append(f'<div class="plots">{"".join(plots)}</div>')
    facts = {"hash": found.protocol} | {name: str(value) for name, value in found.fields.items() if value is not None}
    if found.protocol:
        parts.append(f"<details><summary>What the protocol fixes</summary>{strips.facts_list(facts)}</details>")
    return parts


def as_html(markdown: str) -> str:
    """A table whose intervals stand small beneath their values; paths and settings may break into lines."""
    markdown = markdown.replace("\\|", "\N{BROKEN BAR}")  # A bar would be the edge of a column.
    table = strips.html_table(re.sub(r" ± ([^ |]+)", r" [± \1]", markdown))
    return re.sub(r"(?<!<)([/=])(?=\w)", r"\1<wbr>", table)


def paragraph(text: str) -> str:
    return f'<p class="note" style="overflow-wrap: anywhere">{strips.escaped(text)}</p>'


def words(name: str) -> str:
    """A score's name that can be broken into lines."""
    return name.replace("_", " ")


def links(runs: Iterable[Run], out: Path) -> str:
    """Links to the pages beside records, with the best and the worst strips."""
    pages = dict.fromkeys(run.folder / "index.html" for run in runs)
    found = [Path(os.path.relpath(page, out)).as_posix() for page in pages if page.is_file()]
    tags = [f'<a href="{quote(page)}">{strips.escaped(str(Path(page).parent))}</a>' for page in found]
    return f'<p class="note">Strips, best and worst: {", ".join(tags)}</p>' if tags else ""


def shown_strips(runs: Iterable[Run]) -> Iterator[str]:
    """The best, the median and the worst stories of each evaluation, each over the true frames."""
    strips_of = {run.folder: run.strips for run in runs}
    for folder, headings in strips_of.items():
        for file, heading in headings.items():
            is_ours = STRIP.fullmatch(file) and (folder / file).is_file() and not (folder / file).is_symlink()
            if is_ours and any(f": {kind} of" in heading for kind in SHOWN):
                with told_in_one_line(f"{folder / file} cannot be shown"):
                    picture = open_picture(folder / file)
                picture.thumbnail(STRIP_SIZE)
                image = strips.image_tag(picture, heading)
                yield f'<h3>{strips.escaped(heading)}</h3><figure class="strip">{image}</figure>'


# ------------------------------------------------------------------------------------------------ plots


def score_plots(found: Comparison, names: Sequence[str]) -> list[str]:
    """Scores with intervals, a plot a family; shares have one to themselves."""
    plots = []
    for title, family in families(names).items():
        shares = [name for name in family if is_share(found, name)]
        for part in (shares, [name for name in family if name not in shares]):
            if part:
                rows = points(found, {name: words(name) for name in part}, LONG)
                plots.append(narrow(plot_dots(rows, title or "Scores")))
    return plots


def narrow(svg: str) -> str:
    """A plot that a phone shows whole."""
    look = "min-width: 0; max-width: 600px; margin: auto"
    return f"<div>{svg.replace('<svg', f'<svg style={look!r}', 1)}</div>"


def is_share(found: Comparison, name: str) -> bool:
    values = [scores[name].mean for scores in found.lines.values() if name in scores]
    return not NO_SHARE.fullmatch(name) and all(0 <= value <= 1 + ROUNDING for value in values)


def drift_plots(found: Comparison, patterns: Sequence[str] | None) -> list[str]:
    """Scores by frame of the story, a plot a score."""
    names = [name for name in matching(found.all_names(), patterns) if POSITION.fullmatch(name)]
    scores: dict[str, dict[str, str]] = {}
    for name in names:
        score, _, place = name.rpartition("_at_")
        scores.setdefault(score, {})[name] = place
    return [
        f"<div>{plot_lines(lines, f'{words(score).capitalize()} by frame', 'frame of the story')}</div>"
        for score, places in scores.items()
        if (lines := filled(points(found, places)))
    ]


def character_plots(found: Comparison, patterns: Sequence[str] | None) -> list[str]:
    bars = {prefix: title for metric in declared() for prefix, title in metric.bars.items()}
    plots = []
    for prefix, title in bars.items():
        names = [name for name in matching(found.all_names(), patterns) if name.startswith(prefix)]
        rows = filled(points(found, {name: words(name.removeprefix(prefix)) for name in names}))
        plots += [f'<div class="wide">{plot_bars(rows, title)}</div>'] if rows else []
    return plots


def filled(rows: Mapping[str, Points]) -> dict[str, Points]:
    return {row: each for row, each in rows.items() if each}


def points(found: Comparison, titles: Mapping[str, str], max_label: int = SHORT) -> dict[str, Points]:
    """Points of some scores, by lines whose names fit below a plot; a share's interval ends at 0 and 1."""
    short = short_names(found.lines, max_label)
    shares = {title for name, title in titles.items() if is_share(found, name)}
    rows: dict[str, Points] = {}
    for line, each in found.points(titles).items():
        rows[short[line]] = {title: clipped(point) if title in shares else point for title, point in each.items()}
    return rows


def clipped(point: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = point
    return value, max(low, 0.0) if low == low else low, min(high, 1.0) if high == high else high


def short_names(names: Iterable[str], length: int) -> dict[str, str]:
    """Names that fit below a plot: their beginnings and ends, and a number where those are another's."""
    short: dict[str, str] = {}
    half = length // 2
    for name in names:
        text = name if len(name) <= length else f"{name[: half - 2]}...{name[-half:]}"
        short[name] = text if text not in short.values() else f"{text} ({len(short) + 1})"
    return short


def curve_plots(curves: Curves) -> list[str]:
    """What the runs logged, a plot a value."""
    names = list(dict.fromkeys(name for runs in curves.values() for run in runs for name in run))[:MAX_PANELS]
    short = short_names(curves, LONG)
    return [
        narrow(plot_steps({short[c]: [run[name] for run in runs if name in run] for c, runs in curves.items()}, name))
        for name in names
    ]
