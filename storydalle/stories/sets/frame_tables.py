"""Tables with one row a frame: a csv, or the metadata of a Hugging Face ``imagefolder``."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from storydalle.files.json_values import Json, JsonObject, are_texts
from storydalle.files.reading import read_text
from storydalle.files.text import clean, column, parsed, split_lines, table_rows
from storydalle.stories.own_story import (
    SPLIT_FOLDERS,
    OwnStory,
    RefusedStory,
    below_root,
    checked_captions,
    checked_split,
    gap_in,
    in_order,
    is_picture,
    missing,
    spelled_twice,
)
from storydalle.stories.story_set import Problem

FRAME_TABLES = ("stories.csv", "metadata.jsonl", "metadata.csv")
# Columns by every name that they may have: ours, and those of an imagefolder.
COLUMNS = {
    **{name: name for name in ("story", "frame", "file", "caption", "characters", "split")},
    **{"file_name": "file", "text": "caption"},
}
WANTED = "the columns are story, frame, file, caption, characters and split, of which file and caption are needed"
BETWEEN_NAMES = re.compile(r"[,;|]")

Cell = TypeVar("Cell")


class TableLine(NamedTuple):
    """A line of a table; cells by the column's own name."""

    line: int
    cells: JsonObject
    problem: str | None = None  # why its story cannot be read


class Table(NamedTuple):
    """Rows of a file, and the columns that are not read."""

    path: Path
    columns: tuple[str, ...]
    rows: list[TableLine]
    unread: list[str]


class TablePlace(NamedTuple):
    """The place of a table: its folder's path below the root, and if that folder is a story itself."""

    prefix: str
    is_story: bool
    split: str | None


def read_frame_table(path: Path, place: TablePlace) -> tuple[list[OwnStory], list[Problem]]:
    """The stories of a table, in the order of their first rows, and the problems of others.

    Rows with the same value in the column ``story`` are a story; without that column, pictures in the same folder are.
    Frames are in the order of the column ``frame``, or of the numbers in the names of files. Raises ValueError, naming
    file and line, for a row that belongs to no story.
    """
    table = (_csv_table if path.suffix == ".csv" else _json_table)(path)
    below = f"{place.prefix}{path.name}"
    problems = [Problem(f"{below}:1", f"unknown column: {name!r} is not read; {WANTED}") for name in table.unread]
    stories = []
    for key, rows in _rows_of_stories(table, place).items():
        try:
            stories.append(_story(key, rows, table.columns, place, path))
        except RefusedStory as refused:
            of_story = f" (story {key})" if key else ""
            problems.append(Problem(f"{below}:{refused.line or rows[0].line}", f"{refused}{of_story}"))
    return stories, problems


def _rows_of_stories(table: Table, place: TablePlace) -> dict[str, list[TableLine]]:
    """The rows of each story by its id below the table's folder ("" of a folder that is a story itself)."""
    by_column = "story" in table.columns
    stories: dict[str, list[TableLine]] = {}
    for row in table.rows:
        key = _named_story(row) if by_column else _folder_of(row, place)
        if key is None:
            what = "its story is empty" if by_column else "its picture lies in no folder of a story"
            remedy = "give rows a column story, or each story's pictures a folder"
            raise ValueError(f"{table.path}:{row.line}: {what}: {remedy}")
        stories.setdefault(key, []).append(row)
    if by_column and (twice := spelled_twice((key, f"line {rows[0].line}") for key, rows in stories.items())):
        raise ValueError(f"{table.path}: the stories {twice}")
    return stories


def _named_story(row: TableLine) -> str | None:
    """The cell of the column ``story``; None if it is empty."""
    cell = row.cells.get("story")
    return (clean(str(cell)) or None) if isinstance(cell, str | int) else None


def _folder_of(row: TableLine, place: TablePlace) -> str | None:
    """The folder of a row's picture; None if it is not the folder of a story."""
    file = row.cells.get("file")
    folder = PurePosixPath(file.replace("\\", "/")).parent.as_posix() if isinstance(file, str) else "."
    if place.is_story:
        return "" if folder == "." else None
    return None if folder in (".", *SPLIT_FOLDERS) else folder


def _story(key: str, rows: Sequence[TableLine], columns: Sequence[str], place: TablePlace, table: Path) -> OwnStory:
    if lacking := next((row for row in rows if row.problem), None):
        raise RefusedStory(str(lacking.problem), line=lacking.line)
    files = _read(rows, "file", lambda cell: below_root(_text(cell, "file"), place.prefix))
    if "story" not in columns:
        _check_all_told(table.parent / key, files)
    order = _by_frame(rows) if "frame" in columns else _by_name(rows, files, "story" not in columns)
    rows, files = [rows[i] for i in order], [files[i] for i in order]
    told = _read(rows, "caption", lambda cell: _text(cell, "caption"))
    try:
        captions = checked_captions(told, len(rows))
    except RefusedStory as refused:
        raise RefusedStory(str(refused), line=rows[refused.line - 1].line if refused.line else None) from refused
    names = tuple(_read(rows, "characters", _names)) if "characters" in columns else None
    below = f"{place.prefix}{table.name}"
    places: dict[str, str] = {}
    for row, of_frame in zip(rows, names or (), strict=False):
        places |= {name: f"{below}:{row.line}" for name in of_frame if name not in places}
    story = f"{place.prefix}{key}".rstrip("/")
    of_folder = place.split or SPLIT_FOLDERS.get(story.partition("/")[0])
    given = _read(rows, "split", lambda cell: checked_split(cell or None, of_folder))
    if len(set(given)) > 1:
        raise RefusedStory(
            f"two splits: {given[0]} and {next(each for each in given if each != given[0])} in one story"
        )
    return OwnStory(story, f"{below}:{rows[0].line}", given[0], tuple(files), captions, names, places)


def _read(rows: Sequence[TableLine], column: str, value: Callable[[Json], Cell]) -> list[Cell]:
    """A column's cells, each read by a function; errors get the line of the row."""
    values = []
    for row in rows:
        try:
            values.append(value(row.cells.get(column)))
        except RefusedStory as refused:
            raise RefusedStory(str(refused), line=row.line) from refused
    return values


def _check_all_told(folder: Path, files: Sequence[str]) -> None:
    """Refuse a folder that has a picture without a row."""
    told = {PurePosixPath(file).name for file in files}
    pictures = sorted(path.name for path in folder.iterdir() if is_picture(path)) if folder.is_dir() else []
    if untold := next((name for name in pictures if name not in told), None):
        raise RefusedStory(f"no row: {untold} is a picture of the story")


def _text(cell: Json, column: str) -> str:
    if not isinstance(cell, str | None):
        raise RefusedStory(f"{column}: {cell!r} is no text")
    return cell or ""


def _names(cell: Json) -> tuple[str, ...]:
    """Names of a json list, or of a csv's cell, where they are separated by ``,``, ``;`` or ``|``."""
    names = BETWEEN_NAMES.split(cell) if isinstance(cell, str) else cell
    if not are_texts(names):
        raise RefusedStory(f"characters: {cell!r} is no list of names")
    return tuple(filter(None, map(clean, names)))


def _by_frame(rows: Sequence[TableLine]) -> list[int]:
    """The order of rows by their column ``frame``."""
    numbers: dict[int, int] = {}
    for i, row in enumerate(rows):
        cell = row.cells.get("frame")
        text = str(cell).strip()
        if isinstance(cell, bool) or not re.fullmatch(r"[0-9]{1,18}", text):
            raise RefusedStory(f"frame: {cell!r} is no whole number", line=row.line)
        if (first := numbers.setdefault(int(text), i)) != i:
            raise RefusedStory(f"a frame twice: {int(text)}, as in line {rows[first].line}", line=row.line)
    if gap := gap_in(numbers):
        raise RefusedStory(f"gap in numbering: {missing(gap)}", line=rows[numbers[gap.stop]].line)
    return [numbers[number] for number in sorted(numbers)]


def _by_name(rows: Sequence[TableLine], files: Sequence[str], is_whole: bool) -> list[int]:
    """The order of rows by the numbers in their files' names."""
    places: dict[str, int] = {}
    for i, file in enumerate(files):
        if (first := places.setdefault(PurePosixPath(file).name, i)) != i:
            raise RefusedStory(f"a frame twice: {file}, as in line {rows[first].line}", line=rows[i].line)
    return [places[name] for name in in_order(list(places), is_whole)]


# ------------------------------------------------------------------------------------------------ files


def _csv_table(path: Path) -> Table:
    """A csv with commas, semicolons or tabs, as in its first line."""
    text = read_text(path)
    try:
        (line, header), *found = table_rows(text, COLUMNS) or [(1, [])]
    except ValueError as error:
        raise ValueError(f"{path}:{error}") from error
    if not header:
        raise ValueError(f"{path} is empty: {WANTED}")
    columns, unread = _columns(header, f"{path}:{line}")
    rows = [
        TableLine(line, {name: cell for name, cell in zip(columns, cells, strict=True) if name})
        for line, cells in found
    ]
    return Table(path, tuple(filter(None, columns)), rows, unread)


def _columns(cells: Sequence[str], where: str) -> tuple[list[str | None], list[str]]:
    """The columns by our names (None for a column that is not read), and the columns that are not read."""
    names = [COLUMNS.get(column(cell)) for cell in cells]
    known = [name for name in names if name]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise ValueError(f"{where}: two columns hold the {twice}: keep one")
    if lacking := next((name for name in ("file", "caption") if name not in known), None):
        raise ValueError(f"{where}: no column {lacking}: the first line names the columns; {WANTED}")
    return names, [clean(cell) for cell, name in zip(cells, names, strict=True) if not name and clean(cell)]


def _json_table(path: Path) -> Table:
    """One json object a line, as in an imagefolder."""
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
        rows.append(TableLine(line, cells, problem))
    return Table(path, tuple(filter(None, names)), rows, unread)


def _objects(path: Path) -> Iterator[tuple[int, JsonObject]]:
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if not clean(line):
            continue
        try:
            row = parsed(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f'{path}:{number}: not a row: it should read {{"file_name": ..., "text": ...}}')
        yield number, row
