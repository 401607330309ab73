"""Tables and paragraphs as plain data for the templates of pages, from rows of text or from markdown."""

import re
from collections.abc import Sequence
from typing import NamedTuple

EMPHASIS = re.compile(r"\*([^*]+)\*")
EDGE = re.compile(r"(?<!\\)\|")  # between cells; a bar behind a backslash is part of one
INTERVAL = re.compile(r" (?=\[|± |\([-.\d])")


class Cell(NamedTuple):
    """A value; its interval, such as ``[.90, .93]``, is shown small below it."""

    value: str
    interval: str = ""

    @classmethod
    def of(cls, text: str) -> "Cell":
        value, *rest = INTERVAL.split(text, maxsplit=1)
        interval = "".join(rest)
        return cls(value, f"[{interval}]" if interval.startswith("±") else interval)


class Grid(NamedTuple):
    """A table: its header, and a row of cells a line."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]]) -> "Grid":
        """Of rows of text, the first of which is the header."""
        header, *others = rows
        return cls(header, [[Cell.of(text) for text in row] for row in others])


class Paragraph(NamedTuple):
    """A line of words; every second piece is emphasized."""

    pieces: Sequence[str]


def blocks_of(markdown: str) -> list[Grid | Paragraph]:
    """Tables and lines of markdown, in order; other markdown is plain text, except for emphasis by stars."""
    blocks: list[Grid | Paragraph] = []
    rows: list[list[str]] = []
    for line in [*map(str.strip, markdown.splitlines()), ""]:
        if line.startswith("|"):
            rows.append(cells_of(line))
            continue
        if rows:
            blocks.append(Grid.of([row for i, row in enumerate(rows) if i != 1 or not is_rule(row)]))
            rows = []
        if line:
            blocks.append(Paragraph(EMPHASIS.split(line)))
    return blocks


def cells_of(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in EDGE.split(line.removeprefix("|").removesuffix("|"))]


def is_rule(row: Sequence[str]) -> bool:
    """True for the row of dashes and colons below a header."""
    return all(set(cell) <= set("-:") for cell in row)
