"""``readme=``: results go between the two markers of markdown files: all tables, or one of chosen columns.

A file chooses by a comment, ``<!-- columns: action = doing what; character_micro_f1 = who -->``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from storydalle.files.paths import user_path
from storydalle.files.whole import write_text
from storydalle.mistakes import UserError, nearest

RESULTS_BEGIN, RESULTS_END = "<!-- results:begin -->", "<!-- results:end -->"
Rows = Mapping[str, Mapping[str, float]]  # scores by system
COLUMNS = re.compile(r"<!-- columns: (.+?) -->")


def fill_pages(readme: Sequence[str | Path] | str | None, text: str, rows: Rows | None = None) -> None:
    """Put results between the markers of each page: one table of the columns that it names, or ``text``."""
    for name in [readme] if isinstance(readme, str) else readme or ():
        page = user_path(name)
        columns = asked_columns(page) if rows is not None else {}
        fill_results(page, chosen_table(rows, columns) if rows is not None and columns else text)


def fill_results(readme: Path, text: str) -> None:
    """Replace what stands between the two markers of a markdown file."""
    page = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = page.partition(RESULTS_BEGIN)
    _, end, after = rest.partition(RESULTS_END)
    if not begin or not end:
        raise UserError(f"readme={readme} has no {RESULTS_BEGIN} and {RESULTS_END} to write between")
    write_text(readme, f"{before}{begin}\n{text}\n{end}{after}")


def asked_columns(page: Path) -> dict[str, str]:
    """Scores with their titles, from the comment of a page; none without a comment."""
    found = COLUMNS.search(page.read_text(encoding="utf-8")) if page.is_file() else None
    pairs = [pair.partition("=") for pair in found[1].split(";")] if found else []
    return {score.strip(): title.strip() or score.strip() for score, _, title in pairs}


def chosen_table(rows: Rows, columns: Mapping[str, str]) -> str:
    """One table of the columns; a score that no row has is refused."""
    from storydalle.evaluation.tables import score_table  # and with it torch

    known = sorted({score for scores in rows.values() for score in scores})
    for score in columns:
        if score not in known:
            raise UserError(f"readme= asks for a column {score!r}, which was not scored; {nearest(score, known)}")
    return score_table(rows, columns)
