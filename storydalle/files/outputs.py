"""The output folder of a command: checked first, filled in a temporary folder, then moved into place."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import storydalle
from storydalle.files.json_values import Json
from storydalle.files.locks import held, is_lock
from storydalle.files.reading import read_object
from storydalle.files.whole import folder_in_progress
from storydalle.mistakes import UserError, told_of_disk

# Each record marks a folder as ours and lists its files. A stranger's list is not believed beyond names of our own.
RECORDS = {
    "story.json": re.compile(r"strip\.(png|gif)|index\.html|frames/(00-source|[0-9]{2,}(-[0-9]+)?)\.png"),
    "demo.json": re.compile(r"strip-[0-9]+\.png|index\.html"),
}
MAX_RECORD_BYTES = 2**24
PROGRAM = "storydalle"


@contextmanager
def taken(folder: Path, command: str, overwrite: bool, megabytes: int) -> Iterator[None]:
    """Lock the folder against other commands, and refuse, before any work, a folder that must not be written."""
    check_place(folder, megabytes)
    with held(folder, command):
        check_output(folder, overwrite, megabytes)
        yield


def check_output(folder: Path, overwrite: bool, megabytes: int) -> None:
    """Refuse, before any work, a folder with other files, without write permission, or without space."""
    check_place(folder, megabytes)
    if folder.is_dir() and not overwrite:
        foreign = next(foreign_files(folder), None)
        if foreign is not None:
            raise UserError(f"out={folder} holds other files ({foreign}): choose another folder, or overwrite=true")


def check_place(folder: Path, megabytes: int) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file: choose a folder")
    parent = existing_parent(folder)
    if not os.access(parent, os.W_OK) or not parent.is_dir():
        raise UserError(f"out={folder} cannot be written: {parent} is not a folder that you may write to")
    check_space(parent, megabytes)


def check_space(folder: Path, megabytes: int) -> None:
    free = shutil.disk_usage(existing_parent(folder)).free
    if free < megabytes * 1_000_000:
        raise UserError(
            f"no disk space for {folder}: about {megabytes} MB are needed and {free // 1_000_000} MB are free; "
            "free some, or choose another folder"
        )


def existing_parent(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def foreign_files(folder: Path) -> Iterator[str]:
    """Names of files and links that this program did not write; all of them if the folder has no record."""
    own = own_files(folder)
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = (path.relative_to(folder).as_posix() for path in found)
    return (name for name in files if name not in own and not is_lock(name))


def own_files(folder: Path) -> set[str]:
    """Names of files that an earlier run wrote here, by its record, without links and names from outside."""
    names: set[str] = set()
    for record_name, pattern in RECORDS.items():
        try:
            record = read_record(folder / record_name)
        except ValueError:
            continue
        files = record.get("files")
        listed = [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
        names |= {record_name, *filter(pattern.fullmatch, listed)}
    return {name for name in names if not leads_away(folder, name)}


def read_record(path: Path) -> dict[str, Json]:
    """A record that a command wrote; ValueError, naming the file, for anything else."""
    record = read_object(path, MAX_RECORD_BYTES)
    if record.get("program") != PROGRAM:
        raise ValueError(f"{path} is no record of {PROGRAM}")
    return record


def leads_away(folder: Path, name: str) -> bool:
    """True if a file below the folder, or a folder on the way to it, is a link."""
    path = folder / name
    return any(each.is_symlink() for each in (path, *path.parents) if each != folder and folder in each.parents)


def write_record(folder: Path, name: str, record: Mapping[str, object]) -> None:
    """Write the record of ``folder`` as json: it names every file, and is equal for runs with equal results."""
    assert name in RECORDS
    files = sorted({name, *(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())})
    text = json.dumps(
        {"program": PROGRAM, "version": storydalle.__version__, **record, "files": files}, indent=2, ensure_ascii=False
    )
    (folder / name).write_text(text + "\n", encoding="utf-8")


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into; at the end its files replace those of an earlier run in ``folder``."""
    try:
        with folder_in_progress(folder) as partial:
            yield partial
            commit(partial, folder)
    except OSError as error:
        if told := told_of_disk(error):
            raise UserError(f"{told} ({folder}): nothing was changed; free some and try again") from error
        raise UserError(f"out={folder} cannot be written: {error.strerror or error}") from error


def commit(partial: Path, folder: Path) -> None:
    """Move files into place one by one, then remove those that only the earlier run had; other files stay."""
    written = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    for path in written:
        if leads_away(folder, path.parent.as_posix()):
            raise UserError(f"out={folder} has a link in place of the folder {path.parent}: remove it")
    stale = own_files(folder) - {path.as_posix() for path in written}
    for path in sorted(written, key=lambda path: path.name in RECORDS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / path, folder / path)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
