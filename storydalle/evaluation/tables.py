"""Scores as markdown: one line for each row, one column for each measured score."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from storydalle.evaluation.loss_probes import PROBE_COLUMNS, PROBE_LEGEND
from storydalle.evaluation.toon_table import markdown, number, ordered, with_shares
from storydalle.metrics.declared import columns_of, legend_of
from storydalle.metrics.resampling import Interval
from storydalle.metrics.topics import CAST, CHARACTERS, CONTINUATION, LOOKS, PICTURES, PLACES, THINGS

Rows = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Interval]]

COUNTED = (CAST, THINGS, PLACES, LOOKS)
TITLES = (*COUNTED, CHARACTERS, PICTURES, CONTINUATION)
NO_ITEMS: Mapping[str, int] = MappingProxyType({})


def score_columns(title: str) -> dict[str, str]:
    """Headings of a table by score: those of metrics, then those of probes."""
    return columns_of(title, PROBE_COLUMNS)


def score_table(
    rows: Rows, columns: Mapping[str, str], intervals: Intervals | None = None, items: Mapping[str, int] = NO_ITEMS
) -> str:
    """A markdown table of the columns that some row has; empty if there is none.

    ``items``, the numbers of what is counted for each score, stand in a last row.
    """
    shown = labelled(columns, list(dict.fromkeys(name for scores in rows.values() for name in scores)))
    if not shown:
        return ""

    def cell(row: str, name: str) -> str:
        text, interval = compact(rows[row].get(name)), (intervals or {}).get(row, {}).get(name)
        if interval is None or text == "-" or interval[0] != interval[0]:
            return text
        return f"{text} [{compact(interval[0])}, {compact(interval[1])}]"

    lines = [[row, *(cell(row, name) for name in shown)] for row in ordered(rows)]
    lines += [["items", *(f"{items[name]:,}" if name in items else "-" for name in shown)]] if items else []
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


def score_tables(
    rows: Rows,
    intervals: Intervals | None = None,
    titles: Sequence[str] = TITLES,
    items: Mapping[str, int] = NO_ITEMS,
) -> str:
    """All tables that have a column, each with its legend.

    Those of ToonSV 2, where its facts are scored, stand for that of characters, and end with the numbers of ``items``.
    """
    has_facts = any("facts_right" in scores for scores in rows.values())
    titles = [title for title in titles if title not in ((CHARACTERS,) if has_facts else COUNTED)]
    rows = with_shares(rows) if has_facts else rows
    tables = {
        title: score_table(rows, score_columns(title), intervals, items if title in COUNTED else NO_ITEMS)
        for title in titles
    }
    legends = {title: legend_of(title, [PROBE_LEGEND] if title == PICTURES else []) for title in titles}
    return "\n\n".join(f"{table}\n\n{legends[title]}" for title, table in tables.items() if table)
