"""Files of strangers: read whole or refused in one line that names the file."""

import json
import os
from pathlib import Path
from typing import Any

from storydalle.stories.pickles import load_pickle, text_of
from storydalle.stories.text import decoded


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16; raises ValueError, naming the file, where it is missing or no text."""
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error


def read_json(path: Path) -> Any:
    """Raises ValueError, naming the file, where it is missing, not in UTF-8 or no JSON."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON, or truncated: {error}") from error


def read_dict(path: Path) -> dict[str, Any]:
    """A pickled dictionary with names as keys, bytes or text; raises ValueError, naming the file, for anything else."""
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no dictionary but {type(content).__name__}: copy it again")
    try:
        return {text_of(key): value for key, value in content.items()}
    except ValueError as error:
        raise ValueError(f"{path} has a key that is no name: {error}") from error


def files_of(folder: Path) -> set[str]:
    """Names of the files in a folder; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
