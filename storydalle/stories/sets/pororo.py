"""PororoSV: 1 + 4 consecutive scenes of an episode of Pororo, from its authors' files (data/pororo/README.md)."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from storydalle.files.pickles import load_pickle, multi_hot, text_of
from storydalle.files.reading import read_dict, read_text
from storydalle.files.text import clean
from storydalle.stories.pictures import MIN_SIDE, ClipError, centre_square, open_picture
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root

SPLIT_IDS, SOURCES, FOLLOWINGS = "train_seen_unseen_ids.npy", "img_cache4.npy", "following_cache4.npy"
COUNTER, LABELS, CAPTIONS, PICKLED_CAPTIONS = "frames_counter.npy", "labels.npy", "descriptions.csv", "descriptions.npy"
CACHED_TARGETS = 4  # The indices of the splits count windows of 1 + 4.
CLIP = re.compile(r"(?:(?!\.\.?/)[^/]+/){1,2}[0-9]+")
SWALLOWED_ROW = re.compile(r"\n[^\n,]+,[0-9]+,")


class PororoSV(StorySet):
    """Stories of ``train``, ``val`` (episodes that are also in train) and ``test`` (other episodes).

    A clip is a path below the root without its suffix, ``<episode>/<scene>`` or ``<series>/<episode>/<scene>``. The id
    of a story is its source clip. The splits fix the sources; with ``num_targets`` other than 4 the targets are the
    next scenes of the episode, and stories for which the episode is too short are left out.
    """

    name = "pororo"
    whole = "episodes"
    characters = ("Pororo", "Loopy", "Crong", "Eddy", "Poby", "Petty", "Tongtong", "Rody", "Harry")
    official_counts: ClassVar[Mapping[str, int]] = {"train": 10191, "val": 2334, "test": 2208}

    def __init__(self, root: str | Path | None, num_targets: int = CACHED_TARGETS) -> None:
        super().__init__(root)
        self._check_pictures()
        find_root(self.root, "PororoSV", [SPLIT_IDS], f"give the folder of the episodes, which holds {SPLIT_IDS}")
        if num_targets < 1:
            raise ValueError(f"num_targets={num_targets}: a story has one target or more")
        self.num_targets = num_targets
        self._files = [self.root / SPLIT_IDS]
        indices = _read_splits(self.root / SPLIT_IDS)
        windows = self._windows()
        captions = self._captions([clip for window in windows for clip in window])
        labels = self._labels()
        self._records = {split: self._stories(split, indices[split], windows, captions, labels) for split in indices}
        self._name_leaks()

    def _check_pictures(self) -> None:
        """Refuse PororoQA's table (the captions of PororoSV's parent set), by name, if there is nothing else."""
        table, here = self.root / CAPTIONS, self.root.iterdir() if self.root.is_dir() else ()
        if {path.name for path in here if not path.name.startswith(".")} != {CAPTIONS}:
            return
        scenes = self._table(table)
        raise ValueError(
            f"{table} alone is no PororoSV: it is PororoQA's table, the words of {len(scenes):,} scenes in "
            f"{len({_episode(scene) for scene in scenes})} episodes; the pictures, {SPLIT_IDS} and {SOURCES} come with "
            "PororoSV (data/pororo/README.md says from whom)"
        )

    def pictures(self, clip: str) -> list[Image.Image]:
        """The square frames of a clip's file, which has them one below the other."""
        strip = open_picture(self.clip_file(clip))
        side = min(strip.size)
        if side < MIN_SIDE or strip.width >= 2 * strip.height:
            raise ClipError(f"wrong shape: {strip.width}x{strip.height} is no vertical strip of square frames")
        boxes = [(0, i * side, side, (i + 1) * side) for i in range(max(strip.size) // side)]
        return [centre_square(strip.crop(box)) for box in boxes]

    def clip_file(self, clip: str) -> Path:
        return self.root / f"{clip}.png"

    def official_count(self, split: str) -> int | None:
        return super().official_count(split) if self.num_targets == CACHED_TARGETS else None

    def annotation_files(self) -> list[Path]:
        return list(self._files)

    def _stories(
        self,
        split: str,
        indices: Sequence[int],
        windows: Sequence[tuple[str, ...]],
        captions: Mapping[str, str],
        labels: Mapping[str, tuple[int, ...]],
    ) -> list[StoryRecord]:
        records: dict[str, StoryRecord] = {}
        for index in sorted(indices):
            if not 0 <= index < len(windows):
                self._problem(f"{SPLIT_IDS} ({split})", f"index out of range: {index} of {len(windows)} windows")
            elif (story := windows[index][0]) in records:
                self._problem(story, f"story twice: again as index {index} of {split}")
            elif self._is_whole(windows[index], captions):
                clips = windows[index]
                if not captions.get(story):
                    self._problem(story, "no source caption: the story is kept, its targets have theirs")
                records[story] = StoryRecord(
                    id=story,
                    clips=clips,
                    captions=tuple(captions.get(clip, "") for clip in clips),
                    group=_episode(story),
                    characters=tuple(labels[clip] for clip in clips) if all(clip in labels for clip in clips) else None,
                )
                unlabelled = [clip for clip in clips if clip not in labels]
                if labels and unlabelled:
                    self._problem(story, f"no label: of {', '.join(unlabelled)}; the story is kept without characters")
        if not records:
            why = next((f"; the last problem is {where}: {what}" for where, what in reversed(self.problems)), "")
            raise ValueError(f"{self.root} has no whole story in the split {split}{why}")
        return list(records.values())

    def _is_whole(self, clips: tuple[str, ...], captions: Mapping[str, str]) -> bool:
        """True if the story can be used; adds problems for what is missing or unusual."""
        story, followings = clips[0], clips[1:]
        foreign = [clip for clip in clips if not CLIP.fullmatch(clip)]
        silent = [clip for clip in followings if not captions.get(clip)]
        if foreign:
            self._problem(story, f"bad path: {foreign[0]!r} is no <episode>/<scene>.png")
        elif len(followings) < self.num_targets:
            self._problem(story, f"short window: {len(followings)} of {self.num_targets} followings")
        elif silent:
            self._problem(story, f"no caption: of {', '.join(silent)}")
        elif followings != _next_scenes(story, len(followings)):
            crosses = any(_episode(clip) != _episode(story) for clip in followings)
            what = "window crosses episodes" if crosses else "odd window"
            self._problem(story, f"{what}: followed by {', '.join(followings)}, as in {FOLLOWINGS}; kept")
        return not foreign and len(followings) == self.num_targets and not silent

    def _windows(self) -> list[tuple[str, ...]]:
        """Sources and followings, by the index that the splits use: from the caches, or by their rule.

        A cache that was rebuilt with fewer followings has more sources, so its indices do not fit the splits.
        """
        sources, followings = self._cache(SOURCES, 1), self._cache(FOLLOWINGS, 2)
        if sources is not None and followings is not None:
            if len(followings) != len(sources):
                raise ValueError(
                    f"{self.root / FOLLOWINGS} has {len(followings)} stories and {SOURCES} has {len(sources)}: they "
                    f"belong to different copies; remove both, and windows are built from {COUNTER}"
                )
            if followings.shape[1] == self.num_targets == CACHED_TARGETS:
                return [(source, *row) for source, row in zip(sources.tolist(), followings.tolist(), strict=True)]
        counter = self._counter()
        by_rule = _sources_by_rule(counter)
        built = f"windows are built from {COUNTER}"
        if sources is None:
            unused = "" if followings is None else f", not read from {FOLLOWINGS}"
            self._problem(SOURCES, f"missing: {built}{unused}")
        elif followings is None:
            self._problem(FOLLOWINGS, f"missing: {built}")
        elif (width := followings.shape[1]) != CACHED_TARGETS:
            self._problem(FOLLOWINGS, f"{width} followings instead of {CACHED_TARGETS}: {built}")
            if set(sources) - set(by_rule) or set(sources) == set(_sources_by_rule(counter, width)):
                self._problem(SOURCES, f"rebuilt for {width} followings, which the splits do not count: {built}")
                sources = None
        return [self._window(source, counter) for source in (by_rule if sources is None else sources.tolist())]

    def _window(self, source: str, counter: Mapping[str, int]) -> tuple[str, ...]:
        """A clip and the next ones, as far as its episode goes."""
        num_left = counter.get(_episode(source), 0) - _scene(source)
        return source, *_next_scenes(source, max(0, min(self.num_targets, num_left)))

    def _cache(self, name: str, dims: int) -> np.ndarray | None:
        path = self.root / name
        if not path.exists():
            return None
        self._files.append(path)
        cache = load_pickle(path)
        if not isinstance(cache, np.ndarray) or cache.ndim != dims or cache.dtype.kind not in "SUO":
            raise ValueError(f"{path} is no array of paths of {dims} dimension{'s' * (dims > 1)}: copy it again")
        try:
            return np.vectorize(_clip_of, otypes=[object])(cache)
        except ValueError as error:
            raise ValueError(f"{path} holds something else than paths: {error}") from error

    def _counter(self) -> dict[str, int]:
        """Scenes of each episode."""
        path = self.root / COUNTER
        if not path.exists():
            raise ValueError(f"{path} is missing: without caches of 1 + {self.num_targets} clips, windows need it")
        self._files.append(path)
        counts = read_dict(path)
        scenes = {key: int(count) for key, count in counts.items() if isinstance(count, int | np.integer)}
        if len(scenes) < len(counts):
            raise ValueError(f"{path} counts something else than scenes: copy it again")
        return {key.strip("/"): number for key, number in scenes.items()}

    def _captions(self, clips: Sequence[str]) -> dict[str, str]:
        """The first caption of each clip; tables that name episodes without their series work too."""
        path = self.root / CAPTIONS
        if path.exists():
            captions = self._table(path)
        else:
            path = self.root / PICKLED_CAPTIONS
            if not path.exists():
                raise ValueError(f"{self.root} has neither {CAPTIONS} nor {PICKLED_CAPTIONS}: a story needs captions")
            captions = {_clip_of(key): _first_caption(value, path) for key, value in read_dict(path).items()}
        self._files.append(path)
        episodes = Counter(episode.rpartition("/")[2] for episode in {_episode(clip) for clip in clips})
        for clip in set(clips) - set(captions):
            _, _, short = clip.partition("/")
            if short in captions and episodes[_episode(short)] == 1:
                captions[clip] = captions[short]
        return captions

    def _table(self, path: Path) -> dict[str, str]:
        captions: dict[str, str] = {}
        rows = csv.reader(io.StringIO(read_text(path)))
        try:
            for row in rows:
                where = f"{CAPTIONS} line {rows.line_num}"
                if len(row) != 3 or not re.fullmatch(r"[0-9]+(\.png)?", row[1].strip()):
                    if row:
                        self._problem(where, f"bad row: {row!r:.80} is no episode, scene and caption")
                    continue
                if SWALLOWED_ROW.search(row[2]):
                    self._problem(where, f"open quote: the caption of {row[0]}/{row[1]} runs over other rows")
                clip = f"{row[0].strip().strip('/')}/{int(row[1].strip().removesuffix('.png'))}"
                captions.setdefault(clip, clean(row[2]))
        except csv.Error as error:
            raise ValueError(f"{path} is no table of comma-separated values: {error}") from error
        if not captions:
            raise ValueError(f"{path} has no row of episode, scene and caption")
        return captions

    def _labels(self) -> dict[str, tuple[int, ...]]:
        path = self.root / LABELS
        if not path.exists():
            self._problem(LABELS, "missing: the stories have no characters")
            return {}
        self._files.append(path)
        labels = {}
        for key, value in read_dict(path).items():
            try:
                labels[_clip_of(key)] = multi_hot(value, len(self.characters))
            except ValueError as error:
                self._problem(f"{LABELS} ({key})", f"bad label: {error}")
        return labels

    def _name_leaks(self) -> None:
        """Add problems for stories in two splits, and for test episodes that are in train."""
        seen: dict[str, str] = {}
        for split, records in self._records.items():
            for record in records:
                if record.id in seen:
                    self._problem(record.id, f"story in two splits: {seen[record.id]} and {split}; kept")
                seen.setdefault(record.id, split)
        train, test = ({record.group for record in self._records[split]} for split in ("train", "test"))
        for episode in sorted(train & test):
            self._problem(episode, "unseen episode in train: it has stories of train and of test; kept")

    def _problem(self, where: str, what: str) -> None:
        self.problems.append(Problem(where, what))


def _read_splits(path: Path) -> dict[str, list[int]]:
    lists = load_pickle(path)
    if not isinstance(lists, list | tuple | np.ndarray) or len(lists) != 3:
        raise ValueError(f"{path} does not hold three lists, of train, seen (val) and unseen (test): copy it again")
    splits = {}
    for split, part in zip(("train", "val", "test"), lists, strict=True):
        indices = np.asarray(list(part)) if isinstance(part, list | tuple | np.ndarray) else np.empty(0)
        if not indices.size:
            raise ValueError(f"{path} has no story in the split {split}: copy it again")
        if indices.ndim != 1 or indices.dtype.kind not in "iu":
            raise ValueError(f"{path} has something else than indices in the split {split}: copy it again")
        splits[split] = [int(index) for index in indices]
    return splits


def _first_caption(value: object, path: Path) -> str:
    captions = [value] if isinstance(value, str | bytes) else value
    if not isinstance(captions, list | tuple | np.ndarray) or not all(isinstance(c, str | bytes) for c in captions):
        raise ValueError(f"{path} has {value!r:.80} in the place of a list of captions: copy it again")
    return clean(text_of(captions[0])) if len(captions) else ""


def _clip_of(path: object) -> str:
    return text_of(path).strip("/").removesuffix(".png")


def _episode(clip: str) -> str:
    return clip.rpartition("/")[0]


def _scene(clip: str) -> int:
    return int(clip.rpartition("/")[2]) if CLIP.fullmatch(clip) else 0


def _next_scenes(clip: str, number: int) -> tuple[str, ...]:
    return tuple(f"{_episode(clip)}/{_scene(clip) + i}" for i in range(1, number + 1))


def _sources_by_rule(counter: Mapping[str, int], num_followings: int = CACHED_TARGETS) -> list[str]:
    """Clips with at least so many clips after them in their episode, in the order of sorted names (1, 10, 2)."""
    return [
        f"{episode}/{scene}"
        for episode in sorted(counter, key=lambda episode: episode.split("/"))
        for scene in sorted(map(str, range(1, counter[episode] - num_followings + 1)))
    ]
