"""Read every clip of a story set once: hashes, shapes and damage, kept in shards on disk for later runs."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from storydalle.files.json_values import Json, as_list, as_object
from storydalle.files.records import sha256_of_file
from storydalle.files.text import parsed
from storydalle.files.whole import write_text
from storydalle.stories.pictures import ClipError
from storydalle.stories.story_set import StorySet

VERSION = 1  # of what a shard holds
SHARD_SIZE = 512  # clips
CLIPS, ANNOTATIONS = "clips", "annotations.json"
_SHARD_NAME = re.compile(r"\.?\d{5}\.json(\.partial)?")


class Stamp(NamedTuple):
    """Size and time of a file, which change with it; zeros if there is no file."""

    size: int
    mtime_ns: int


class ClipFacts(NamedTuple):
    """Facts of a clip, from reading it."""

    clip: str
    file: str  # relative to the set's root
    size: int
    mtime_ns: int
    is_shared: bool  # the file holds other clips, too
    sha256: str | None  # of the file, or of the clip's pixels where the file is shared; None where there is nothing
    num_frames: int
    width: int  # of the first frame
    height: int
    looks: tuple[str, ...]  # a ``difference_hash`` for each frame
    problem: str | None  # the text of a ClipError


class _Reading(NamedTuple):
    """A shard in progress: the facts that are known, and the clips that are still to be read."""

    number: int
    clips: list[str]
    known: dict[str, ClipFacts]
    unread: list[tuple[str, bool]]  # clip, whether its file is shared


def inspect(
    story_set: StorySet,
    clips: Iterable[str],
    folder: Path,
    key: str = "",
    workers: int = 1,
    progress: Callable[[int], object] = lambda num_clips: None,
) -> dict[str, ClipFacts]:
    """Facts of all clips, in sorted order; also written to ``folder/clips``.

    Facts from an earlier call are used again for clips whose file has the same size and time, if ``key`` is the same;
    ``key`` stands for everything else that the facts depend on. ``progress`` gets numbers of clips. With more than one
    worker, processes read, each with its own copy of the set. If the run is killed, only unfinished shards are lost.
    """
    shards = folder / CLIPS
    shards.mkdir(parents=True, exist_ok=True)
    in_place = {path.name: path.read_bytes() for path in shards.iterdir() if _SHARD_NAME.fullmatch(path.name)}
    earlier = {facts.clip: facts for content in in_place.values() for facts in _facts_of(content, key)}
    readings = _planned(story_set, sorted(set(clips)), earlier)
    found: dict[str, ClipFacts] = {}
    for reading, read in _read(story_set, readings, workers):
        facts_of = reading.known | {facts.clip: facts for facts in read}
        found |= facts_of
        text = _shard_text(key, [facts_of[clip] for clip in reading.clips])
        name = f"{reading.number:05}.json"
        if in_place.pop(name, None) != text.encode():
            write_text(shards / name, text)
        progress(len(reading.clips))
    for name in in_place:  # shards beyond the last one, and what a kill left half written
        (shards / name).unlink(missing_ok=True)
    return {clip: found[clip] for reading in readings for clip in reading.clips}


def hash_annotations(story_set: StorySet, folder: Path) -> dict[str, str | None]:
    """SHA-256 of each annotation file; an earlier one if the file has the same size and time."""
    try:
        earlier = as_object(parsed((folder / ANNOTATIONS).read_bytes()))
    except (OSError, ValueError, TypeError):
        earlier = {}
    hashed: dict[str, Json] = {}  # file -> size, time, SHA-256
    digests: dict[str, str | None] = {}
    for file in story_set.annotation_files():
        name, stamp = _relative(file, story_set), stamp_of(file)
        match earlier.get(name):
            case [size, time, str() | None as digest] if (size, time) == stamp:
                digests[name] = digest
            case _:
                digests[name] = sha256_of(file)
        hashed[name] = [*stamp, digests[name]]
    if hashed != earlier:
        write_text(folder / ANNOTATIONS, json.dumps(hashed, indent=1) + "\n")
    return digests


def read_clip(story_set: StorySet, clip: str, is_shared: bool = False) -> ClipFacts:
    file = story_set.clip_file(clip)
    stamp = stamp_of(file)
    frames: Sequence[Image.Image] = ()
    problem = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            frames = story_set.pictures(clip)
    except ClipError as error:
        problem = str(error)
    except (OSError, ValueError) as error:
        problem = f"unreadable: {' '.join(str(error).split())}"
    digest = _sha256_of_pixels(frames) if is_shared else sha256_of(file)
    width, height = frames[0].size if frames else (0, 0)
    looks = tuple(map(difference_hash, frames))
    return ClipFacts(
        clip, _relative(file, story_set), *stamp, is_shared, digest, len(frames), width, height, looks, problem
    )


def difference_hash(picture: Image.Image) -> str:
    """64 bits as 16 hex digits: which of 8 rows of 9 grey cells are brighter than the cell to their left."""
    cells = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX))
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()


def stamp_of(file: Path) -> Stamp:
    try:
        status = file.stat()
    except (OSError, ValueError):  # of a name with a zero byte
        return Stamp(0, 0)
    return Stamp(status.st_size, status.st_mtime_ns)


def sha256_of(file: Path) -> str | None:
    try:
        return sha256_of_file(file)
    except (OSError, ValueError):
        return None


def _relative(file: Path, story_set: StorySet) -> str:
    """A path from the root's folder, with slashes."""
    root = story_set.root
    return Path(os.path.relpath(file, root.parent if root == file else root)).as_posix()


def _sha256_of_pixels(frames: Sequence[Image.Image]) -> str | None:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(f"{frame.mode} {frame.width} {frame.height} ".encode())
        digest.update(frame.tobytes())
    return digest.hexdigest() if frames else None


def _shard_text(key: str, facts: Iterable[ClipFacts]) -> str:
    rows = ",\n".join(json.dumps(each._asdict()) for each in facts)
    return f'{{"version": {VERSION}, "key": {json.dumps(key)}, "clips": [\n{rows}\n]}}\n'


def _facts_of(shard: bytes, key: str) -> list[ClipFacts]:
    """Facts in a shard; none if it has another key or version, or is not complete."""
    try:
        content = as_object(parsed(shard))
        if (content["version"], content["key"]) != (VERSION, key):
            return []
        rows = [as_object(row) for row in as_list(content["clips"])]
        return [ClipFacts(**row | {"looks": tuple(as_list(row["looks"]))}) for row in rows]  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError):
        return []


def _planned(story_set: StorySet, clips: Sequence[str], earlier: Mapping[str, ClipFacts]) -> list[_Reading]:
    files = {clip: story_set.clip_file(clip) for clip in clips}
    num_clips_of = Counter(files.values())
    stamps = {file: stamp_of(file) for file in num_clips_of}
    readings = []
    for number, start in enumerate(range(0, len(clips), SHARD_SIZE)):
        reading = _Reading(number, list(clips[start : start + SHARD_SIZE]), {}, [])
        for clip in reading.clips:
            file, facts = files[clip], earlier.get(clip)
            is_shared = num_clips_of[file] > 1
            current = (_relative(file, story_set), *stamps[file], is_shared)
            if facts is not None and (facts.file, facts.size, facts.mtime_ns, facts.is_shared) == current:
                reading.known[clip] = facts
            else:
                reading.unread.append((clip, is_shared))
        readings.append(reading)
    return readings


def _read(
    story_set: StorySet, readings: Sequence[_Reading], workers: int
) -> Iterator[tuple[_Reading, list[ClipFacts]]]:
    """Every shard with the facts of its clips: shards that are known first, then others as they are read."""
    yield from ((reading, []) for reading in readings if not reading.unread)
    unread = [reading for reading in readings if reading.unread]
    workers = min(workers, len(unread))
    if workers <= 1:
        for reading in unread:
            yield reading, [read_clip(story_set, *each) for each in reading.unread]
        return
    # Spawned processes share no threads or locks with this one.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(story_set,))
    try:
        readings_of = {pool.submit(_read_in_worker, reading.unread): reading for reading in unread}
        for future in as_completed(readings_of):
            yield readings_of[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_worker: dict[str, StorySet] = {}  # the set of a reading process


def _start_worker(story_set: StorySet) -> None:
    _worker["set"] = story_set
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)  # The process that asks is gone: nothing would ever end this one.

    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()


def _read_in_worker(clips: Sequence[tuple[str, bool]]) -> list[ClipFacts]:
    return [read_clip(_worker["set"], *each) for each in clips]
