"""ViStoryBench's folders of shots: export frames to be judged by it, and read such folders to score them here.

A run is ``method/mode/language/timestamp/<story>/shots/shot_00.png, shot_01.png, ...``, as the benchmark's reader
(ViStoryBench/vistorybench, dataset_loader/read_outputs.py at 5ac2610) wants it: stories are folders named by a number,
right below the timestamp, and shots are taken in the order of their numbers. Its README draws
``timestamp/shots/<story>``, in which that reader fails. Both are written by ``order`` and both are read. Every shot is
one that a system drew: the benchmark knows no given frame, so a source is a shot only where ``first_is_given`` says so.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeGuard

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from storydalle.evaluation.drawn_layouts import NUMBERED, Found, Lengths, Listing, Place, is_picture
from storydalle.files.paths import user_path
from storydalle.files.reading import read_json
from storydalle.files.whole import folder_when_whole
from storydalle.stories.story_set import Problem

LANGUAGES = ("en", "ch")
ORDERS = ("story/shots", "shots/story")
RECORD = "storydalle.json"  # which folder is which story; the benchmark's reader looks at folders only
PROGRAM = "storydalle"
TIMESTAMP = re.compile(r"[0-9]{8}[_-][0-9]{6}")
SHOT = re.compile(r"(?:shot[_-]?)?([0-9]+)", re.IGNORECASE)
SHOTS, CHARACTERS = ("shots", "shot"), ("chars", "characters")


class Run(NamedTuple):
    """One run of an export: its folder below the root, and the content of our record."""

    folder: str  # "" or ending in "/"
    stories: dict[str, str] | None  # ids by the names of folders; none in an export that is not ours
    first_is_given: bool


def export_shots(
    root: Path | str,
    stories: Iterable[tuple[str, UInt8[np.ndarray, "f h w 3"]]],
    *,
    method: str,
    mode: str,
    language: str,
    timestamp: str,
    order: str = "story/shots",
    first_is_given: bool = False,
) -> Path:
    """Write stories as a run of ViStoryBench's ``data/outputs``, and return the run's folder.

    Stories are ids and frames, uint8 (f, h, w, 3), read one after another. A story whose id is a number keeps it as
    its folder's name, as the benchmark's own have them; another gets its position from 1, and ``storydalle.json``
    says which it is. The folder appears when all is written.

    Args:
        root: the benchmark's ``outputs_path``.
        stories: what to write.
        method: first folder, a system's name.
        mode: second folder, such as ``base``.
        language: ``en`` or ``ch``.
        timestamp: ``YYYYMMDD_HHMMSS``.
        order: ``story/shots`` or ``shots/story``, the folders below the timestamp.
        first_is_given: whether the first frame of each story is the source, which becomes ``shot_00``.

    Raises ValueError for a name that the benchmark cannot read, for a folder that holds an export already, and for
    two stories of one folder.
    """
    _check_names(method=method, mode=mode, language=language, timestamp=timestamp, order=order)
    run = user_path(root) / method / mode / language / timestamp
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ValueError(f"{run} holds an export already: give another timestamp, or remove it")
    with folder_when_whole(run) as folder:
        names = _write_shots(folder, stories, order)
        record = {"program": PROGRAM, "first_is_given": first_is_given, "stories": names}
        (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return run


def list_shots(root: Path, files: Sequence[str], lengths: Lengths) -> Listing:
    """Shots of one run, whose folder is ``root`` or the only one with a timestamp below it.

    Without our record a story's folder is its id, or its position in the split's order, from 1. Shots count from 0 if
    there is a shot 0 anywhere, else from 1.
    """
    run = _find_run(root, files)
    listing = Listing([], [], [])
    shots: list[tuple[str, int, str]] = []
    for file in filter(is_picture, files):
        name, number = _parts_of(file.removeprefix(run.folder)) if file.startswith(run.folder) else ("", None)
        if number is not None:
            shots.append((name, number, file))
        elif not set(CHARACTERS) & {part.lower() for part in PurePosixPath(file).parts}:
            listing.problems.append(Problem(file, "no frame: it is not called <story>/shots/shot_XX.png"))
    ids = _ids_of(run, {name for name, _, _ in shots}, lengths, listing)
    first = 0 if run.stories is not None or any(number == 0 for _, number, _ in shots) else 1
    for name, number, file in shots:
        frame = number - first + (not run.first_is_given)
        if name not in ids:
            listing.problems.append(Problem(file, f"no story: number {name} of {len(lengths)}, counted from 1"))
        elif frame > 0 or not run.first_is_given:
            listing.frames.append(Found(ids[name], frame, Place(file)))
    if run.stories is None:
        listing.notes.append(f"shots were counted from {first}, every one as a drawn frame")
    return listing


def holds_shots(files: Sequence[str]) -> bool:
    """True for an export, by its files: our record, a timestamp in the path, or a file named shot_XX."""
    paths = [PurePosixPath(file) for file in files]
    return any(
        path.name == RECORD
        or (is_picture(path.name) and any(TIMESTAMP.fullmatch(part) or part in SHOTS for part in path.parent.parts))
        or (is_picture(path.name) and path.stem.lower().startswith("shot") and _parts_of(str(path))[1] is not None)
        for path in paths
    )


def _check_names(**names: str) -> None:
    for key in ("method", "mode"):
        name = names[key]
        if not name or name != PurePosixPath(name).name or name.startswith(".") or name in LANGUAGES:
            raise ValueError(f"{key}={name!r} is no name of a folder that ViStoryBench reads: give one such as base")
    if names["language"] not in LANGUAGES:
        raise ValueError(f"language={names['language']!r}: ViStoryBench knows {' and '.join(LANGUAGES)}")
    if not TIMESTAMP.fullmatch(names["timestamp"]):
        raise ValueError(f"timestamp={names['timestamp']!r}: give YYYYMMDD_HHMMSS, such as 20260131_120000")
    if names["order"] not in ORDERS:
        raise ValueError(f"order={names['order']!r}: give one of {', '.join(ORDERS)}")


def _write_shots(run: Path, stories: Iterable[tuple[str, UInt8[np.ndarray, "f h w 3"]]], order: str) -> dict[str, str]:
    """Ids by the names of the folders that were written."""
    names: dict[str, str] = {}
    for position, (story, frames) in enumerate(stories, start=1):
        name = story if re.fullmatch(r"[0-9]+", story) else f"{position:02d}"
        if name in names:
            raise ValueError(f"the stories {names[name]!r} and {story!r} would both be in the folder {name}")
        names[name] = story
        folder = run / "shots" / name if order == "shots/story" else run / name / "shots"
        folder.mkdir(parents=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"shot_{number:02d}.png")
    if not names:
        raise ValueError("there is no story to export")
    return names


def _find_run(root: Path, files: Sequence[str]) -> Run:
    """The one run below a folder."""
    folders: dict[str, None] = {}
    for parts in (PurePosixPath(file).parts[:-1] for file in files):
        depth = next((k + 1 for k, part in enumerate(parts) if TIMESTAMP.fullmatch(part)), 0)
        folders["".join(f"{part}/" for part in parts[:depth])] = None
    runs = [folder for folder in folders if folder] or [""]
    if len(runs) > 1:
        raise ValueError(f"{root} holds {len(runs)} runs, {', '.join(runs[:3])}: give the folder of one")
    if runs[0] + RECORD not in files:
        return Run(runs[0], None, False)
    path = root / runs[0] / RECORD
    content = read_json(path)
    record = content if isinstance(content, dict) and content.get("program") == PROGRAM else {}
    stories = record.get("stories")
    if not _are_named(stories):
        raise ValueError(f"{path} does not say which folder is which story: export again")
    return Run(runs[0], stories, record.get("first_is_given") is True)


def _are_named(stories: object) -> TypeGuard[dict[str, str]]:
    return isinstance(stories, dict) and all(isinstance(story, str) for story in stories.values())


def _parts_of(file: str) -> tuple[str, int | None]:
    """The name of a shot's story, and its number; no number where the file is no shot of a story."""
    *folders, name = PurePosixPath(file).parts
    stories = [folder for folder in folders if folder.lower() not in SHOTS]
    match = SHOT.fullmatch(PurePosixPath(name).stem)
    return (stories[0], int(match[1])) if match and len(stories) == 1 else ("", None)


def _ids_of(run: Run, names: set[str], lengths: Lengths, listing: Listing) -> dict[str, str]:
    """Ids by the names of the folders that are there; by position, said in a note, where no name is an id."""
    if run.stories is not None:
        return {name: run.stories.get(name, name) for name in names}
    if names & lengths.keys() or not all(re.fullmatch(r"[0-9]+", name) for name in names):
        return {name: name for name in names}
    listing.notes.append(NUMBERED)
    ordered = list(lengths)
    return {name: ordered[int(name) - 1] for name in names if 1 <= int(name) <= len(ordered)}
