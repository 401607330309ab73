"""The folder a command writes: checked first, filled beside its place, moved there whole."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import storydalle
from storydalle.commands.mistakes import UserError, told_of_disk

RECORDS = ("story.json", "demo.json")  # each marks a folder as ours and lists its files
PROGRAM = "storydalle"
RESULTS_BEGIN, RESULTS_END = "<!-- results:begin -->", "<!-- results:end -->"


def check_output(folder: Path, overwrite: bool, megabytes: int) -> None:
    """Refuse, before any work, a folder that holds files of others, cannot be written, or has no space."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file: choose a folder")
    if folder.is_dir() and not overwrite:
        foreign = next(foreign_files(folder), None)
        if foreign is not None:
            raise UserError(f"out={folder} holds other files ({foreign}): choose another folder, or overwrite=true")
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
    """Names of files that we did not write; all of them where the folder holds no record of ours."""
    own = own_files(folder)
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return (name for name in files if name not in own)


def own_files(folder: Path) -> set[str]:
    """What an earlier run says that it wrote here."""
    names: set[str] = set()
    for record_name in RECORDS:
        try:
            record = json.loads((folder / record_name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("program") == PROGRAM and isinstance(record.get("files"), list):
            names |= {record_name, *(name for name in record["files"] if isinstance(name, str))}
    return names


def write_record(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """The record of what stands in ``folder``, as json: every file is named, and nothing changes from run to run."""
    assert name in RECORDS
    files = sorted({name, *(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())})
    text = json.dumps(
        {"program": PROGRAM, "version": storydalle.__version__, **record, "files": files}, indent=2, ensure_ascii=False
    )
    (folder / name).write_text(text + "\n", encoding="utf-8")


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` to write into; its files replace our earlier ones when all are written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield partial
            commit(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if told := told_of_disk(error):
            raise UserError(f"{told} ({folder}): nothing was changed; free some and try again") from error
        raise UserError(f"out={folder} cannot be written: {error.strerror or error}") from error


def commit(partial: Path, folder: Path) -> None:
    """Move files into their place one by one, then remove what only the earlier run had; other files stay."""
    written = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    stale = own_files(folder) - {path.as_posix() for path in written}
    for path in sorted(written, key=lambda path: path.name in RECORDS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / path, folder / path)
    for name in stale:
        path = Path(name)
        if not path.is_absolute() and ".." not in path.parts:
            (folder / path).unlink(missing_ok=True)


def fill_results(readme: Path, text: str) -> None:
    """Replace what stands between the two markers of a markdown file."""
    page = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = page.partition(RESULTS_BEGIN)
    _, end, after = rest.partition(RESULTS_END)
    if not begin or not end:
        raise UserError(f"readme={readme} has no {RESULTS_BEGIN} and {RESULTS_END} to write between")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
