"""Tables with a row a frame: a csv of one's own, and the metadata of a Hugging Face ``imagefolder``."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from storydalle.stories.own_story import (
    SPLIT_FOLDERS,
    OwnStory,
    Refused,
    below_root,
    checked_captions,
    checked_names,
    checked_split,
    gap_in,
    in_order,
    is_picture,
    missing,
    spelled_twice,
)
from storydalle.stories.reading import read_text
from storydalle.stories.story_set import Problem
from storydalle.stories.text import clean, split_lines

FRAME_TABLES = ("stories.csv", "metadata.jsonl", "metadata.csv")
# Columns by every name that they may have: ours, and those of an imagefolder.
COLUMNS = {
    **{name: name for name in ("story", "frame", "file", "caption", "characters", "split")},
    **{"file_name": "file", "text": "caption"},
}
WANTED = "the columns are story, frame, file, caption, characters and split, of which file and caption are needed"
BETWEEN_NAMES = re.compile(r"[,;|]")


class Row(NamedTuple):
    """A line of a table; cells by the column's own name."""

    line: int
    cells: Mapping[str, Any]
    problem: str | None = None  # why its story cannot be read


class Table(NamedTuple):
    """Rows of a file, and the columns that are not read."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]
    unread: list[str]


class Place(NamedTuple):
    """Where a table lies: the folder's path below the root, and whether that folder is a story itself."""

    prefix: str
    is_story: bool
    split: str | None


def read_frame_table(path: Path, place: Place) -> tuple[list[OwnStory], list[Problem]]:
    """The stories of a table, in the order of their first rows, and what is wrong with others.

    A story is what has one value in the column ``story``, or lies in one folder where there is no such column. Its
    frames are in the order of the column ``frame``, or of the numbers in their files' names. Raises ValueError, naming
    file and line, where a row cannot be told to be of a story.
    """
    table = (_csv_table if path.suffix == ".csv" else _json_table)(path)
    below = f"{place.prefix}{path.name}"
    problems = [Problem(f"{below}:1", f"unknown column: {name!r} is not read; {WANTED}") for name in table.unread]
    stories = []
    for key, rows in _rows_of_stories(table, place).items():
        try:
            if "story" not in table.columns:
                _check_all_told(path.parent / key, rows)
            stories.append(_story(key, rows, table.columns, place, below))
        except Refused as refused:
            of_story = f" (story {key})" if key else ""
            problems.append(Problem(f"{below}:{refused.line or rows[0].line}", f"{refused}{of_story}"))
    return stories, problems


def _rows_of_stories(table: Table, place: Place) -> dict[str, list[Row]]:
    """The rows of each story by its id below the table's folder ("" of a folder that is a story itself)."""
    by_column = "story" in table.columns
    stories: dict[str, list[Row]] = {}
    for row in table.rows:
        key = clean(str(row.cells.get("story") or "")) if by_column else _folder_of(row, place)
        if key is None or (by_column and not key):
            what = "its story is empty" if by_column else "its picture lies in no folder of a story"
            raise ValueError(
                f"{table.path}:{row.line}: {what}: give rows a column story, or each story's pictures a folder"
            )
        stories.setdefault(key, []).append(row)
    if by_column and (twice := spelled_twice((key, f"line {rows[0].line}") for key, rows in stories.items())):
        raise ValueError(f"{table.path}: the stories {twice}")
    return stories


def _folder_of(row: Row, place: Place) -> str | None:
    """The folder of a row's picture; None where that is no story's."""
    file = row.cells.get("file")
    folder = PurePosixPath(file.replace("\\", "/")).parent.as_posix() if isinstance(file, str) else "."
    if place.is_story:
        return "" if folder == "." else None
    return None if folder in (".", *SPLIT_FOLDERS) else folder


def _check_all_told(folder: Path, rows: Sequence[Row]) -> None:
    """Refuse a folder that has a picture without a row."""
    told = {PurePosixPath(str(row.cells.get("file")).replace("\\", "/")).name for row in rows}
    pictures = sorted(path.name for path in folder.iterdir() if is_picture(path)) if folder.is_dir() else []
    if untold := next((name for name in pictures if name not in told), None):
        raise Refused(f"no row: {untold} is a picture of the story")


def _story(key: str, rows: Sequence[Row], columns: Sequence[str], place: Place, below: str) -> OwnStory:
    for row in rows:
        if row.problem:
            raise Refused(row.problem, line=row.line)
    with_lines = _each(rows)
    files = with_lines("file", lambda cell: below_root(_text(cell, "file"), place.prefix))
    order = _by_frame(rows) if "frame" in columns else _by_name(rows, files, "story" not in columns)
    rows, files = [rows[i] for i in order], [files[i] for i in order]
    with_lines = _each(rows)
    captions = with_lines("caption", lambda cell: _text(cell, "caption"))
    try:
        captions = list(checked_captions(captions, len(rows)))
    except Refused as refused:
        raise Refused(str(refused), line=rows[refused.line - 1].line if refused.line else None) from refused
    names = None
    if "characters" in columns:
        lists = with_lines("characters", _names)
        names = checked_names(lists, len(rows))
    splits = dict.fromkeys(with_lines("split", lambda cell: checked_split(cell or None)))
    if len(splits) > 1:
        raise Refused(f"two splits: {', '.join(map(str, splits))} in one story")
    places: dict[str, str] = {}
    for row, of_frame in zip(rows, names or (), strict=False):
        places |= {name: f"{below}:{row.line}" for name in of_frame if name not in places}
    story = f"{place.prefix}{key}".rstrip("/")
    split = next(iter(splits)) or place.split or SPLIT_FOLDERS.get(story.partition("/")[0])
    return OwnStory(story, f"{below}:{rows[0].line}", split, tuple(files), tuple(captions), names, places)


def _each(rows: Sequence[Row]) -> Callable[[str, Callable[[Any], Any]], list[Any]]:
    """A column's cells, each read by a function whose refusal is told with the row's line."""

    def read(column: str, value: Callable[[Any], Any]) -> list[Any]:
        values = []
        for row in rows:
            try:
                values.append(value(row.cells.get(column)))
            except Refused as refused:
                raise Refused(str(refused), line=row.line) from refused
        return values

    return read


def _text(cell: Any, column: str) -> str:
    if not isinstance(cell, str | None):
        raise Refused(f"{column}: {cell!r} is no text")
    return cell or ""


def _names(cell: Any) -> Any:
    """Names of a json list, or of a csv's cell, where they are separated by ``,``, ``;`` or ``|``."""
    return BETWEEN_NAMES.split(cell) if isinstance(cell, str) else cell


def _by_frame(rows: Sequence[Row]) -> list[int]:
    """The order of rows by their column ``frame``."""
    numbers: dict[int, int] = {}
    for i, row in enumerate(rows):
        cell = row.cells.get("frame")
        text = str(cell).strip()
        if isinstance(cell, bool) or not re.fullmatch(r"[0-9]{1,18}", text):
            raise Refused(f"frame: {cell!r} is no whole number", line=row.line)
        if (first := numbers.setdefault(int(text), i)) != i:
            raise Refused(f"a frame twice: {int(text)}, as in line {rows[first].line}", line=row.line)
    if gap := gap_in(numbers):
        raise Refused(f"gap in numbering: {missing(gap)}", line=rows[numbers[gap.stop]].line)
    return [numbers[number] for number in sorted(numbers)]


def _by_name(rows: Sequence[Row], files: Sequence[str], is_whole: bool) -> list[int]:
    """The order of rows by the numbers in their files' names."""
    places: dict[str, int] = {}
    for i, file in enumerate(files):
        if (first := places.setdefault(PurePosixPath(file).name, i)) != i:
            raise Refused(f"a frame twice: {file}, as in line {rows[first].line}", line=rows[i].line)
    return [places[name] for name in in_order(list(places), is_whole)]


# ------------------------------------------------------------------------------------------------ files


def _csv_table(path: Path) -> Table:
    """A csv between commas, semicolons or tabs, as its first line shows."""
    text = read_text(path)
    header = next((line for line in split_lines(text) if clean(line)), "")
    delimiter = max(",;\t", key=lambda between: sum(_column(cell) in COLUMNS for cell in header.split(between)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    unread: list[str] = []
    columns, line = None, 1
    try:
        for cells in reader:
            if columns is None and any(map(clean, cells)):
                columns, unread = _columns(cells, f"{path}:{line}")
            elif columns is not None and any(map(clean, cells)):
                if len(cells) != len(columns):
                    remedy = "put texts that hold a comma into quotes"
                    raise ValueError(f"{path}:{line}: {len(cells)} cells for {len(columns)} columns: {remedy}")
                rows.append(Row(line, {name: cell for name, cell in zip(columns, cells, strict=True) if name}))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{line}: not a csv: {error}") from error
    if columns is None:
        raise ValueError(f"{path} is empty: {WANTED}")
    return Table(path, tuple(filter(None, columns)), rows, unread)


def _column(cell: str) -> str:
    return clean(cell).casefold().strip("\"'")


def _columns(cells: Sequence[str], where: str) -> tuple[list[str | None], list[str]]:
    """Our names of the columns, None for one that is not read, and those."""
    names = [COLUMNS.get(_column(cell)) for cell in cells]
    known = [name for name in names if name]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise ValueError(f"{where}: two columns hold the {twice}: keep one")
    if lacking := next((name for name in ("file", "caption") if name not in known), None):
        raise ValueError(f"{where}: no column {lacking}: the first line names the columns; {WANTED}")
    return names, [clean(cell) for cell, name in zip(cells, names, strict=True) if not name and clean(cell)]


def _json_table(path: Path) -> Table:
    """A json object a line, as an imagefolder has them."""
    objects = list(_objects(path))
    keys = list(dict.fromkeys(key for _, row in objects for key in row))
    if not keys:
        raise ValueError(f"{path} is empty: {WANTED}")
    names, unread = _columns(keys, f"{path}:{objects[0][0]}")
    of_key = dict(zip(keys, names, strict=True))
    rows = []
    for line, row in objects:
        cells = {name: cell for key, cell in row.items() if (name := of_key[key])}
        lacking = [name for name in ("story", "frame", "characters") if name in names and name not in cells]
        problem = f"no {lacking[0]}: other rows have it, so every row needs it" if lacking else None
        rows.append(Row(line, cells, problem))
    return Table(path, tuple(filter(None, names)), rows, unread)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if not clean(line):
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f'{path}:{number}: not a row: it should read {{"file_name": ..., "text": ...}}')
        yield number, row
