"""Read untrusted files: completely, or refused with one line that names the file."""

import os
import stat
from pathlib import Path

from storydalle.files.json_values import Json
from storydalle.files.pickles import load_pickle, text_of
from storydalle.files.text import decoded, parsed

MAX_BYTES = 2**30  # of a file that is read whole


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """All bytes of a file; ValueError, naming it, if it is missing, larger than ``most``, not a file or unreadable."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a device may never end
            raise ValueError(f"{path} is no file")
        if found.st_size > most:
            raise ValueError(f"{path} has {found.st_size} bytes, more than the {most} that are read of such a file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8 or UTF-16; raises ValueError as ``read_bytes`` does, and if it is not text."""
    data = read_bytes(path, most)
    try:
        return decoded(data)
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error


def read_json(path: Path, most: int = MAX_BYTES) -> Json:
    """Parse a file of JSON; raises ValueError as ``read_text`` does, and if it is not JSON or nested too deeply."""
    text = read_text(path, most)
    try:
        return parsed(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, or truncated: {error}") from error


def read_object(path: Path, most: int = MAX_BYTES) -> dict[str, Json]:
    """A JSON object; raises ValueError as ``read_json`` does, and for anything else."""
    content = read_json(path, most)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} where an object {{...}} should be")
    return content


def object_if_whole(path: Path) -> dict[str, Json] | None:
    """A JSON object that this program wrote; None if the file is missing or incomplete, so that it is made again."""
    try:
        return read_object(path)
    except ValueError:
        return None


def read_dict(path: Path) -> dict[str, object]:
    """A pickled dictionary with names as keys, bytes or text; raises ValueError, naming the file, for anything else."""
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no dictionary but {type(content).__name__}: copy it again")
    try:
        return {text_of(key): value for key, value in content.items()}
    except ValueError as error:
        raise ValueError(f"{path} has a key that is no name: {error}") from error


def files_of(folder: Path) -> set[str]:
    """Names of the files in a folder; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
