"""The runs of a folder, compared: as a text, and as the files of ``storydalle report``."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from storydalle.files.whole import write_text
from storydalle.mistakes import UserError, nearest
from storydalle.reporting.curves import Curve, read_curves
from storydalle.reporting.report_differences import check_baseline
from storydalle.reporting.report_latex import latex
from storydalle.reporting.report_runs import Record, ScoredRun, read_records, read_runs
from storydalle.reporting.report_scores import HASH_LENGTH, Comparison, comparisons, matching
from storydalle.reporting.report_tables import csv_rows, markdown
from storydalle.training.runs import METRICS

Patterns = Sequence[str] | None
PAGE = "report.html"


class Report(NamedTuple):
    """The runs of a folder, compared."""

    folder: Path
    runs: list[ScoredRun]
    compared: list[Comparison]
    curves: dict[str, list[dict[str, Curve]]]  # what the runs logged, by config and run
    patterns: Patterns
    baseline: str | None = None  # a line, from which the differences of all others are tested

    @classmethod
    def of(cls, folder: Path, patterns: Patterns = None, baseline: str | None = None) -> "Report":
        records = read_records(folder)
        if not records:
            raise UserError(f"no {METRICS} under {folder}: a finished run writes one")
        runs = read_runs(records)
        found = cls(folder, runs, comparisons(runs), curves_of(records, patterns), patterns, baseline)
        scores = {name for run in runs for name in run.values}
        if patterns and scores and not matching(scores, patterns) and not found.curves:
            raise UserError(f"metrics={list(patterns)}: these runs have no such score; {nearest(patterns[0], scores)}")
        check_baseline(found.compared, baseline)
        return found

    @property
    def failures(self) -> list[ScoredRun]:
        return [run for run in self.runs if run.failure]

    def text(self) -> str:
        return markdown(self.compared, self.failures, self.patterns, self.baseline)

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
        return report_page(title, self.compared, self.runs, self.curves, self.patterns, self.baseline, out)

    def plot(self, out: Path) -> list[str]:
        """Draw scores, a picture a protocol, and curves; return the names of the files."""
        from storydalle.reporting.plots import plot_curves, plot_scores

        names = []
        for each in self.compared:
            shown = each.names(self.patterns)
            if shown:
                names.append("scores.png" if len(self.compared) == 1 else f"scores-{each.protocol[:HASH_LENGTH]}.png")
                plot_scores(each.points({name: name for name in shown}), out / names[-1])
        if self.curves:
            names.append("curves.png")
            plot_curves(self.curves, out / names[-1])
        return names


def curves_of(records: Sequence[Record], patterns: Patterns) -> dict[str, list[dict[str, Curve]]]:
    """Curves that runs logged, failed ones too, by config without the settings that all share."""
    logged: dict[str, list[dict[str, Curve]]] = {}
    for record in records:
        curves = read_curves(record.folder)
        kept = matching(curves, patterns)
        if kept:
            logged.setdefault(record.config, []).append({name: curves[name] for name in kept})
    words = [{word for word in config.split(" ") if "=" in word} for config in logged]
    shared = set.intersection(*words) if words else set()
    return {" ".join(word for word in name.split(" ") if word not in shared): runs for name, runs in logged.items()}


def print_table(folder: Path) -> None:
    """Print the table of a sweep's runs."""
    print(Report.of(folder).text())
