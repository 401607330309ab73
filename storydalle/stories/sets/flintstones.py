"""FlintstonesSV: 1 + 4 consecutive clips of an episode of The Flintstones (data/flintstones/README.md)."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from PIL import Image

from storydalle.files.json_values import Json, as_list
from storydalle.files.pickles import multi_hot, read_header, text_of
from storydalle.files.reading import read_dict, read_json
from storydalle.files.text import clean
from storydalle.stories.pictures import MIN_SIDE, ClipError
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root

SPLIT_FILE, OLDER_SPLIT_FILE = "train-val-test_split.json", "train-val_split.json"
ANNOTATIONS, LABELS, FOLLOWINGS = "flintstones_annotations_v1-0.json", "labels.pkl", "following_cache4.pkl"
FRAMES = "video_frames_sampled"
SPLITS = ("train", "val", "test")
TRAIN = "train"
NO_TRAIN = "this copy can be used to evaluate, but not to train"
WINDOWS = ("all", "inside")
CACHED_TARGETS = 4
LEGACY_TEST_STORIES = 1900
CLIP = re.compile(r"s_([0-9]+)_e_([0-9]+)_[\w-]+", re.ASCII)


class FlintstonesSV(StorySet):
    """Stories of ``train``, ``val`` and ``test``: a clip, and the next ones of its episode in all splits together.

    A clip is a ``globalID``. The id of a story is its source clip; the story belongs to the split of that clip, in the
    order of the split file. A copy without ``train`` can be used to evaluate.

    Args:
        root: the folder with the split file, the annotations and ``video_frames_sampled``.
        num_targets: the clips that follow the source.
        windows: ``all`` keeps a story whose targets lie in other splits, as published results do; ``inside`` leaves
            it out. Both name it.
        legacy_cut: the first 1,900 stories of the split ``test`` only, as StoryDALL-E was evaluated.
    """

    name = "flintstones"
    whole = "episodes"
    characters = ("Wilma", "Fred", "Betty", "Barney", "Dino", "Pebbles", "Mr Slate")
    official_counts: ClassVar[Mapping[str, int]] = {"train": 20132, "val": 2071, "test": 2309}

    def __init__(
        self, root: str | Path | None, num_targets: int = CACHED_TARGETS, windows: str = "all", legacy_cut: bool = False
    ) -> None:
        super().__init__(root)
        remedy = f"give the folder that holds {SPLIT_FILE} and {FRAMES}"
        find_root(self.root, "FlintstonesSV", [SPLIT_FILE, OLDER_SPLIT_FILE], remedy)
        if num_targets < 1:
            raise ValueError(f"num_targets={num_targets}: a story has one target or more")
        if windows not in WINDOWS:
            raise ValueError(f"windows={windows}: give one of {', '.join(WINDOWS)}")
        self.num_targets, self.is_inside = num_targets, windows == "inside"
        self._files: list[Path] = []
        self._clips = self._read_splits()
        self._captions = self._read_captions()
        self._labels = self._read_labels()
        followings = _followings(sorted({clip for clips in self._clips.values() for clip in clips}), num_targets)
        self._check_cache(followings)
        self._official: set[str] = set()  # splits
        records = {split: self._stories(split, followings, legacy_cut) for split in self._clips}
        self._records = {split: stories for split, stories in records.items() if stories}
        self._name_story_starts(followings)

    def pictures(self, clip: str) -> list[Image.Image]:
        return [Image.fromarray(np.ascontiguousarray(frame)) for frame in _read_frames(self.clip_file(clip))]

    def clip_file(self, clip: str) -> Path:
        return self.root / FRAMES / f"{clip}.npy"

    def official_count(self, split: str) -> int | None:
        return super().official_count(split) if split in self._official else None

    def annotation_files(self) -> list[Path]:
        return list(self._files)

    def _stories(self, split: str, followings: Mapping[str, tuple[str, ...]], legacy_cut: bool) -> list[StoryRecord]:
        sources = []
        for clip in self._clips[split]:
            num_followings = len(followings.get(clip, ()))
            if num_followings == self.num_targets:
                sources.append(clip)
            elif clip in followings:
                what = f"short window: {num_followings} of {self.num_targets} followings before the last clip of all"
                self._problem(clip, what)
        if legacy_cut and split == "test" and len(sources) > LEGACY_TEST_STORIES:
            num_cut = len(sources) - LEGACY_TEST_STORIES
            self._problem(split, f"legacy cut: {num_cut} stories behind the first {LEGACY_TEST_STORIES} are left out")
            sources = sources[:LEGACY_TEST_STORIES]
        if (
            len(sources) == self.official_counts[split] and not self.is_inside
        ):  # else it is another split, and nothing compares
            self._official.add(split)
        records = [
            self._record((clip, *followings[clip])) for clip in sources if self._is_story(split, clip, followings)
        ]
        if not records and split == TRAIN:
            self._problem(split, f"no story: {NO_TRAIN}")
        elif not records:
            why = next((f"; the last problem is {where}: {what}" for where, what in reversed(self.problems)), "")
            raise ValueError(f"{self.root} has no story of {self.num_targets} targets in the split {split}{why}")
        return records

    def _is_story(self, split: str, source: str, followings: Mapping[str, tuple[str, ...]]) -> bool:
        """True if the window is a story; adds problems for missing captions and for targets in other splits."""
        targets, inside = followings[source], self._clips[split]
        silent = [clip for clip in targets if not self._captions.get(clip)]
        foreign = [clip for clip in targets if clip not in inside]
        if silent:
            self._problem(source, f"no caption: of {', '.join(silent)}")
            return False
        if foreign:
            done = "left out" if self.is_inside else "kept"
            self._problem(source, f"window crosses splits: {', '.join(foreign)} not of {split}; {done}")
        return not (foreign and self.is_inside)

    def _name_story_starts(self, followings: Mapping[str, tuple[str, ...]]) -> None:
        """Add a problem if captions exist only for story starts, so that the last stories of each episode have none."""
        for split, clips in self._clips.items():
            silent = {clip for clip in clips if not self._captions.get(clip)}
            ends = {clip for clip in silent if clip not in followings}  # that so few clips follow starts no story
            told = {clip for clip in followings if clip in clips and not set(followings[clip]) & silent}
            lost = [clip for clip in clips if set(followings.get(clip, ())) & silent]
            if not silent or silent != ends or not told or len(lost) < self.num_targets:
                continue
            what = (
                f"{len(lost)} stories of {split} are absent: captions are those of story starts, and the last "
                f"{self.num_targets} clips of an episode start none, so the stories that end in them are not told (of "
                "the whole set 64 of val and 68 of test)"
            )
            self._problem(split, f"story starts: {what}")
            self.notes.append(what)

    def _record(self, clips: tuple[str, ...]) -> StoryRecord:
        story = clips[0]
        if not self._captions.get(story):
            self._problem(story, "no source caption: the story is kept, its targets have theirs")
        captions = tuple(self._captions.get(clip, "") for clip in clips)
        characters: tuple[tuple[int, ...], ...] | None = None
        if self._labels is None:
            characters = tuple(self.characters_said(caption) for caption in captions)
        elif unlabelled := [clip for clip in clips if clip not in self._labels]:
            self._problem(story, f"no label: of {', '.join(unlabelled)}; the story is kept without characters")
        else:
            characters = tuple(self._labels[clip] for clip in clips)
        season, episode = _episode(story)
        return StoryRecord(story, clips, captions, f"s_{season:02}_e_{episode:02}", characters)

    @classmethod
    def characters_said(cls, caption: str) -> tuple[int, ...]:
        """Characters whose name (its last word) is a whole word of a caption, in any case.

        "slate", "Mr. Slate" and "Mr Slate's" are Mr Slate; "dinosaur" is not Dino, "Alfred" is not Fred.
        """
        words = set(re.findall(r"[^\W_]+", caption.lower()))
        return tuple(int(name.lower().split()[-1] in words) for name in cls.characters)

    def _read_splits(self) -> dict[str, dict[str, None]]:
        """Clips of each split in the file's order, once each (in a dictionary, for order and fast look-up)."""
        path = self.root / SPLIT_FILE
        if not path.exists():
            path = self.root / OLDER_SPLIT_FILE
            self._problem(OLDER_SPLIT_FILE, f"older file name: read in the place of {SPLIT_FILE}")
        self._files.append(path)
        lists = read_json(path)
        if isinstance(lists, dict) and not lists.get(TRAIN, []):
            self._problem(path.name, f"no train: {NO_TRAIN}; windows are those of the clips that there are")
            lists = {split: listed for split, listed in lists.items() if split != TRAIN}
        splits = [split for split in SPLITS if not isinstance(lists, dict) or split != TRAIN or split in lists]
        if not isinstance(lists, dict) or not all(isinstance(lists.get(split), list) for split in splits):
            raise ValueError(f"{path} has no lists {', '.join(SPLITS)}: windows need the clips of all three")
        clips: dict[str, dict[str, None]] = {}
        for split in splits:
            if not lists[split]:
                raise ValueError(f"{path} has no clip in the split {split}: copy it again")
            for clip, times in Counter(map(str, as_list(lists[split]))).items():
                if not CLIP.fullmatch(clip):
                    self._problem(clip, f"bad id: {split} has it, and it has no s_<season>_e_<episode>_")
                elif times > 1:
                    self._problem(clip, f"clip twice: {times} times in {split}; one is kept")
            clips[split] = {clip: None for clip in map(str, as_list(lists[split])) if CLIP.fullmatch(clip)}
        for i, split in enumerate(splits):
            for other in splits[i + 1 :]:
                for clip in clips[split].keys() & clips[other].keys():
                    self._problem(clip, f"clip in two splits: {split} and {other}; kept in both")
        return clips

    def _read_captions(self) -> dict[str, str]:
        path = self.root / ANNOTATIONS
        self._files.append(path)
        rows = read_json(path)
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"{path} is no list of annotations: copy it again")
        captions: dict[str, str] = {}
        for i, row in enumerate(rows):
            row = _named_as_annotations(row)
            if not isinstance(row, dict) or not isinstance(row.get("globalID"), str) or "description" not in row:
                raise ValueError(f"{path} has no globalID and description in its entry {i}: copy it again")
            clip, text = str(row["globalID"]), row["description"]
            if not isinstance(text, str | None):
                raise ValueError(f"{path} has {text!r:.80} for the description of {clip}: copy it again")
            caption = clean(text or "")
            if captions.get(clip, caption) != caption:
                self._problem(clip, "two captions: the last one is used")
            captions[clip] = caption
        return captions

    def _read_labels(self) -> dict[str, tuple[int, ...]] | None:
        path = self.root / LABELS
        if not path.exists():
            self._problem(LABELS, "missing: characters are those that the captions name")
            return None
        self._files.append(path)
        labels = {}
        for key, value in read_dict(path).items():
            try:
                labels[key] = multi_hot(value, len(self.characters))
            except ValueError as error:
                self._problem(f"{LABELS} ({key})", f"bad label: {error}")
        return labels

    def _check_cache(self, followings: Mapping[str, tuple[str, ...]]) -> None:
        """Add problems for windows in the data set's own cache that differ from the rule; the rule's are used."""
        path = self.root / FOLLOWINGS
        if self.num_targets != CACHED_TARGETS or not path.exists():
            return
        try:
            cached = {clip: _clips_of(window) for clip, window in read_dict(path).items()}
        except (ValueError, TypeError) as error:
            self._problem(FOLLOWINGS, f"unreadable: {error}; windows are built without it")
            return
        for clip in sorted(cached.keys() | followings.keys()):
            ours, theirs = (", ".join(table.get(clip, ())) or "none" for table in (followings, cached))
            if ours != theirs:
                self._problem(clip, f"other window: {FOLLOWINGS} has {theirs}, the rule gives {ours}, which is used")

    def _problem(self, where: str, what: str) -> None:
        self.problems.append(Problem(where, what))


def _clips_of(window: object) -> tuple[str, ...]:
    if not isinstance(window, Iterable):
        raise TypeError(f"{window!r:.80} is no list of clips")
    return tuple(map(text_of, window))


def _named_as_annotations(row: Json) -> Json:
    """Convert a row of other tables of the set, ``image`` (<globalID>.png) and ``text``, to the form of annotations."""
    if isinstance(row, dict) and isinstance(image := row.get("image"), str) and "text" in row and "globalID" not in row:
        return {"globalID": PurePosixPath(image).stem, "description": row["text"]}
    return row


def _followings(clips: Sequence[str], number: int) -> dict[str, tuple[str, ...]]:
    """The next clips of every clip, without those of other episodes; fewer than ``number`` at the very end."""
    episodes = [_episode(clip) for clip in clips]
    return {
        clip: tuple(clips[i + 1 : i + 1 + number])
        for i, clip in enumerate(clips)
        if all(episode == episodes[i] for episode in episodes[i + 1 : i + 1 + number])
    }


def _episode(clip: str) -> tuple[int, int]:
    found = CLIP.fullmatch(clip)
    assert found, clip
    return int(found[1]), int(found[2])


def _read_frames(path: Path) -> np.ndarray:
    """uint8 (n, h, w, 3); never unpickled, and only read if the header says that it has this form."""
    try:
        with path.open("rb") as stream:
            shape, dtype = read_header(stream)
            if dtype != np.uint8 or len(shape) != 4 or shape[0] < 1 or min(shape[1:3]) < MIN_SIDE or shape[3] != 3:
                raise ClipError(f"wrong shape: {dtype} {list(shape)} is no uint8 [n, H, W, 3]")
            if (size := path.stat().st_size - stream.tell()) < math.prod(shape):
                raise ClipError(f"truncated: {size} bytes of {math.prod(shape)}")
            stream.seek(0)
            frames: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
            return frames
    except FileNotFoundError as error:
        raise ClipError("missing") from error
    except ClipError:
        raise
    except (OSError, ValueError, EOFError) as error:
        damage = "truncated" if str(error).startswith("EOF") else "corrupt"
        raise ClipError(f"{damage}: {' '.join(str(error).split())}") from error
