"""Files and folders that are there whole or not at all, whenever the process is killed.

They are written beside their place, under a name of their own, then moved.
"""

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

PNG = "PNG"


@contextmanager
def replaced_when_whole(path: Path, is_synced: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` at the end, or leaves nothing behind.

    A synced one outlives a machine that stops, too; that costs some milliseconds.
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

    Raises FileExistsError where the name is taken, unless the folder ``replaces`` what has it.
    """
    with folder_in_progress(target) as partial:
        yield partial
        if replaces:
            shutil.rmtree(target, ignore_errors=True)
        os.rename(partial, target)


@contextmanager
def folder_in_progress(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` for as long as it is filled; whoever fills it moves what is to stay."""
    partial = partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_of(path: Path) -> Path:
    """Where a file or a folder lies until it is whole."""
    return path.parent / f".{path.name}.partial"  # of "." and of "..", which have no other name, too


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write an object in the order of its keys' names."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; a file name may be no text, and what UTF-8 cannot say of it is written as an escape."""
    with replaced_when_whole(path, is_synced=False) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def save_picture(picture: Image.Image, path: Path, **options: object) -> None:
    """Write a PNG; ``options`` are Pillow's."""
    stream = io.BytesIO()
    picture.save(stream, PNG, **options)
    with replaced_when_whole(path, is_synced=False) as file:
        file.write(stream.getvalue())
