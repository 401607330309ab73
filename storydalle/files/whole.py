"""Files that are there whole or not at all, whenever the process is killed: written beside their place, then moved."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

PNG = "PNG"


@contextmanager
def replaced_when_whole(path: Path, is_synced: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` at the end, or leaves nothing behind.

    A synced one outlives a machine that stops, too; that costs some milliseconds.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; a file name may be no text, and what UTF-8 cannot say of it is written as an escape."""
    with replaced_when_whole(path, is_synced=False) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write a PNG; ``options`` are Pillow's."""
    stream = io.BytesIO()
    picture.save(stream, PNG, **options)
    with replaced_when_whole(path, is_synced=False) as file:
        file.write(stream.getvalue())
