"""Scores as markdown: one line for each row, one column for each measured score."""

from collections.abc import Mapping, Sequence

from storydalle.evaluation.loss_probes import PROBE_COLUMNS, PROBE_LEGEND
from storydalle.evaluation.toon_table import markdown, number, ordered
from storydalle.metrics.declared import columns_of, legend_of
from storydalle.metrics.resampling import Interval
from storydalle.metrics.topics import CHARACTERS, CONTINUATION, PICTURES

Rows = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Interval]]

TITLES = (CHARACTERS, PICTURES, CONTINUATION)


def score_columns(title: str) -> dict[str, str]:
    """Headings of a table by score: those of metrics, then those of probes."""
    return columns_of(title, PROBE_COLUMNS)


def score_table(rows: Rows, columns: Mapping[str, str], intervals: Intervals | None = None) -> str:
    """A markdown table of the columns that some row has; empty if there is none."""
    shown = labelled(columns, list(dict.fromkeys(name for scores in rows.values() for name in scores)))
    if not shown:
        return ""

    def cell(row: str, name: str) -> str:
        text, interval = compact(rows[row].get(name)), (intervals or {}).get(row, {}).get(name)
        if interval is None or text == "-" or interval[0] != interval[0]:
            return text
        return f"{text} [{compact(interval[0])}, {compact(interval[1])}]"

    lines = ([row, *(cell(row, name) for name in shown)] for row in ordered(rows))
    return markdown(["", *shown.values()], lines)


def labelled(columns: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The columns with scores; a star in a column becomes the label of each network."""
    shown: dict[str, str] = {}
    for score, heading in columns.items():
        before, star, behind = score.partition("*")
        for name in names if star else [score] * (score in names):
            if name.startswith(before) and name.endswith(behind):
                label = name[len(before) : len(name) - len(behind)] if star else ""
                shown.setdefault(name, heading.replace("*", label))
    return shown


def compact(value: float | None) -> str:
    """Three digits, or a small number as it is."""
    if value is not None and 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return number(value)


def score_tables(rows: Rows, intervals: Intervals | None = None, titles: Sequence[str] = TITLES) -> str:
    """All tables that have a column, each with its legend."""
    tables = {title: score_table(rows, score_columns(title), intervals) for title in titles}
    legends = {title: legend_of(title, [PROBE_LEGEND] if title == PICTURES else []) for title in titles}
    return "\n\n".join(f"{table}\n\n{legends[title]}" for title, table in tables.items() if table)
