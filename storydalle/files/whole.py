"""Write files and folders completely or not at all, whenever the process is killed.

They are written under a temporary name in the same folder, then renamed.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

PNG = "PNG"


@contextmanager
def replaced_when_whole(path: Path, is_synced: bool = True) -> Iterator[BinaryIO]:
    """A new file that replaces ``path`` at the end, or leaves nothing behind.

    With ``is_synced`` it also survives a crash of the machine, at the cost of some milliseconds.
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_when_whole(target: Path, replaces: bool = False) -> Iterator[Path]:
    """A new folder that gets its name at the end, or leaves nothing behind.

    Raises FileExistsError if the name exists, unless ``replaces``.
    """
    with folder_in_progress(target) as partial:
        yield partial
        if replaces:
            shutil.rmtree(target, ignore_errors=True)
        os.rename(partial, target)


@contextmanager
def folder_in_progress(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``; the caller moves what is to be kept."""
    partial = partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders that are empty, one after the other."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def partial_of(path: Path) -> Path:
    """The temporary path of a file or folder until it is complete."""
    return path.parent / f".{path.name}.partial"  # of "." and of "..", which have no other name, too


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write an object as JSON, with sorted keys."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; bytes of file names that are not valid text are written as escapes."""
    with replaced_when_whole(path, is_synced=False) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG at the level of compression that pays: Pillow's own takes twice as long and saves 2 % of a strip."""
    stream = io.BytesIO()
    picture.save(stream, PNG, compress_level=4)
    with replaced_when_whole(path, is_synced=False) as file:
        file.write(stream.getvalue())
