"""Frames that any system has drawn: find them by a layout, survey all of them, read them one by one."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypedDict, Unpack

import numpy as np
from jaxtyping import Shaped, UInt8

from storydalle.evaluation.drawn_layouts import (
    COLUMNS,
    OWN_FRAME,
    SAMPLE,
    TENSORS,
    Clips,
    Lengths,
    Listing,
    Place,
    clip_of,
    files_below,
    is_picture,
    list_arldm,
    list_clip_id,
    list_csv,
    list_own,
    list_storydalle,
    maps_files,
)
from storydalle.evaluation.drawn_pictures import RULES, Look, Places, look_at
from storydalle.evaluation.vistorybench import holds_shots, list_shots
from storydalle.files.paths import user_path
from storydalle.mistakes import first_few
from storydalle.stories.pictures import ClipError
from storydalle.stories.resizing import LANCZOS, at_size
from storydalle.stories.story import Stories
from storydalle.stories.story_set import Problem

LAYOUTS: dict[str, Callable[..., Listing]] = {
    "frames": list_own,
    "storydalle": list_storydalle,
    "arldm": list_arldm,
    "csv": list_csv,
    "vistorybench": list_shots,
    "clip_id": list_clip_id,
}
NAMED_BY_ID = ("frames", "csv", "clip_id")  # layouts that name stories, or their clips, as the set does
NUM_NAMED, NUM_EXAMPLES = 5, 3

Seen = tuple[dict[int, Look], list[Problem]]  # of one story, by frame


@dataclass(frozen=True)
class Survey:
    """An inventory of a folder of drawn frames, for the stories to be scored.

    Attributes:
        root: the folder.
        layout: the layout of its files.
        stories: ids of the stories to be scored, in the split's order.
        whole: those with every frame exactly once, all readable.
        problems: everything that is wrong, by file or frame.
        counts: numbers of problems by kind, and of pictures that were converted by each of ``RULES``.
        sizes: numbers of pictures by "WIDTHxHEIGHT", the most frequent first.
        notes: what a reader of the scores should know.
        hashes: sha256 of the file of each frame that can be read, by story and frame from 1.
        interpolation: how pictures reach the size of the judging.
    """

    root: Path
    layout: str
    stories: tuple[str, ...]
    whole: tuple[str, ...]
    problems: tuple[Problem, ...]
    counts: Mapping[str, int]
    sizes: Mapping[str, int]
    notes: tuple[str, ...]
    hashes: Mapping[tuple[str, int], str]
    interpolation: str

    @property
    def sha256(self) -> str:
        """One hash of all readable frames, by story, frame and content, not by the names of files."""
        rows = [[*key, sha256] for key, sha256 in sorted(self.hashes.items())]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()

    def check(self, allow_partial: bool = False) -> list[str]:
        """Ids of the stories to score: all of them, or with ``allow_partial`` only complete ones.

        Raises ValueError for any problem, naming the first ones, and if no story is complete.
        """
        if not self.problems or (allow_partial and self.whole):
            return list(self.whole)
        kinds = Counter(kind_of(problem) for problem in self.problems)
        summary = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        named = [f"{where}: {what}" for where, what in self.problems]
        stray = next((i for i, problem in enumerate(self.problems[:NUM_NAMED]) if kind_of(problem) == "no story"), None)
        if stray is not None and self.layout in NAMED_BY_ID:
            named[stray] += f", whose stories are called {', '.join(self.stories[:NUM_EXAMPLES])}"
        first = first_few(named, NUM_NAMED, separator="; ")
        remedy = "none of its stories is whole"
        if self.whole:
            some = f"{len(self.whole)} whole stories of {len(self.stories)}"
            remedy = f"fix them, or score the {some} with allow_partial=true"
        raise ValueError(f"{self.root} has {len(self.problems)} problems ({summary}): {first}; {remedy}")

    def record(self) -> dict[str, object]:
        """The survey as json-ready values, without the folder's name: equal for equal frames in any place."""
        return {
            "layout": self.layout,
            "num_stories": len(self.stories),
            "num_whole": len(self.whole),
            "num_frames": len(self.hashes),
            "sizes": dict(self.sizes),
            "interpolation": self.interpolation,
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "sha256": self.sha256,
        }


class Options(TypedDict, total=False):
    """Options of ``DrawnFrames`` that a set's stories do not tell."""

    scored: Collection[str] | None
    others: Container[str]
    stories_per_batch: int
    interpolation: str


class DrawnFrames:
    """The frames below a folder, by story; they are decoded only when they are needed.

    Args:
        root: the folder, or the CSV of layout ``csv``.
        lengths: the number of target frames of every story of the split, in the split's order: layouts that name a
            story by its number count by it.
        resolution: side of the square pictures that ``read`` gives.
        layout: one of ``LAYOUTS``; by default found from the names of the files.
        scored: ids of the stories to be scored, all by default; pictures of others are ignored.
        others: ids of other stories that may be in the folder, such as those of another split.
        stories_per_batch: AR-LDM's ``batch_size``, which decides the order of its files.
        interpolation: how pictures reach the resolution (``resizing.at_size``).
        clips: ids of each story's clips, by which layout ``clip_id`` names pictures.

    Raises ValueError for a folder that is missing, empty, or fits no layout or several, naming what was found.
    """

    def __init__(
        self,
        root: Path | str,
        lengths: Lengths,
        resolution: int,
        layout: str | None = None,
        *,
        scored: Collection[str] | None = None,
        others: Container[str] = (),
        stories_per_batch: int = 1,
        interpolation: str = LANCZOS,
        clips: Clips | None = None,
    ) -> None:
        self.root, files = files_of_pictures(user_path(root))
        self.resolution, self.interpolation = resolution, interpolation
        self.layout = layout or find_layout(self.root, files, clips or {})
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout={self.layout} is none of {', '.join(LAYOUTS)}")
        self.lengths = _asked(lengths, scored)
        lister = LAYOUTS[self.layout]
        if self.layout == "arldm":
            lister = partial(list_arldm, stories_per_batch=stories_per_batch)
        if self.layout == "clip_id":
            lister = partial(list_clip_id, clips=clips or {})
        listing = lister(self.root, files, lengths)
        self._strays = list(listing.problems)
        self._places: dict[str, dict[int, list[Place]]] = {story: {} for story in self.lengths}
        num_aside = 0
        for story, frame, place in listing.frames:
            if story in self._places:
                self._places[story].setdefault(frame, []).append(place)
            elif story in lengths or story in others:
                num_aside += 1
            else:
                self._strays.append(Problem(str(place), f"no story: {story!r} is none of this split"))
        aside = [f"{num_aside} pictures of stories that are not scored were ignored"] if num_aside else []
        self.notes = (*listing.notes, *aside)

    @classmethod
    def of(
        cls, root: Path | str, stories: Stories, layout: str | None = None, **options: Unpack[Options]
    ) -> "DrawnFrames":
        """Frames drawn for a data set's stories, at its resolution; ``options`` are the constructor's."""
        outlines = [stories.outline(index) for index in range(len(stories))]
        lengths = {each.id: len(each.captions) for each in outlines}
        clips = {
            each.id: [shot.clip for shot in each.shots]
            for each in outlines
            if all(shot.frame is None for shot in each.shots)
        }
        return cls(root, lengths, stories.resolution, layout, clips=clips, **options)

    def read(self, story: str) -> Shaped[np.ndarray, "f h w 3"]:
        """The target frames of a story in [0, 255], square at the resolution, uint8 or, with ``clean``, floats.

        Raises ValueError for one that is not whole.
        """
        gap = next(self._gaps(story), None)
        if gap is not None:
            raise ValueError(f"{story} is not whole: {gap.where}: {gap.what}")
        opener, frames = Places(self.root), []
        for frame in range(1, self.lengths[story] + 1):
            place = self._places[story][frame][0]
            try:
                frames.append(at_size(opener.open(place).picture, self.resolution, self.interpolation))
            except ClipError as error:
                raise ValueError(f"{story} is not whole: {place}: {error}") from error
        return np.stack(frames)

    def survey(
        self,
        sources: Callable[[str], UInt8[np.ndarray, "h w 3"]] | None = None,
        num_workers: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> Survey:
        """Decode every picture once, and list all problems.

        Args:
            sources: gives a story's true source at the resolution: stories that show another's are noted.
            num_workers: threads; each holds one picture at a time.
            progress: called with the number of stories done and to do.
        """
        looks: dict[tuple[str, int], Look] = {}
        problems, broken = list(self._strays), set()
        for story, (seen, wrong) in self._seen(num_workers, progress):
            looks |= {(story, frame): look for frame, look in seen.items()}
            problems += wrong
            broken |= {story} if wrong else set()
        problems += self._all_alike(looks)
        forms = Counter(form for look in looks.values() for form in look.forms)
        sizes = Counter(look.size for look in looks.values())
        shuffled = self._shuffled(looks, sources) if sources else ()
        return Survey(
            root=self.root,
            layout=self.layout,
            stories=tuple(self.lengths),
            whole=tuple(story for story in self.lengths if story not in broken),
            problems=tuple(problems),
            counts=dict(Counter(kind_of(problem) for problem in problems) + forms),
            sizes=dict(sizes.most_common()),
            notes=(*self.notes, *_told(forms, sizes), *shuffled),
            hashes={key: look.sha256 for key, look in looks.items()},
            interpolation=self.interpolation,
        )

    def _seen(self, num_workers: int, progress: Callable[[int, int], None] | None) -> Iterator[tuple[str, Seen]]:
        """Facts about each story's frames, in the stories' order."""
        pool = ThreadPoolExecutor(num_workers)
        try:
            seen = zip(self.lengths, pool.map(self._look, self.lengths), strict=True)
            for done, result in enumerate(seen, start=1):
                yield result
                if progress is not None:
                    progress(done, len(self.lengths))
        finally:
            pool.shutdown(cancel_futures=True)

    def _look(self, story: str) -> Seen:
        """Open the pictures of one story one after the other; none is kept in memory."""
        problems, looks, opener = list(self._gaps(story)), {}, Places(self.root)
        for frame in range(1, self.lengths[story] + 1):
            for place in self._places[story].get(frame, []):
                try:
                    looks[frame] = look_at(opener.open(place), self.resolution)
                except ClipError as error:
                    problems.append(Problem(str(place), str(error)))
        return looks, problems

    def _gaps(self, story: str) -> Iterator[Problem]:
        """Frames of a story that are missing, duplicate or too many."""
        length, places = self.lengths[story], self._places[story]
        for frame in range(1, length + 1):
            where = f"{story} frame {frame}"
            if frame not in places:
                yield Problem(where, f"missing: the story has {length}, counted from 1")
            elif len(places[frame]) > 1:
                yield Problem(where, f"doubled: {', '.join(map(str, places[frame]))}")
        for frame in sorted(places.keys() - set(range(1, length + 1))):
            yield Problem(str(places[frame][0]), f"beyond: frame {frame} of a story of {length}, counted from 1")

    def _all_alike(self, looks: Mapping[tuple[str, int], Look]) -> Iterator[Problem]:
        pixels = {look.pixels_sha256 for look in looks.values()}
        if len(pixels) == 1 and len({story for story, _ in looks}) > 1:
            yield Problem("all stories", f"all alike: the {len(looks)} frames are one and the same picture")

    def _shuffled(
        self, looks: Mapping[tuple[str, int], Look], sources: Callable[[str], UInt8[np.ndarray, "h w 3"]]
    ) -> Iterator[str]:
        """A note where all frames of a story are one picture, and that one another story's true source.

        Frames that are other stories' sources one by one are none of this: the windows of a set may overlap.
        """
        own = {story: hashlib.sha256(sources(story).tobytes()).hexdigest() for story in self.lengths}
        story_of = {sha256: story for story, sha256 in reversed(own.items())}
        found = []
        for story, length in self.lengths.items():
            keys = [(story, frame) for frame in range(1, length + 1)]
            shown = {looks[key].scored_sha256 if key in looks else "" for key in keys}
            other = story_of.get(*shown) if len(shown) == 1 else None
            if other is not None and own[story] not in shown:
                found.append(f"{story} the one of {other}")
        if found:
            yield f"possibly shuffled: {len(found)} stories show another's source, such as {'; '.join(found[:3])}"


def kind_of(problem: Problem) -> str:
    """The kind of a problem: the fixed words that it begins with."""
    return problem.what.partition(":")[0]


def find_layout(root: Path, files: Sequence[str], clips: Clips = MappingProxyType({})) -> str:
    """The layout that fits the names of a folder's files; ValueError if none or several fit.

    ``clips`` are the clips of the stories to be scored.
    """
    pictures = [PurePosixPath(file) for file in files if is_picture(file)]
    speaks = {
        "csv": any(maps_files(root, file) for file in files),
        "storydalle": any(SAMPLE.fullmatch(path.stem) for path in pictures)
        or any(file.endswith(".pt") and TENSORS.fullmatch(Path(file).stem) for file in files),
        "vistorybench": holds_shots(files),
    }
    layouts = [layout for layout, is_spoken_of in speaks.items() if is_spoken_of]
    if len(layouts) > 1:
        raise ValueError(f"{root} could be of the layouts {' and '.join(layouts)}: name one with layout=")
    if layouts:
        return layouts[0]
    known = {clip for own in clips.values() for clip in own}
    if any(clip_of(path.with_suffix(""), known) and path.parent.as_posix() not in clips for path in pictures):
        return "clip_id"
    if any(path.parent == PurePosixPath() and path.stem.isdigit() and len(path.stem) >= 4 for path in pictures):
        return "arldm"
    if any(path.parent != PurePosixPath() and OWN_FRAME.fullmatch(path.stem) for path in pictures):
        return "frames"
    raise ValueError(
        f"{root} holds {len(files)} files and none that a layout knows: give <story id>/01.png, ..., or "
        "gen_sample_<story>_<frame>.png, sdalle_story_*.pt, 0000.png, ..., <clip id>.png, a CSV "
        f"({','.join(COLUMNS)}), or shots"
    )


def files_of_pictures(path: Path) -> tuple[Path, list[str]]:
    """A folder and its files; of a CSV, its folder and the CSV alone. ValueError where there is no file."""
    if path.is_file() and path.suffix == ".csv":
        return path.parent, [path.name]
    if not path.is_dir():
        raise ValueError(f"{path} is no folder of pictures, and no CSV that names some")
    files = files_below(path)
    if not files:
        raise ValueError(f"{path} is empty: give the folder that holds the drawn frames")
    return path, files


def _asked(lengths: Lengths, scored: Collection[str] | None) -> dict[str, int]:
    """The lengths of the stories to be scored, in the split's order."""
    wanted = set(lengths if scored is None else scored)
    unknown = sorted(wanted - lengths.keys())
    if unknown or not wanted:
        asked = f"story {unknown[0]} is asked for" if unknown else "no story is asked for"
        raise ValueError(f"{asked}: the split has {len(lengths)}, from {next(iter(lengths), 'none')} on")
    return {story: length for story, length in lengths.items() if story in wanted}


def _told(forms: Counter[str], sizes: Counter[str]) -> Iterator[str]:
    """Notes on converted pictures and on different sizes."""
    yield from (f"{forms[form]} {rule}" for form, rule in RULES.items() if forms[form])
    if len(sizes) > 1:
        yield f"{len(sizes)} sizes: {', '.join(f'{number} of {size}' for size, number in sizes.most_common(4))}"
