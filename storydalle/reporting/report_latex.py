"""A report's tables as LaTeX: a booktabs table a protocol, with all signs of names escaped."""

import re
from collections.abc import Iterator, Mapping, Sequence

from storydalle.reporting.report_costs import cost_rows
from storydalle.reporting.report_differences import differences, legend_of
from storydalle.reporting.report_scores import HASH_LENGTH, Comparison
from storydalle.reporting.report_tables import COST, DIFFERENCE, cell, difference_cell

MAX_LATEX_COLUMNS = 4  # of a tabular, so that it fits between the margins
MAX_LATEX_ROWS = 55  # of a floating table, so that it fits on a page
LINE, GAP, SMALL = 82, 3, 0.85  # letters of a line; between columns; of a cell, whose interval is in small type
LATEX_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"},
    **{"[": "{[}", "]": "{]}"},  # A bracket that follows the end of a row would be its option.
}
LATEX_HEAD = "% Needs \\usepackage{booktabs}.\n"


def latex(found: Sequence[Comparison], patterns: Sequence[str] | None, baseline: str | None = None) -> str:
    """Floating tables of each protocol: its scores, their differences from the baseline, and costs."""
    floats = [text for each in found if (names := each.names(patterns)) for text in tables_of(each, names, baseline)]
    return LATEX_HEAD + "".join(f"\n{text}" for text in floats)


def tables_of(found: Comparison, names: Sequence[str], baseline: str | None) -> Iterator[str]:
    about = [words for words in (found.heading(latex_code), found.common(latex_code)) if words]
    name = f"{found.fields.get('name', 'protocol')}-{found.protocol[:HASH_LENGTH]}".lower()
    key = re.sub(r"[^a-z0-9-]+", "-", name).strip("-")
    scores = {line: {name: cell(own.get(name)) for name in names} for line, own in found.lines.items()}
    yield latex_table(scores, [*about, *map(legend_text, found.legend(names))], key)
    tested = differences(found, baseline, names)
    if tested:
        cells = {line: {name: difference_cell(own.get(name)) for name in names} for line, own in tested.items()}
        title = f"{DIFFERENCE} {latex_code(str(baseline))}"
        yield latex_table(cells, [title, *about, *map(legend_text, legend_of(tested))], f"{key}-differences")
    costs = cost_rows(found)
    if costs:
        header, *rows = costs
        cells = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
        yield latex_table(cells, [COST, *about], f"{key}-cost")


def latex_table(cells: Mapping[str, Mapping[str, str]], caption: Sequence[str], key: str) -> str:
    """Columns are configurations or scores, whichever are fewer; what is too wide or too long is parted."""
    rows, columns = list(cells), list(next(iter(cells.values())))
    if len(rows) < len(columns) and len(columns) > MAX_LATEX_COLUMNS:
        rows, columns = columns, rows
        cells = {name: {line: own[name] for line, own in cells.items()} for name in rows}
    pages: list[list[str]] = []
    height = MAX_LATEX_ROWS
    for part in (tabular(rows, columns, cells) for columns in parted(rows, columns, cells)):
        height += part.count("\n")
        if height > MAX_LATEX_ROWS:
            pages.append([])
            height = part.count("\n")
        pages[-1].append(part)
    return "\n".join(
        floating(page, f"{'; '.join(caption)}{' (continued)' if number else ''}.", f"{key}-{number}" if number else key)
        for number, page in enumerate(pages)
    )


def floating(tabulars: Sequence[str], caption: str, key: str) -> str:
    head = ["\\begin{table}", "\\centering", "\\footnotesize", f"\\caption{{{caption}}}", f"\\label{{tab:{key}}}"]
    return "\n".join([*head, "\n\\par\\medskip\n".join(tabulars), "\\end{table}\n"])


def parted(rows: Sequence[str], columns: Sequence[str], cells: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """The columns of each tabular: at most four, and no more than a line of text has room for."""
    parts: list[list[str]] = []
    left = 0.0
    for column in columns:
        width = GAP + max(len(column), *(SMALL * len(cells[row][column]) for row in rows))
        if not parts or width > left or len(parts[-1]) == MAX_LATEX_COLUMNS:
            parts.append([])
            left = LINE - max(map(len, rows))
        parts[-1].append(column)
        left -= width
    return parts


def tabular(rows: Sequence[str], columns: Sequence[str], cells: Mapping[str, Mapping[str, str]]) -> str:
    filled = [row for row in rows if any(cells[row][column] != "-" for column in columns)]
    lines = [["", *map(latex_text, columns)]]
    lines += [[latex_text(row), *(latex_cell(cells[row][column]) for column in columns)] for row in filled]
    head, *rest = (" & ".join(line) + " \\\\" for line in lines)
    parts = [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\toprule", head, "\\midrule", *rest, "\\bottomrule"]
    return "\n".join([*parts, "\\end{tabular}"])


def latex_cell(text: str) -> str:
    """A number followed by its interval in small type, with proper minus signs."""
    if text == "-":
        return "--"
    value, bracket, interval = text.partition(" [") if " [" in text else text.partition(" (")
    if bracket:
        return f"{latex_number(value)} {{\\scriptsize {bracket.strip()}{latex_number(interval)}}}"
    return latex_number(text).replace("±", "$\\pm$")


def latex_number(text: str) -> str:
    """Minus signs as such."""
    return text.replace("-", "$-$").replace("<", "$<$")


def legend_text(text: str) -> str:
    return latex_text(text).replace("95 \\%", "95\\,\\%")


def latex_code(text: str) -> str:
    return f"\\texttt{{{latex_text(text)}}}"


def latex_text(text: str) -> str:
    return "".join(LATEX_SIGNS.get(letter, letter) for letter in text)
