"""The page of recorded benches: for each machine its tables, and for all of them how much faster drawing is."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from storydalle.bench.measuring import Timing
from storydalle.bench.rows import DEFAULT, BenchRow, spread_note, table
from storydalle.evaluation.toon_table import markdown
from storydalle.files.json_values import JsonObject, as_object
from storydalle.files.reading import read_object
from storydalle.files.whole import write_text
from storydalle.mistakes import UserError
from storydalle.reporting.plots import Points, plot_bars
from storydalle.reporting.result_pages import fill_results

FIGURE, PAGE = "ratios.svg", "README.md"
WITH, WITHOUT = ", with source", ", without"
TITLE = "Drawing codes: times as fast as the released loop"
NOTE = "Our default beside the loop of the released program, with attention to the source and without."


def keep(record: Path, folder: Path) -> Path:
    """Copy a record to the page's folder, under the name of its machine; an older one of that machine is replaced."""
    content = read_object(record)
    if as_object(content.get("protocol") or {}).get("kind") != "speed":
        raise UserError(f"{record} is no record of a bench: give a metrics.json that storydalle bench has written")
    kept = folder / f"{'-'.join(re.findall('[a-z0-9]+', machine_name(content).lower()))}.json"
    write_text(kept, record.read_text(encoding="utf-8"))
    return kept


def fill(folder: Path) -> None:
    """Write the figure, and the results of the page, from all records in the folder."""
    records = [read_object(path) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise UserError(f"{folder} holds no record: give the metrics.json of a bench")
    write_text(folder / FIGURE, plot_bars(bars(records), TITLE))
    parts = [f"![{TITLE}]({FIGURE})", f"{NOTE}\n\n{beside_each_other(records)}", *map(machine_text, records)]
    fill_results(folder / PAGE, "\n\n".join(parts))


# ------------------------------------------------------------------------------------------------ records


def machine_name(record: JsonObject) -> str:
    machine = as_object(record["machine"])
    return f"{machine['processor']}, {machine['threads']} threads"


def rows_of_benches(record: JsonObject) -> dict[str, list[BenchRow]]:
    """The rows of each bench, as they were measured."""
    benches = {}
    for name, rows in as_object(record["rows"]).items():
        benches[name] = [row_of(as_object(row)) for row in rows]  # type: ignore[union-attr]
    return benches


def row_of(entry: Mapping[str, object]) -> BenchRow:
    kept = {name: entry[name] for name in BenchRow._fields if name != "timing" and name in entry}
    return BenchRow(timing=Timing(**as_object(entry["timing"])), **kept)  # type: ignore[arg-type]


def ratios(record: JsonObject) -> dict[str, float]:
    """The ratio of our default way to draw in each case, against the released loop."""
    rows = rows_of_benches(record).get("decode", [])
    return {row.case: row.ratio for row in rows if row.variant == DEFAULT and row.ratio is not None}


# ------------------------------------------------------------------------------------------------ what is shown


def bars(records: Iterable[JsonObject]) -> dict[str, Points]:
    """Of each machine with and without the source, the ratio in each case."""
    shown: dict[str, Points] = {}
    for record in records:
        for ending in (WITH, WITHOUT):
            points = {
                case.removesuffix(ending): (ratio, math.nan, math.nan)
                for case, ratio in ratios(record).items()
                if case.endswith(ending)
            }
            if points:
                shown[machine_name(record) + ending] = points
    return shown


def beside_each_other(records: Iterable[JsonObject]) -> str:
    """A table of the same ratios: a line for each case and machine."""
    lines = []
    for record in records:
        found = ratios(record)
        for case in [case.removesuffix(WITH) for case in found if case.endswith(WITH)]:
            both = [f"{found[case + ending]:.2f}" for ending in (WITH, WITHOUT)]
            lines.append([case, machine_name(record), *both])
    return markdown(["", "processor", "with source", "without"], lines)


def machine_text(record: JsonObject) -> str:
    """All tables of one machine, below what is known of it."""
    machine, benches = as_object(record["machine"]), rows_of_benches(record)
    load, versions, sets = as_object(machine["load"]), as_object(machine["versions"]), machine["instruction_sets"]
    told = [
        ", ".join(map(str, sets)) if isinstance(sets, list) else "",
        f"{machine['cores']} cores, {machine['memory_gb']} GB",
        f"torch {versions['torch']}, transformers {versions['transformers']}",
        f"commit {str(record['commit'])[:12]}",
        f"load average {load['start']:.1f} at the start; other processes kept {load['others']:.1f} cores busy",
    ]
    tables = [f"*{name}*\n\n{table(rows)}" for name, rows in benches.items() if rows]
    every = [row for rows in benches.values() for row in rows]
    return "\n\n".join([f"### {machine_name(record)}", "; ".join(told), *tables, spread_note(every)])
