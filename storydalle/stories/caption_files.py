"""Read a file of captions: lines, a list, a table or a page; anything else is refused with the forms that are read."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from storydalle.files.json_values import Json
from storydalle.files.reading import read_text
from storydalle.files.text import clean, column, parsed, split_lines, table_rows
from storydalle.stories.handed_in import captions_of

MAX_BYTES = 1_000_000
KEYS = ("caption", "captions", "text")  # of a row, the first that is there; columns are called so in any case
ROWS = (".jsonl", ".ndjson")
FORMS = ".txt (a caption a line), .csv or .tsv (a column called caption), .json (a list), .jsonl or .md"
FOREIGN = re.compile(r"\.(html?|xml|rtf|ya?ml|toml|srt|vtt|tex|ipynb|svg|pdf|docx?|odt|xlsx?|parquet)", re.IGNORECASE)
HEADING, RULE = re.compile(r" {0,3}#{1,6}(\s|$)"), re.compile(r"\s*([-*_=]\s*){3,}")
LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+(.*)")
NO_CAPTION = {
    "|": "a table",
    "---": "a table",
    "```": "code",
    "~~~": "code",
    "<": "html",
    ">": "a quotation",
    "![": "a picture",
}
EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)(.{1,300}?)(?<=\S)\1")


def read_caption_file(path: Path) -> list[str]:
    """The captions of a file, cleaned, one a frame. The ending of the name tells the form; a .txt may also hold a JSON
    list.

    - a line of text each (also without a known ending), empty lines left out;
    - .csv and .tsv: the column that the first row calls caption or text, or the only one;
    - .json: a list of sentences; .jsonl: one a row, or objects with a caption or a text; the same in .txt;
    - .md: the items of its list or, where there is none, its lines; headings are left out.

    Raises ValueError, naming the file and the line, for anything else.
    """
    where = f"captions={path}"
    text = text_of_file(path)
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            found: Sequence[Json] = list(table_captions(text, "\t" if suffix == ".tsv" else None))
        elif suffix in (".md", ".markdown"):
            found = list(page_captions(text))
        elif suffix == ".json" or (suffix not in ROWS and is_json(text)):
            found = list_captions(text)
        elif suffix in ROWS or is_json(text.lstrip().partition("\n")[0]):
            found = list(row_captions(text))
        else:
            found = [line for line in map(clean, split_lines(text)) if line]
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error
    if not found:
        raise ValueError(f"{where} holds no caption: write one sentence a line")
    return captions_of(found, where)


def text_of_file(path: Path) -> str:
    """The text of a small file; ValueError, naming it."""
    if not path.exists():
        raise ValueError(f'no captions file {str(path)!r}: give {FORMS}, or a list \'["...", "..."]\'')
    if not path.is_file():
        raise ValueError(f"captions={path} is not a file: give {FORMS}")
    if FOREIGN.fullmatch(path.suffix):
        raise ValueError(f"captions={path} is no list of captions: give {FORMS}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"captions={path} has {path.stat().st_size} bytes, too many for captions")
    try:
        return read_text(path)
    except ValueError as error:
        raise ValueError(f"captions={error}") from error


def is_json(text: str) -> bool:
    """The text is a list or an object of JSON, and no sentence that begins with a bracket."""
    try:
        return text.lstrip()[:1] in ("[", "{") and isinstance(parsed(text), list | dict)
    except ValueError:
        return False


def list_captions(text: str) -> list[Json]:
    try:
        value = parsed(text)
    except ValueError as error:
        raise ValueError(f"is not JSON: {str(error).partition(':')[0].lower()}") from error
    if not isinstance(value, list):
        raise ValueError("is not a JSON list of captions; to draw a story again use story=FILE.json")
    return [caption_of(entry) for entry in value]


def caption_of(entry: Json) -> Json:
    """The caption of an object; anything else is returned as it is, to be refused by its number."""
    if isinstance(entry, dict):
        return next((entry[key] for key in KEYS if isinstance(entry.get(key), str)), entry)
    return entry


def row_captions(text: str) -> Iterator[str]:
    for number, line in enumerate(split_lines(text), start=1):
        if not clean(line):
            continue
        try:
            caption = caption_of(parsed(line))
        except ValueError as error:
            raise ValueError(f"is not JSON in line {number}: write a sentence or an object a line") from error
        if not isinstance(caption, str) or not clean(caption):
            raise ValueError(f'holds no caption in line {number}: write "..." or {{"caption": "..."}}')
        yield caption


def table_captions(text: str, delimiter: str | None) -> Iterator[str]:
    """The captions of a table: its column caption or text, or its only column."""
    try:
        rows = table_rows(text, KEYS, delimiter)
    except ValueError as error:
        raise ValueError(f"is no table of captions, line {error}") from error
    if not rows:
        return
    header = [column(cell) for cell in rows[0][1]]
    chosen = next((header.index(key) for key in KEYS if key in header), None)
    if chosen is None:
        if len(header) > 1:
            columns = ", ".join(map(repr, rows[0][1]))
            raise ValueError(
                f"has no column called caption or text, but {columns}: name it, or write captions into a .txt"
            )
        if re.fullmatch(r"\w+", header[0]):  # one word without a full stop
            raise ValueError(f"begins with {rows[0][1][0]!r}: call the column caption, or write captions into a .txt")
    for number, row in rows if chosen is None else rows[1:]:
        if not clean(row[chosen or 0]):
            raise ValueError(f"holds no caption in line {number}")
        yield row[chosen or 0]


def page_captions(text: str) -> Iterator[str]:
    """List items with their continuation lines; without a list, the lines. Headings are left out."""
    items: list[str] = []
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(split_lines(text), start=1):
        if not clean(line) or HEADING.match(line):
            continue
        if RULE.fullmatch(line):
            raise ValueError(f"holds a rule in line {number}: write captions as list items or lines, and nothing else")
        if kind := next((kind for start, kind in NO_CAPTION.items() if line.lstrip().startswith(start)), None):
            raise ValueError(f"holds {kind} in line {number}: write captions as list items or lines, and nothing else")
        if item := LIST_ITEM.fullmatch(line):
            items.append(item[1])
        elif items and line[:1].isspace():
            items[-1] += f" {line}"
        else:
            lines.append((number, line))
    if items and lines:
        raise ValueError(f"has a list, and in line {lines[0][0]} a text beside it: write all captions alike")
    for caption in items or [line for _, line in lines]:
        yield EMPHASIS.sub(r"\2", caption)
