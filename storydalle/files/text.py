"""Text from users: bytes in UTF-8 or UTF-16, split into lines, without invisible characters."""

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Collection

from storydalle.files.json_values import Json

JOINERS = "\u200c\u200d"  # between letters they are part of the spelling (Persian, emoji); alone they show nothing
MAX_NESTED = 64  # lists and objects of JSON inside one another
NESTED = f"it is nested more than {MAX_NESTED} deep"
MARKS = (  # the longer ones first, as two of them begin alike
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(data: bytes) -> str:
    """The text of a file's bytes, without a byte order mark.

    UTF-8, or UTF-16 or UTF-32 with a byte order mark; UTF-16 without a mark is recognised by the zero bytes of its
    Latin letters. Raises ValueError, which does not name the file, for anything else and for text with zero bytes.
    """
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), None) or unmarked_encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        what = "not text, or not in UTF-8" if b"\0" in data else "not in UTF-8"
        raise ValueError(f"{what} (byte {error.start}): save it as text in UTF-8") from error
    if "\0" in text:
        raise ValueError("not text: it holds zero bytes; save it as text in UTF-8")
    return text


def unmarked_encoding(data: bytes) -> str:
    """UTF-16 if at least a third are Latin letters: one of their two bytes is zero, the other one rarely is."""
    first, second = (data[start::2].count(0) for start in (0, 1))
    if len(data) % 2 == 0 and max(first, second) * 6 >= len(data) and max(first, second) > 5 * min(first, second):
        return "utf-16-be" if first > second else "utf-16-le"
    return "utf-8"


def parsed(text: str | bytes) -> Json:
    """Parse a text of JSON; ValueError for anything else, and for lists and objects nested too deeply.

    Code that walks through a thousand levels by recursion would crash, and no real file is nested so deeply.
    """
    try:
        content: Json = json.loads(text)
    except RecursionError as error:
        raise ValueError(NESTED) from error
    level: list[Json] = [content]
    depth = 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        if depth > MAX_NESTED:
            raise ValueError(NESTED)
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
    return content


def split_lines(text: str) -> list[str]:
    r"""Lines that end in \n, \r\n or \r; other line ends of Unicode count as white space inside a line."""
    return re.split(r"\r\n|\n|\r", text)


def table_rows(text: str, names: Collection[str], delimiter: str | None = None) -> list[tuple[int, list[str]]]:
    """The rows of a csv that are not empty, all as long as the first, and the lines where they begin.

    Without ``delimiter`` it is the comma, semicolon or tab that separates most of ``names`` (in lower case) in the
    first row. Raises ValueError, which begins with the line.
    """
    first = next((line for line in split_lines(text) if clean(line)), "")

    def likely(between: str) -> tuple[int, int]:
        return sum(column(cell) in names for cell in first.split(between)), first.count(between)

    delimiter = delimiter or max(",;\t", key=likely)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            if any(map(clean, cells)):
                rows.append((line, cells))
                if len(cells) != (length := len(rows[0][1])):
                    remedy = f"put texts that hold {delimiter!r} into quotes"
                    raise ValueError(f"{line}: {len(cells)} cells for {length} columns: {remedy}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{line}: not a csv: {error}") from error
    return rows


def column(cell: str) -> str:
    """The name of a column as it is looked up: in lower case, without quotes."""
    return clean(cell).casefold().strip("\"'")


def clean(text: str) -> str:
    """Text on one line: white space of any kind becomes single spaces, invisible characters are removed.

    Zero-width characters, control characters and byte order marks are removed; halves of surrogate pairs, which no file
    can contain, become "?". Text of invisible characters only becomes empty.
    """
    text = text.encode("utf-8", "replace").decode()
    text = " ".join("".join(character for character in text if character.isspace() or shows(character)).split())
    return text if text.strip(JOINERS + " ") else ""


def shows(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) not in ("Cc", "Cf")
