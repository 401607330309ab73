"""A report's tables: the text of their cells, markdown and csv."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from storydalle.reporting.report_costs import COSTS, cost_rows, mean_cost
from storydalle.reporting.report_differences import OF_P, Differences, TestedDifference, differences, legend_of
from storydalle.reporting.report_runs import ScoredRun
from storydalle.reporting.report_scores import LEGEND, OVER_SEEDS, OVER_STORIES, Comparison, Summary, families

MAX_DECIMALS = 5  # beyond, a number is written with its power of ten
OF_TESTS = ("minus", "p", "p_holm")  # columns of differences
COST, DIFFERENCE = "Cost of the training", "Difference from"


# ------------------------------------------------------------------------------------------------ cells


def cell(found: Summary | None) -> str:
    """``.913 [.90, .93]``, ``.913 (.90, .93)``, ``.913 ± .021``, or ``.913``; the interval decides the digits."""
    if found is None:
        return "-"
    if found.ends is None:
        return number(found.mean, digits(found.mean, 3))
    if found.kind == OVER_SEEDS:
        decimals = digits(found.half_width, 2)
        return f"{number(found.mean, decimals)} ± {number(found.half_width, decimals, least=1)}"
    decimals = digits(found.half_width, 1)
    ends = ", ".join(number(end, decimals, least=2) for end in found.ends)
    bracketed = f"[{ends}]" if found.kind == OVER_STORIES else f"({ends})"
    return f"{number(found.mean, decimals)} {bracketed}"


def difference_cell(difference: TestedDifference | None) -> str:
    """``+.021 (.010, .032) p=.003``: a difference, its interval, and the corrected p."""
    if difference is None:
        return "-"
    text = cell(difference.found)
    text = text if text.startswith("-") or difference.found.mean == 0 else f"+{text}"
    return text if math.isnan(difference.p_holm) else f"{text} p{probability(difference.p_holm)}"


def probability(p: float) -> str:
    """``=.012``, or ``<.001``."""
    return "<.001" if p < 0.001 else f"={number(p, 3)}"


def number(value: float, decimals: int, least: int = 3) -> str:
    """``.913``, ``12.3``: at least three digits behind the point, or one above ten."""
    if decimals > MAX_DECIMALS and value:
        return f"{value:.1e}"
    text = f"{value:.{max(decimals, 1 if abs(value) >= 10 else least)}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return re.sub(r"^(-?)0\.", r"\1.", text)


def digits(value: float, significant: int) -> int:
    """The number of decimals that shows so many significant digits of a value; 0 for zero."""
    return 0 if abs(value) < 1e-12 else max(0, significant - 1 - math.floor(math.log10(abs(value))))


# ------------------------------------------------------------------------------------------------ markdown, csv


class Part(NamedTuple):
    """Tables of one protocol, by title, in the order of a report; and the sentences below all tables."""

    tables: dict[str, list[list[str]]]
    legend: list[str]


def part_of(
    found: Comparison, patterns: Sequence[str] | None, baseline: str | None, titles: Mapping[str, str] | None = None
) -> Part:
    """Scores by family, each followed by differences from the baseline, and costs."""
    names = found.names(patterns)
    tested = differences(found, baseline, names)
    tables: dict[str, list[list[str]]] = {}
    for title, columns in families(names).items():
        tables[title] = score_rows(found, columns, titles)
        if any(name in own for own in tested.values() for name in columns):
            of_what = f"{DIFFERENCE} {baseline}" + (f": {title}" if title else "")
            tables[of_what] = difference_rows(tested, columns, titles)
    costs = cost_rows(found)
    legend = dict.fromkeys([*found.legend(names), *legend_of(tested)])
    return Part(tables | ({COST: costs} if costs else {}), list(legend))


def markdown(
    found: Sequence[Comparison],
    failures: Sequence[ScoredRun],
    patterns: Sequence[str] | None,
    baseline: str | None = None,
) -> str:
    """The tables of each protocol, with the differences of protocols between them, then the failures."""
    lines: list[str] = []
    legend: dict[str, None] = {}
    for each in found:
        if not each.names(patterns):
            continue
        part = part_of(each, patterns, baseline)
        lines += [", ".join(filter(None, [each.heading("`{}`".format), each.common("`{}`".format)])), *each.notes]
        for title, rows in part.tables.items():
            lines += [f"*{title}*"] if title else []
            lines.append(table(rows))
        legend |= dict.fromkeys(part.legend)
    if legend:
        lines.append(f"{'; '.join(each for each in [*LEGEND.values(), OF_P] if each in legend)}.")
    if failures:
        lines.append(table(failure_rows(failures), edge="---"))
    return "\n\n".join(lines)


def score_rows(found: Comparison, names: Sequence[str], titles: Mapping[str, str] | None = None) -> list[list[str]]:
    """A header, then one line for each configuration; one column for each score."""
    header = ["config", "seeds", *((titles or {}).get(name, name) for name in names)]
    rows = [
        [line, str(found.num_seeds[line]), *(cell(scores.get(name)) for name in names)]
        for line, scores in found.lines.items()
        if any(name in scores for name in names)
    ]
    return [header, *rows]


def difference_rows(
    tested: Differences, names: Sequence[str], titles: Mapping[str, str] | None = None
) -> list[list[str]]:
    """A header, then one line for each configuration that was tested against the baseline."""
    rows = [[line, *(difference_cell(own.get(name)) for name in names)] for line, own in tested.items()]
    return [["config", *((titles or {}).get(name, name) for name in names)], *rows]


def failure_rows(failures: Iterable[ScoredRun]) -> list[list[str]]:
    return [["config", "failure"], *([run.config, str(run.failure)] for run in failures)]


def table(rows: Sequence[Sequence[str]], edge: str = "---:") -> str:
    """Rows as markdown, the first as its header; ``edge`` aligns all columns but the first."""
    header, *others = rows
    lines = [header, ["---", *[edge] * (len(header) - 1)], *others]
    return "\n".join(f"| {' | '.join(entry.replace('|', chr(92) + '|') for entry in line)} |" for line in lines)


def csv_rows(
    found: Sequence[Comparison],
    failures: Iterable[ScoredRun],
    patterns: Sequence[str] | None,
    baseline: str | None,
) -> Iterator[list[object]]:
    """One line a number, with all its digits: config, protocol, metric, mean, interval and its kind, seeds.

    Differences from a baseline have its name, and p before and after the correction over the shown scores.
    """
    yield [*("config", "protocol_hash", "metric", "mean", "low", "high", "interval", "num_seeds", "failure"), *OF_TESTS]
    for run in failures:
        yield [run.config, "", "", "", "", "", "", len(run.seeds), run.failure, "", "", ""]
    for each in found:
        tested = differences(each, baseline, each.names(patterns))
        for line, scores in each.lines.items():
            config, runs = each.runs[line][0].config, each.runs[line]
            for name, summary in scores.items():
                yield [config, each.protocol, name, *csv_cells(summary), "", "", "", ""]
            for name in COSTS:
                if (cost := mean_cost(runs, name)) is not None:
                    yield [config, each.protocol, f"cost/{name}", repr(cost), *("", "", "", len(runs), "", "", "", "")]
            for name, test in tested.get(line, {}).items():
                p_values = [repr(test.p), repr(test.p_holm)]
                yield [config, each.protocol, name, *csv_cells(test.found), "", baseline, *p_values]


def csv_cells(found: Summary) -> list[object]:
    ends = ["", ""] if found.ends is None else [repr(end) for end in found.ends]
    return [repr(found.mean), *ends, found.kind or "", found.num_seeds]
