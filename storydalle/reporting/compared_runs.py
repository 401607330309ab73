"""The runs of a folder, compared: as a text, and as the files of ``storydalle report``."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from storydalle.files.whole import write_text
from storydalle.mistakes import UserError, nearest
from storydalle.reporting.curves import Curve, read_curves
from storydalle.reporting.report_costs import cost_points
from storydalle.reporting.report_differences import check_baseline
from storydalle.reporting.report_latex import latex
from storydalle.reporting.report_runs import Record, ScoredRun, read_records, read_runs
from storydalle.reporting.report_scores import HASH_LENGTH, MAX_DRAWN, Comparison, comparisons, matching
from storydalle.reporting.report_searches import FoundSearch, note_on_searches, searches_below
from storydalle.reporting.report_tables import csv_rows, markdown
from storydalle.training.runs import LOGS, METRICS

Patterns = Sequence[str] | None
PAGE = "report.html"
MAX_CURVES = 8  # configurations that a plot of curves can tell apart


class Report(NamedTuple):
    """The runs of a folder, compared."""

    folder: Path
    runs: list[ScoredRun]
    compared: list[Comparison]
    curves: dict[str, list[dict[str, Curve]]]  # what the runs logged, by config and run
    patterns: Patterns
    baseline: str | None = None  # a line, from which the differences of all others are tested
    searches: Sequence[FoundSearch] = ()

    @classmethod
    def of(cls, folder: Path, patterns: Patterns = None, baseline: str | None = None) -> "Report":
        records = read_records(folder)
        if not records:
            raise UserError(f"no {METRICS} under {folder}: a finished run writes one")
        runs = read_runs(records)
        curves = curves_of(records, patterns)
        found = cls(folder, runs, comparisons(runs), curves, patterns, baseline, searches_below(folder))
        scores = {name for run in runs for name in run.values}
        if patterns and scores and not matching(scores, patterns) and not found.curves:
            raise UserError(f"metrics={list(patterns)}: these runs have no such score; {nearest(patterns[0], scores)}")
        check_baseline(found.compared, baseline)
        return found

    @property
    def failures(self) -> list[ScoredRun]:
        return [run for run in self.runs if run.failure]

    def text(self) -> str:
        tables = markdown(self.compared, self.failures, self.patterns, self.baseline)
        searches = [*(each.text() for each in self.searches), note_on_searches(self.folder)]
        return "\n\n".join(filter(None, [*searches, tables]))

    def write(self, out: Path) -> list[str]:
        """Write tables, page and plots; return the names of the files."""
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "report.md", self.text() + "\n")
        write_text(out / "report.tex", latex(self.compared, self.patterns, self.baseline))
        rows = io.StringIO(newline="")
        csv.writer(rows).writerows(csv_rows(self.compared, self.failures, self.patterns, self.baseline))
        write_text(out / "report.csv", rows.getvalue())
        write_text(out / PAGE, self.page(out))
        return ["report.md", "report.tex", "report.csv", PAGE, *self.plot(out)]

    def page(self, out: Path) -> str:
        from storydalle.reporting.report_page import report_page

        title = f"Runs in {self.folder.resolve().name}"
        return report_page(
            title, self.compared, self.runs, self.curves, self.patterns, self.baseline, out, self.searches
        )

    def plot(self, out: Path) -> list[str]:
        """Draw scores and costs, a picture a protocol, and curves; return the names of the files."""
        from storydalle.reporting.plots import plot_costs, plot_curves, plot_scores
        from storydalle.reporting.search_plots import plot_search

        names = []
        for each in self.compared:
            shown = each.names(self.patterns)
            ending = ".png" if len(self.compared) == 1 else f"-{each.protocol[:HASH_LENGTH]}.png"
            if shown:
                names.append(f"scores{ending}")
                plot_scores(each.points({name: name for name in shown}, MAX_DRAWN), out / names[-1])
            points = cost_points(each, shown[0]) if shown else {}
            if points:
                names.append(f"costs{ending}")
                plot_costs(points, shown[0], out / names[-1])
        if self.curves:
            names.append("curves.png")
            plot_curves(self.curves, out / names[-1])
        for number, search in enumerate(self.searches, 1):
            names.append("search.png" if len(self.searches) == 1 else f"search-{number}.png")
            plot_search(search, out / names[-1])
        return names


def curves_of(records: Sequence[Record], patterns: Patterns) -> dict[str, list[dict[str, Curve]]]:
    """Curves that runs logged, failed ones too, by config without the settings that all share."""
    folders: dict[str, list[Path]] = {}
    for record in records:
        if any(record.folder.glob(LOGS)):
            folders.setdefault(record.config, []).append(record.folder)
    words = [{word for word in config.split(" ") if "=" in word} for config in folders]
    shared = set.intersection(*words) if words else set()
    logged: dict[str, list[dict[str, Curve]]] = {}
    for config, runs in list(folders.items())[:MAX_CURVES]:
        name = " ".join(word for word in config.split(" ") if word not in shared)
        found = [{name: curves[name] for name in matching(curves, patterns)} for curves in map(read_curves, runs)]
        logged |= {name: kept} if (kept := [each for each in found if each]) else {}
    return logged


def print_table(folder: Path) -> None:
    """Print the table of a sweep's runs; of a search, write the page too."""
    found = Report.of(folder)
    print(found.text())
    if found.searches:
        print(f"wrote {', '.join(str(folder / name) for name in found.write(folder))}")
