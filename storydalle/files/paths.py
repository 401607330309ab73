"""Paths that people type, and names of files made of ids that strangers chose."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

MAX_NAME_BYTES = 200  # of the 255 that file systems take: endings and "-source" come on top
HOMELESS = "STORYDALLE_LENT_HOME"  # set in the environment while there is no home of the user's own
MAX_PART_BYTES, MAX_PATH = 255, 4000  # of a path, as Linux and macOS have them
UNSAFE = re.compile(r'[%~\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]|^[. /]|[. ]$')


class PathError(ValueError):
    """A path that no machine or not this one has; the message names it."""


def user_path(given: object) -> Path:
    """A path as it was typed, ``~`` and ``~name`` at its start being the home of a user.

    Raises PathError, naming the path, for a user that the machine does not know, and for what no file can be called.
    """
    text = str(given)
    if "\0" in text:
        raise PathError(f"the path {text!r} contains a zero byte: remove it")
    try:
        longest = max(map(len, os.fsencode(text).split(b"/")))
    except UnicodeEncodeError as error:
        raise PathError(f"the path {text!r} cannot be the name of a file: write it again") from error
    if longest > MAX_PART_BYTES or len(text) > MAX_PATH:
        raise PathError(f"the path {text[:60]}... is too long for a file: give a shorter one")
    if not text.startswith("~"):  # pathlib takes "./~x" for one too
        return Path(text)
    home = text.partition("/")[0]
    full = os.path.expanduser(home)
    if full == home or (home == "~" and HOMELESS in os.environ):
        raise PathError(f"the path {text} begins with {home}, a home that is not known here: write the whole path")
    return Path(full + text.removeprefix(home))


def lend_home() -> str | None:
    """Give a user whose home nobody knows an empty one, for what libraries keep there; say where, if it was needed.

    Such users run containers under a bare number. Their own paths still have no ``~``.
    """
    if os.path.expanduser("~") != "~":
        return None
    os.environ["HOME"] = os.environ[HOMELESS] = tempfile.mkdtemp(prefix="storydalle-home-")
    return os.environ["HOME"]


def file_name(id: str) -> str:
    """The name of one file for an id, without its ending: no two ids have the same, and none leads elsewhere.

    Slashes become ``~`` ("toon/test/00012" is "toon~test~00012"), and what a file system may not take is written in
    percent. Of an id that is too long a hash stands for the end.
    """
    name = UNSAFE.sub(_in_percent, id).replace("/", "~") or "%"
    content = name.encode()
    if len(content) <= MAX_NAME_BYTES:
        return name
    # A lone "%~" is in no name that is written out.
    return f"{content[: MAX_NAME_BYTES - 66].decode(errors='ignore')}%~{hashlib.sha256(content).hexdigest()}"


def folder_of(id: str) -> str:
    """The path of an id's own folder, below one for all: its parts are folders, each called by ``file_name``."""
    return "/".join(file_name(part) for part in id.split("/"))


def _in_percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))
