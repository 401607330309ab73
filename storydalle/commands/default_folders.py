"""Default output folders: the name of the folder contains the settings that distinguish the run.

So members of a sweep do not overwrite each other, and a drawing does not silently replace one with other settings. The
same command always has the same folder.
"""

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

from storydalle.commands.application import Request, read_yaml
from storydalle.files import dotted
from storydalle.files.conf import conf_folder
from storydalle.files.paths import file_name
from storydalle.training.runs import MODEL

LONGEST = 80  # letters of what is added to a name


def named(base: Path, command: str, request: Request, unnamed: Container[str]) -> Path:
    """``base``, with the settings that the command line changes after its name: ``strips/story-seed7-top_k5``.

    Settings in ``unnamed`` are left out: the base tells them already, or nothing that is written depends on them.
    """
    return beside(base, changes(request, read_yaml(conf_folder() / f"{command}.yaml"), unnamed))


def changes(request: Request, saved: Mapping[str, object], unnamed: Container[str]) -> dict[str, object]:
    """The settings of the command line that differ from ``saved``; for a config group, the name that was chosen."""
    found = {key: value_of(request, key) for key in sorted(request.given)}
    groups = {key: name for key, name in request.choices.items() if key not in saved}
    saved = {"protocol": groups.get("data"), **saved}
    return {
        key: value for key, value in found.items() if key not in unnamed and (key not in saved or saved[key] != value)
    }


def value_of(request: Request, key: str) -> object:
    """The value of a setting; of a config group, the name that is chosen in it."""
    return request.choices.get(key, dotted.value_at(request.settings, key.partition("@")[0]))


def beside(base: Path, changed: Mapping[str, object]) -> Path:
    """``base``, or a folder beside it that is named by the changes, if there are any."""
    if not changed:
        return base
    return base.with_name(f"{base.name}-{told(changed)}")


def told(changed: Mapping[str, object]) -> str:
    """Settings as a part of a name: ``seed7-top_k5``."""
    return shortened("-".join(f"{key.rpartition('.')[2]}{word(value)}" for key, value in changed.items()))


def word(value: object) -> str:
    """A value as it follows the name of its setting: the ``7`` of seed7, the ``_clip`` of reranker_clip.

    Of a recipe it is its experiment, with a hash of all of it.
    """
    if isinstance(value, Mapping):
        experiment = str(value.get("experiment", "settings")).rpartition("/")[2]
        return f"_{file_name(experiment)}~{digest(str(value))[:6]}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return file_name(str(value)) if is_number else f"_{joined_names(value if isinstance(value, list) else [value])}"


def joined_names(values: Sequence[object]) -> str:
    """Names and paths as part of a file name; a path becomes its last part and a hash of the whole path."""
    found = []
    for text in map(str, values):
        path = Path(text)
        name = file_name(path.parent.name if path.name == MODEL else path.name)
        found.append(f"{name}~{digest(text)[:6]}" if "/" in text else file_name(text))
    return shortened("+".join(found))


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 9]}-{digest(text)[:8]}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def numbered(folder: Path, holds_another: Callable[[Path], bool]) -> Path:
    """``folder``, or the first of ``folder-2``, ``folder-3``, ... that does not hold anything else yet."""
    number, found = 1, folder
    while holds_another(found):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
