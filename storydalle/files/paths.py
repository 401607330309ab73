"""Paths that users type, and file names for ids that others chose."""

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
    """A path that cannot exist, or not on this machine; the message names it."""


def user_path(given: object) -> Path:
    """A path as it was typed; ``~`` and ``~name`` at its start are home folders.

    Raises PathError, naming the path, for an unknown user, and for text that cannot be the name of a file.
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
    """Give a user without a home folder an empty one, for files of libraries; return its path if it was needed.

    Such users run containers under a bare number. In their own paths ``~`` still has no meaning.
    """
    if os.path.expanduser("~") != "~":
        return None
    os.environ["HOME"] = os.environ[HOMELESS] = tempfile.mkdtemp(prefix="storydalle-home-")
    return os.environ["HOME"]


def file_name(id: str) -> str:
    """A file name for an id, without an ending: different for different ids, and never a path to another folder.

    Slashes become ``~`` ("toon/test/00012" is "toon~test~00012"), and characters that a file system may refuse are
    percent-encoded. In an id that is too long a hash replaces the end.
    """
    name = UNSAFE.sub(_in_percent, id).replace("/", "~") or "%"
    content = name.encode()
    if len(content) <= MAX_NAME_BYTES:
        return name
    # A lone "%~" is in no name that is written out.
    return f"{content[: MAX_NAME_BYTES - 66].decode(errors='ignore')}%~{hashlib.sha256(content).hexdigest()}"


def folder_of(id: str) -> str:
    """The path of an id's folder below a common one: each part of the id is a folder, named by ``file_name``."""
    return "/".join(file_name(part) for part in id.split("/"))


def _in_percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))
