"""report: the table of runs, their mean and interval over seeds.

  storydalle report runs=runs/toon/story_dalle
  storydalle report runs=experiments 'metrics=["character_*", "hat_carried"]' readme=experiments/README.md

Prints markdown tables, one a protocol (numbers of different protocols are not comparable), and writes report.md,
report.csv, scores.png with the same numbers, and curves.png with what the runs logged while they trained. A run that
failed or was cut off has its row too; of several runs with one config and one seed the last one counts.
"""

import csv
import fnmatch
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from storydalle.commands.application import Request
from storydalle.commands.mistakes import UserError
from storydalle.commands.outputs import fill_results

if TYPE_CHECKING:
    from storydalle.commands.plots import Curve

METRICS, CONFIG = "metrics.json", "config.yaml"
# Student's t at 97.5 % for 1, 2, ... degrees of freedom; beyond, the normal's value is within 4 %.
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


class Run(NamedTuple):
    """One row of numbers of one run."""

    config: str
    protocol: str
    seeds: tuple[Any, ...]
    values: dict[str, float]
    failure: str | None = None


class Summary(NamedTuple):
    """A number over seeds; without a second seed there is no interval."""

    mean: float
    half_width: float | None
    num_seeds: int


class TableAfterSweep:
    """A Hydra callback: prints the table of a sweep when its last job has ended."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda **_: None
        raise AttributeError(name)

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        folder = Path(config.runs) / config.hydra.runtime.choices.experiment
        print(report(folder, None, None))


def run(request: Request) -> None:
    settings = request.settings
    folder = Path(str(settings["runs"])).expanduser()
    if not folder.is_dir():
        raise UserError(f"no folder runs={folder}: give the folder of a run, an experiment or a sweep")
    out = folder if settings["out"] is None else Path(str(settings["out"])).expanduser()
    text = report(folder, settings["metrics"], out)
    print(text)
    if settings["readme"] is not None:
        fill_results(Path(str(settings["readme"])), text)
    drawn = plots(folder, settings["metrics"], out)
    print(f"wrote {', '.join(str(out / name) for name in ('report.md', 'report.csv', *drawn))}")


def plots(folder: Path, patterns: Sequence[str] | None, out: Path) -> list[str]:
    """Draw scores, a picture a protocol, and curves; return the names of the files."""
    from storydalle.commands.plots import plot_curves, plot_scores

    names = []
    runs = [run for run in last_of_each_seed(read_runs(folder)) if not run.failure]
    protocols = sorted({run.protocol for run in runs})
    for protocol in protocols:
        scores = scores_of([run for run in runs if run.protocol == protocol], patterns)
        if any(scores.values()):
            names.append("scores.png" if len(protocols) == 1 else f"scores-{protocol[:12]}.png")
            plot_scores(scores, out / names[-1])
    curves = curves_of(folder, patterns)
    if any(run for group in curves.values() for run in group):
        names.append("curves.png")
        plot_curves(curves, out / names[-1])
    return names


def scores_of(runs: Sequence[Run], patterns: Sequence[str] | None) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and half width of each metric by config; the half width is nan without a second seed."""
    names = shown(dict.fromkeys(name for run in runs for name in run.values), patterns)
    shared = shared_settings([run.config for run in runs])
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for config in dict.fromkeys(run.config for run in runs):
        same = [run for run in runs if run.config == config]
        found = {name: summary([run.values[name] for run in same if name in run.values]) for name in names}
        scores[without(shared, config)] = {
            name: (each.mean, math.nan if each.half_width is None else each.half_width)
            for name, each in found.items()
            if each is not None
        }
    return scores


def curves_of(folder: Path, patterns: Sequence[str] | None) -> "dict[str, list[dict[str, Curve]]]":
    """What the runs under a folder logged, by config."""
    from storydalle.commands.plots import read_curves

    logged: dict[str, list[dict[str, Curve]]] = {}
    for path in sorted(folder.rglob(METRICS)):
        curves = read_curves(path.parent)
        kept = matching(curves, patterns)
        if kept:
            config = str(json.loads(path.read_text()).get("config", path.parent.name))
            logged.setdefault(config, []).append({name: curves[name] for name in kept})
    shared = shared_settings(list(logged)) if logged else []
    return {without(shared, config): runs for config, runs in logged.items()}


def report(folder: Path, patterns: Sequence[str] | None, out: Path | None) -> str:
    """Markdown of all runs under a folder, also written to ``out`` with the numbers as csv."""
    runs = last_of_each_seed(read_runs(folder))
    if not runs:
        raise UserError(f"no {METRICS} under {folder}: a finished run writes one")
    text = markdown(runs, patterns)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(text + "\n")
        with (out / "report.csv").open("w", newline="") as file:
            write_csv(runs, csv.writer(file))
    return text


def read_runs(folder: Path) -> Iterator[Run]:
    """Every run under a folder, a failure where it has no numbers."""
    for path in sorted({*folder.rglob(METRICS), *(found.with_name(METRICS) for found in folder.rglob(CONFIG))}):
        where = path.parent.relative_to(folder).as_posix()
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            yield Run(where, "", (), {}, "not finished")
            continue
        except ValueError:
            yield Run(where, "", (), {}, f"{METRICS} is damaged")
            continue
        yield from runs_of_record(record, where)


def last_of_each_seed(runs: Iterable[Run]) -> list[Run]:
    """Runs without those that were run again: a seed that counts twice would make an interval too narrow."""
    kept: dict[object, Run] = {}
    for number, run in enumerate(runs):
        kept[(run.config, run.protocol, run.seeds, run.failure) if run.seeds else number] = run
    return list(kept.values())


def runs_of_record(record: Mapping[str, Any], where: str) -> Iterator[Run]:
    """The run of a record, or one a row where its values are rows of numbers."""
    config, seeds = str(record.get("config", where)), tuple(record.get("seeds", ()))
    if "error" in record:
        yield Run(config, "", seeds, {}, f"failed: {record['error']}")
        return
    for row, values in rows_of(record.get("values", {})):
        subject, *changed = config.split(" ")
        name = " ".join([f"{subject}: {row}", *changed]) if row else config
        yield Run(name, str(record.get("protocol_hash", "")), seeds, values)


def rows_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Flat rows of numbers from nested ones; what was not measured (null) is left out."""
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    if numbers:
        yield prefix, numbers
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from rows_of(value, f"{prefix}, {name}" if prefix else str(name))


def markdown(runs: Sequence[Run], patterns: Sequence[str] | None) -> str:
    """One table a protocol, then what failed."""
    parts = []
    for protocol in sorted({run.protocol for run in runs if not run.failure}):
        chosen = [run for run in runs if run.protocol == protocol and not run.failure]
        names = shown(dict.fromkeys(name for run in chosen for name in run.values), patterns)
        if not names:
            continue
        shared = shared_settings([run.config for run in chosen])
        lines = [["config", "seeds", *names], ["---", *["---:"] * (len(names) + 1)]]
        for config in dict.fromkeys(run.config for run in chosen):
            same = [run for run in chosen if run.config == config]
            cells = [cell(summary([run.values[name] for run in same if name in run.values])) for name in names]
            lines.append([without(shared, config), str(len(same)), *cells])
        title = f"Protocol `{protocol[:12]}`" if protocol else "No protocol recorded"
        if shared:
            title += f", all with {' '.join(f'`{word}`' for word in shared)}"
        parts.append(f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    failures = [f"| {run.config} | {run.failure} |" for run in runs if run.failure]
    if failures:
        parts.append("\n".join(["| config | failure |", "| --- | --- |", *failures]))
    return "\n\n".join(parts)


def shared_settings(configs: Sequence[str]) -> list[str]:
    """Settings (``key=value``) that all configs name: a table says them once."""
    words = [[word for word in config.split(" ") if "=" in word] for config in configs]
    return [word for word in words[0] if all(word in each for each in words)]


def without(shared: Sequence[str], config: str) -> str:
    return " ".join(word for word in config.split(" ") if word not in shared)


def shown(names: Iterable[str], patterns: Sequence[str] | None) -> list[str]:
    """The metrics of a table: those asked for, or all but the noise of the last training steps."""
    names = list(names)
    return matching(names, patterns) if patterns else [name for name in names if not name.startswith("train/")] or names


def matching(names: Iterable[str], patterns: Sequence[str] | None) -> list[str]:
    names = list(names)
    if patterns is None:
        return names
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def summary(values: Sequence[float]) -> Summary | None:
    """Mean and the half width of its 95 % interval by Student's t."""
    if not values:
        return None
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Summary(mean, None, n)
    t = T_QUANTILES[n - 2] if n - 2 < len(T_QUANTILES) else 1.96
    return Summary(mean, t * statistics.stdev(values) / math.sqrt(n), n)


def cell(value: Summary | None) -> str:
    if value is None:
        return "-"
    text = f"{value.mean:.4g}"
    return text if value.half_width is None else f"{text} ± {value.half_width:.2g}"


def write_csv(runs: Sequence[Run], writer: Any) -> None:
    """One line a number: config, protocol, metric, mean, interval, seeds."""
    writer.writerow(["config", "protocol_hash", "metric", "mean", "low", "high", "num_seeds", "failure"])
    groups: dict[tuple[str, str], list[Run]] = {}
    for entry in runs:
        if entry.failure:
            writer.writerow([entry.config, "", "", "", "", "", len(entry.seeds), entry.failure])
        else:
            groups.setdefault((entry.config, entry.protocol), []).append(entry)
    for (config, protocol), same in groups.items():
        for name in dict.fromkeys(name for entry in same for name in entry.values):
            found = summary([entry.values[name] for entry in same if name in entry.values])
            assert found is not None
            ends = ["", ""]
            if found.half_width is not None:
                ends = [repr(found.mean - found.half_width), repr(found.mean + found.half_width)]
            writer.writerow([config, protocol, name, repr(found.mean), *ends, found.num_seeds, ""])
