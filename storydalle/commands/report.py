"""report: tables of runs, with intervals, as markdown, LaTeX, csv and a web page.

  storydalle report runs=runs/toon/story_dalle
  storydalle report runs=runs/toon/story_dalle watch=true    how far each run of a sweep is, until none is left to run
  storydalle report runs=evaluated out=compared
  storydalle report runs=evaluated baseline=story_dalle      and what differs from it, tested story by story
  storydalle report runs=experiments 'metrics=["character_*", "hat_carried"]' readme=experiments/README.md

Numbers of different protocols cannot be compared, so each protocol has its own tables; a line between them says how the
protocols differ. With one seed, an interval is the run's own, over resampled stories; with several seeds it is over
seeds and stories or, where no values of stories were kept, over seeds. Prints the tables and writes report.md,
report.tex, report.csv, report.html (which needs no other file and no network), scores.png, costs.png, and curves.png
with the training logs. Runs that failed or were interrupted have a row too. Of several runs with the same config and
seed, the last one counts. A search has a table of its trials, the best first, and search.png.
"""

from dataclasses import dataclass
from pathlib import Path

from storydalle.commands.application import Request
from storydalle.mistakes import UserError
from storydalle.reporting.result_pages import fill_pages
from storydalle.reporting.watching import watch
from storydalle.settings import filled


@dataclass(frozen=True)
class ReportSettings:
    runs: Path  # a folder; every metrics.json below it counts
    baseline: str | None  # a line of the tables
    metrics: tuple[str, ...] | None  # names or patterns to show
    out: Path | None  # by default the folder of the runs
    readme: tuple[Path, ...] | None  # markdown files whose results are replaced
    watch: bool


def run(request: Request) -> None:
    settings = filled(ReportSettings, request.settings)
    folder = settings.runs
    if not folder.is_dir():
        raise UserError(f"no folder runs={folder}: give the folder of a run, an experiment or a sweep")
    if settings.watch:
        watch(folder)
        return
    from storydalle.reporting.compared_runs import Report  # a watch starts without it

    found = Report.of(folder, settings.metrics, settings.baseline)
    print(found.text())
    fill_pages(settings.readme, found.text())
    out = settings.out or folder
    print(f"wrote {', '.join(str(out / name) for name in found.write(out))}")
