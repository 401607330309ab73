"""A report's tables: markdown, LaTeX and csv."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from storydalle.reporting.report_runs import ScoredRun
from storydalle.reporting.report_scores import (
    HASH_LENGTH,
    LEGEND,
    OVER_SEEDS,
    Comparison,
    Summary,
    families,
    summary,
)

MAX_DECIMALS = 5  # beyond, a number is written with its power of ten
MAX_LATEX_COLUMNS = 4  # of a tabular, so that it fits between the margins
LATEX_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"},
    **{"[": "{[}", "]": "{]}"},  # A bracket that follows the end of a row would be its option.
}
LATEX_HEAD = "% Needs \\usepackage{booktabs}.\n"


# ------------------------------------------------------------------------------------------------ cells


def cell(found: Summary | None) -> str:
    """``.913 [.90, .93]``, ``.913 ± .021``, or only the number; the interval decides the number of digits."""
    if found is None:
        return "-"
    if found.ends is None:
        return number(found.mean, digits(found.mean, 3))
    if found.kind == OVER_SEEDS:
        decimals = digits(found.half_width, 2)
        return f"{number(found.mean, decimals)} ± {number(found.half_width, decimals, least=1)}"
    decimals = digits(found.half_width, 1)
    ends = ", ".join(number(end, decimals, least=2) for end in found.ends)
    return f"{number(found.mean, decimals)} [{ends}]"


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


def markdown(found: Sequence[Comparison], failures: Sequence[ScoredRun], patterns: Sequence[str] | None) -> str:
    """The tables of each protocol, with the differences of protocols between them, then the failures."""
    parts: list[str] = []
    kinds: set[str] = set()
    for each in found:
        names = each.names(patterns)
        if not names:
            continue
        kinds |= set(each.kinds(names))
        parts += [", ".join(filter(None, [each.heading("`{}`".format), each.common("`{}`".format)])), *each.notes]
        for title, columns in families(names).items():
            parts += [f"*{title}*"] if title else []
            parts.append(table(score_rows(each, columns)))
    if kinds:
        parts.append("; ".join(text for kind, text in LEGEND.items() if kind in kinds) + ".")
    if failures:
        parts.append(table(failure_rows(failures), edge="---"))
    return "\n\n".join(parts)


def score_rows(found: Comparison, names: Sequence[str], titles: Mapping[str, str] | None = None) -> list[list[str]]:
    """A header, then one line for each configuration; one column for each score."""
    header = ["config", "seeds", *((titles or {}).get(name, name) for name in names)]
    rows = [
        [line, str(found.num_seeds[line]), *(cell(scores.get(name)) for name in names)]
        for line, scores in found.lines.items()
        if any(name in scores for name in names)
    ]
    return [header, *rows]


def failure_rows(failures: Iterable[ScoredRun]) -> list[list[str]]:
    return [["config", "failure"], *([run.config, str(run.failure)] for run in failures)]


def table(rows: Sequence[Sequence[str]], edge: str = "---:") -> str:
    """Rows as markdown, the first as its header; ``edge`` aligns all columns but the first."""
    header, *others = rows
    lines = [header, ["---", *[edge] * (len(header) - 1)], *others]
    return "\n".join(f"| {' | '.join(entry.replace('|', chr(92) + '|') for entry in line)} |" for line in lines)


def csv_rows(runs: Sequence[ScoredRun]) -> Iterator[list[object]]:
    """One line a number, with all its digits: config, protocol, metric, mean, interval and its kind, seeds."""
    yield ["config", "protocol_hash", "metric", "mean", "low", "high", "interval", "num_seeds", "failure"]
    groups: dict[tuple[str, str], list[ScoredRun]] = {}
    for run in runs:
        if run.failure:
            yield [run.config, "", "", "", "", "", "", len(run.seeds), run.failure]
        else:
            groups.setdefault((run.config, run.protocol), []).append(run)
    for (config, protocol), same in groups.items():
        for name in dict.fromkeys(name for run in same for name in run.values):
            found = summary(same, name)
            assert found is not None
            ends = ["", ""] if found.ends is None else [repr(end) for end in found.ends]
            yield [config, protocol, name, repr(found.mean), *ends, found.kind or "", found.num_seeds, ""]


# ------------------------------------------------------------------------------------------------ LaTeX


def latex(found: Sequence[Comparison], patterns: Sequence[str] | None) -> str:
    """A floating table a protocol."""
    shown = [(each, names) for each in found if (names := each.names(patterns))]
    return LATEX_HEAD + "".join(f"\n{latex_table(each, names)}" for each, names in shown)


def latex_table(found: Comparison, names: Sequence[str]) -> str:
    """Columns are configurations or scores, whichever are fewer; a tabular has only a few columns."""
    cells = {(line, name): cell(scores.get(name)) for line, scores in found.lines.items() for name in names}
    rows, columns = list(found.lines), list(names)
    if len(rows) < len(columns) and len(columns) > MAX_LATEX_COLUMNS:
        rows, columns = columns, rows
        cells = {(name, line): text for (line, name), text in cells.items()}
    parts = [columns[start : start + MAX_LATEX_COLUMNS] for start in range(0, len(columns), MAX_LATEX_COLUMNS)]
    caption = [words for words in (found.heading(latex_code), found.common(latex_code)) if words]
    caption += [latex_text(LEGEND[kind]).replace("95 \\%", "95\\,\\%") for kind in found.kinds(names)]
    key = re.sub(r"[^a-z0-9-]+", "-", f"{found.fields.get('name', 'protocol')}-{found.protocol[:HASH_LENGTH]}".lower())
    return "\n".join(
        [
            *("\\begin{table}", "\\centering", "\\footnotesize"),
            *(f"\\caption{{{'; '.join(caption)}.}}", f"\\label{{tab:{key.strip('-')}}}"),
            "\n\\par\\medskip\n".join(tabular(rows, part, cells) for part in parts),
            "\\end{table}\n",
        ]
    )


def tabular(rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], str]) -> str:
    filled = [row for row in rows if any(cells[row, column] != "-" for column in columns)]
    lines = [["", *map(latex_text, columns)]]
    lines += [[latex_text(row), *(latex_cell(cells[row, column]) for column in columns)] for row in filled]
    head, *rest = (" & ".join(line) + " \\\\" for line in lines)
    parts = [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\toprule", head, "\\midrule", *rest, "\\bottomrule"]
    return "\n".join([*parts, "\\end{tabular}"])


def latex_cell(text: str) -> str:
    """A number followed by its interval in small type, with proper minus signs."""
    if text == "-":
        return "--"
    value, bracket, interval = text.partition(" [")
    if bracket:
        return f"{latex_number(value)} {{\\scriptsize [{latex_number(interval)}}}"
    return latex_number(text).replace("±", "$\\pm$")


def latex_number(text: str) -> str:
    """Minus signs as such."""
    return text.replace("-", "$-$")


def latex_code(text: str) -> str:
    return f"\\texttt{{{latex_text(text)}}}"


def latex_text(text: str) -> str:
    return "".join(LATEX_SIGNS.get(letter, letter) for letter in text)
