"""DiDeMoSV: moments of home videos, a source and two targets a story (data/didemo/README.md)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

from PIL import Image

from storydalle.files.reading import files_of, read_json
from storydalle.files.text import clean
from storydalle.stories.pictures import open_photo
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root

SPLITS = ("train", "val", "test")
# The name of a video of DiDeMo: Flickr's owner, photo and secret.
VIDEO_NAME = re.compile(r"\d+@N\d+_\d+_[0-9a-f]+")


OFFICIAL_TARGETS = 2


class Pair(NamedTuple):
    caption: str
    frame: str  # path as the annotations have it: relative to the parent of the image folder


class DiDeMoSV(StorySet):
    """Stories of the first ``num_targets + 1`` pairs of caption and frame of an entry, each with its own caption.

    ``root`` is the image folder, which holds ``train.json``, ``val.json`` and ``test.json``, or its parent. Clips are
    frame paths as the annotations write them.
    """

    name = "didemo"
    whole = "videos"
    official_counts: ClassVar[Mapping[str, int]] = {"train": 11550, "val": 2707, "test": 3378}  # of 1 + 2 frames

    def __init__(self, root: str | Path | None, num_targets: int = OFFICIAL_TARGETS) -> None:
        super().__init__(root)
        if num_targets < 1:
            raise ValueError(f"num_targets={num_targets}: a story of DiDeMoSV needs 1 or more")
        self.num_targets = num_targets
        self.folder = _annotation_folder(self.root)
        entries = {split: _read_entries(self.folder / f"{split}.json") for split in SPLITS}
        frames = [pair.frame for split in SPLITS for pairs in entries[split] for pair in pairs]
        self.base, found = _frame_folder(self.folder, frames)
        self._records = {split: self._stories(split, entries[split], found) for split in SPLITS}

    def pictures(self, clip: str) -> list[Image.Image]:
        return [open_photo(self.clip_file(clip))]

    def clip_file(self, clip: str) -> Path:
        return self.base / clip

    def official_count(self, split: str) -> int | None:
        return super().official_count(split) if self.num_targets == OFFICIAL_TARGETS else None

    def annotation_files(self) -> list[Path]:
        return [self.folder / f"{split}.json" for split in SPLITS]

    def _stories(self, split: str, entries: list[list[Pair]], found: set[str]) -> list[StoryRecord]:
        self.problems += _collisions(split, entries)
        videos = _videos(entries)
        records = []
        for index, pairs in enumerate(entries):
            story, used = f"{split}/{index}", pairs[: self.num_targets + 1]
            missing = list(dict.fromkeys(pair.frame for pair in pairs if pair.frame not in found))
            if missing:
                self.problems.append(Problem(story, f"missing frame: {', '.join(missing)}"))
            elif len(pairs) <= self.num_targets:
                needed = self.num_targets + 1
                self.problems.append(
                    Problem(story, f"short story: {len(pairs)} pairs of caption and frame of {needed}")
                )
            elif not all(pair.caption for pair in used[1:]):
                self.problems.append(Problem(story, "no caption: that of a target is empty"))
            else:
                clips, captions = tuple(pair.frame for pair in used), tuple(pair.caption for pair in used)
                records.append(StoryRecord(story, clips, captions, videos.get(clips[0], story)))
        if not records:
            first = next((problem for problem in self.problems if problem.where.startswith(f"{split}/")), None)
            why = f"; the first: {first.what}" if first else ""
            raise ValueError(f"{self.folder / split}.json gives no story of {len(entries)} entries{why}")
        return records


def _annotation_folder(root: Path) -> Path:
    remedy = "give the folder that holds train.json, val.json, test.json and the frames"
    find_root(root, "DiDeMoSV", ("train.json", "*/train.json"), remedy)
    folders = [root] if (root / "train.json").is_file() else [path.parent for path in sorted(root.glob("*/train.json"))]
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise ValueError(f"data.root={root} holds several folders with a train.json ({names}): give one of them")
    return folders[0]


def _read_entries(path: Path) -> list[list[Pair]]:
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} is no list of stories, or an empty one: take the file of the DiDeMoSV release")
    return [_pairs_of(entry, f"entry {index} of {path}") for index, entry in enumerate(entries)]


def _pairs_of(entry: object, where: str) -> list[Pair]:
    rows = entry.get("desc_to_frame") if isinstance(entry, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"{where} has no list desc_to_frame: take the file of DiDeMoSV, not that of raw DiDeMo")
    pairs = []
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(part, str) for part in row)):
            raise ValueError(f"{where}: {row!r} is no pair of caption and frame path")
        caption, frame = row
        path = PurePosixPath(frame)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError(f"{where}: {frame!r} is no frame path below the parent of the image folder")
        pairs.append(Pair(clean(caption), frame))
    return pairs


def _frame_folder(folder: Path, frames: Sequence[str]) -> tuple[Path, set[str]]:
    """The folder that frame paths start from, and the frames that exist there.

    It is the parent of the image folder. The annotations may be in that parent, or be reached by a link.
    """
    bases = dict.fromkeys((folder.absolute().parent, folder.resolve().parent, folder))
    found = {base: _existing(base, frames) for base in bases}
    best = max(bases, key=lambda base: len(found[base]))
    if not found[best]:
        start = PurePosixPath(frames[0]).parts[0] if frames else ""
        raise ValueError(
            f"no frame of {folder / 'train.json'} exists: frame paths start with {start!r}, the image folder's name, "
            f"to be found in {folder.absolute().parent}; rename or move it"
        )
    return best, found[best]


def _existing(base: Path, frames: Iterable[str]) -> set[str]:
    """The frames that are files; every folder is listed once."""
    names: dict[Path, set[str]] = {}
    existing = set()
    for frame in frames:
        path = base / frame
        if path.parent not in names:
            names[path.parent] = files_of(path.parent)
        if path.name in names[path.parent]:
            existing.add(frame)
    return existing


def _collisions(split: str, entries: Iterable[Sequence[Pair]]) -> list[Problem]:
    """Frames with several captions, of which a table by frame path would keep only one."""
    captions: dict[str, set[str]] = defaultdict(set)
    for pairs in entries:
        for caption, frame in pairs:
            captions[frame].add(caption)
    return [
        Problem(frame, f"captions collide: {len(texts)} in {split}.json; every story keeps its own")
        for frame, texts in captions.items()
        if len(texts) > 1
    ]


def _videos(entries: Iterable[Sequence[Pair]]) -> dict[str, str]:
    """Frame -> its video, by its path: a name of DiDeMo's form, else its folder.

    A folder that all frames of the split share does not stand for a video, nor does the image folder.
    """
    paths = {pair.frame: PurePosixPath(pair.frame) for pairs in entries for pair in pairs}
    shared = len({path.parent for path in paths.values()}) == 1
    videos = {}
    for frame, path in paths.items():
        if named := VIDEO_NAME.search(frame):
            videos[frame] = named.group()
        elif len(path.parts) > 2 and not shared:
            videos[frame] = path.parent.name
    return videos
