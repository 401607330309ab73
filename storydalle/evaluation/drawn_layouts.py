"""Layouts of folders with drawn frames: a layout tells story and frame of each picture.

Nothing is decoded here. A story's frames are its targets, counted from 1; a source among them is ignored.
"""

import csv
import io
import os
import re
import zipfile
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor

from storydalle.files.paths import folder_of
from storydalle.files.reading import read_text
from storydalle.files.text import clean
from storydalle.stories.own_story import PICTURES
from storydalle.stories.story_set import Problem

COLUMNS = ("story", "frame", "file")
SHEET = re.compile(r".*_gen_samples_.*_batch_[0-9]+")
SAMPLE = re.compile(r"gen_sample_([0-9]+)_([0-9]+)")
TENSORS = re.compile(r"sdalle_story_(.+?)(?:_batch_([0-9]+))?")
OWN_FRAME = re.compile(r"([0-9]+)(-[0-9]+|-source)?")
NUMBERED = "stories are told apart by their number, taken for their position in the split's order"


class Place(NamedTuple):
    """The place of a picture: a file below the root, or a frame of a story in a tensor file."""

    file: str
    row: tuple[int, int] | None = None

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.file}[{self.row[0]}, {self.row[1]}]"


class Found(NamedTuple):
    """A picture with its story, which may be unknown, and its frame, from 1."""

    story: str
    frame: int
    place: Place


class Listing(NamedTuple):
    """The frames of a folder in a layout; problems are files that cannot be a frame of any story."""

    frames: list[Found]
    problems: list[Problem]
    notes: list[str]


Lengths = Mapping[str, int]  # number of target frames by story, in the split's order
Clips = Mapping[str, Sequence[str]]  # those of a story, the source's first, where each frame is a clip of its own


def files_below(root: Path) -> list[str]:
    """Paths of all files below a folder, without hidden ones, in an order that does not depend on the file system."""
    found: list[str] = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not _leads_back(Path(folder), name)]
        above = Path(folder).relative_to(root).as_posix()
        prefix = "" if above == "." else f"{above}/"
        found += [prefix + name for name in names if not name.startswith(".")]
    return sorted(found)


def is_picture(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in PICTURES


def list_own(root: Path, files: Sequence[str], lengths: Lengths) -> Listing:
    """``<story id>/<number>.png`` from 01, also in a folder ``frames`` of the story, as ``generate`` writes it.

    Other files of ``generate`` are ignored: the source, the strip, and further candidates of a frame.
    """
    listing, num_candidates = Listing([], [], []), 0
    ids = {folder_of(id): id for id in lengths}
    for path in map(PurePosixPath, filter(is_picture, files)):
        folder = path.parent.as_posix()
        folder = folder if folder in ids or folder in lengths else folder.removesuffix("/frames")
        story = ids.get(folder, folder)
        match = OWN_FRAME.fullmatch(path.stem)
        if match and match[2] is None:
            listing.frames.append(Found(story, int(match[1]), Place(path.as_posix())))
        elif match:
            num_candidates += match[2] != "-source"
        elif path.stem != "strip":
            listing.problems.append(Problem(path.as_posix(), "no frame: its name is no number"))
    if num_candidates:
        listing.notes.append(f"{num_candidates} further candidates of frames were ignored")
    _check_root(root, listing, lengths)
    return listing


def list_storydalle(root: Path, files: Sequence[str], lengths: Lengths) -> Listing:
    """``gen_sample_<story>_<frame>.png`` of the released StoryDALL-E, or its tensors; both count from 0."""
    stories = list(lengths)
    tensors = [file for file in files if file.endswith(".pt")]
    samples = {file: SAMPLE.fullmatch(PurePosixPath(file).stem) for file in files if is_picture(file)}
    if tensors and any(samples.values()):
        both = f"{tensors[0]} and {next(file for file, match in samples.items() if match)}"
        raise ValueError(f"{root} holds {both}: keep the tensors or the pictures, not both")
    listing = list_tensors(root, tensors, lengths) if tensors else Listing([], [], [NUMBERED])
    for file, match in samples.items():
        if match:
            _add(listing, stories, int(match[1]), int(match[2]) + 1, Place(file))
        elif not SHEET.fullmatch(PurePosixPath(file).stem):
            listing.problems.append(Problem(file, "no frame: it is not called gen_sample_<story>_<frame>.png"))
    return listing


def list_tensors(root: Path, files: Sequence[str], lengths: Lengths) -> Listing:
    """``sdalle_story_<mode>_batch_<n>.pt``, or all of a mode in ``sdalle_story_<mode>.pt``: (b, f, 3, h, w) in [0, 1].

    Stories are numbered through the batches, all of which but the last have the size of batch 0. Raises ValueError
    for a file that is no such tensor, since then no later story has a number.
    """
    batches = _batches_of(root, files)
    listing, stories = Listing([], [], [NUMBERED]), list(lengths)
    if None in batches:
        listing.notes.append("the released code joins its batches in the order of a directory: stories may be shuffled")
    shapes = {number or 0: open_tensor(root / file).shape for number, file in batches.items()}
    size = _batch_size(root, {number: shape[0] for number, shape in shapes.items()})
    for number, file in batches.items():
        num_rows, num_frames, *_ = shapes[number or 0]
        for row, frame in product(range(num_rows), range(num_frames)):
            _add(listing, stories, (number or 0) * size + row, frame + 1, Place(file, (row, frame)))
    return listing


def list_arldm(root: Path, files: Sequence[str], lengths: Lengths, stories_per_batch: int = 1) -> Listing:
    """``0000.png``, ``0001.png``, ... of AR-LDM (main.py, ``sample``): target frames only, story after story.

    It writes the first frames of a batch, then the second ones, and so on: with a ``batch_size`` above 1 in its
    config, ``stories_per_batch`` is that number. Raises ValueError for as many pictures as its task
    ``visualization`` gives, which draws the source too and shifts every number.
    """
    order = list(_arldm_order(lengths, stories_per_batch))
    listing, num_beyond = Listing([], [], [f"{NUMBERED}; batches of {stories_per_batch}"]), 0
    for file in filter(is_picture, files):
        stem = PurePosixPath(file).stem
        if not re.fullmatch(r"[0-9]{4,}", stem) or "/" in file:
            listing.problems.append(Problem(file, "no frame: it is not called 0000.png, 0001.png, ..."))
        elif int(stem) < len(order):
            listing.frames.append(Found(*order[int(stem)], Place(file)))
        else:
            num_beyond += 1
            listing.problems.append(Problem(file, f"no story: the split's {len(lengths)} have {len(order)} frames"))
    if num_beyond == len(lengths) and len(listing.frames) == len(order):
        raise ValueError(
            f"{root} holds {len(order) + num_beyond} pictures, one a story more than there are targets: it seems to be "
            "drawn with task=visualization, first frames too; draw with task=continuation, or map the files by a CSV"
        )
    return listing


def list_clip_id(root: Path, files: Sequence[str], lengths: Lengths, clips: Clips) -> Listing:
    """``<clip id>.png`` in one folder (ContextualStory's gen_img), or below one named by a story's source (StoryGPT-V).

    A picture below a story's source is that story's. Elsewhere it stands for its clip in every story that has it as a
    target: windows that overlap have overwritten each other, and which of them drew it is not known. Raises ValueError
    for stories whose frames are no clips of their own.
    """
    if not clips:
        raise ValueError(
            f"layout=clip_id: the frames of these stories have no ids of clips; {root} is of another layout"
        )
    places: dict[str, list[tuple[str, int]]] = {}
    for story, own in clips.items():
        for frame, clip in enumerate(own):
            places.setdefault(clip, []).append((story, frame))
    listing, num_shared = Listing([], [], []), 0
    for file in filter(is_picture, files):
        path = PurePosixPath(file).with_suffix("")
        shot = clip_of(path, places)
        if shot is None:
            listing.problems.append(Problem(file, f"no frame: {path.name!r} is no clip of this split's stories"))
            continue
        folder = "/".join(path.parts[: -len(PurePosixPath(shot).parts)])
        told = [(story, frame) for story, frame in places[shot] if f"/{folder}".endswith(f"/{clips[story][0]}")]
        shown = [(story, frame) for story, frame in told or places[shot] if frame > 0]
        num_shared += not told and len(shown) > 1
        listing.frames.extend(Found(story, frame, Place(file)) for story, frame in shown)
    if num_shared:
        listing.notes.append(
            f"{num_shared} pictures stand for their clip in each of the several stories that show it: which of them it "
            "was drawn for is not known"
        )
    return listing


def clip_of(path: PurePosixPath, known: Container[str]) -> str | None:
    """The clip whose id is the end of a picture's path without suffix; the longest id if several fit."""
    ends = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
    return next((end for end in ends if end in known), None)


def list_csv(root: Path, files: Sequence[str], lengths: Lengths) -> Listing:
    """The rows of a CSV with the columns story, frame (from 1) and file, a path below the CSV's folder."""
    names = [file for file in files if file.endswith(".csv") and "/" not in file]
    if len(names) != 1:
        raise ValueError(f"{root} holds {' and '.join(names) or 'no CSV'}: give the file that maps pictures itself")
    name = names[0]
    rows = csv.DictReader(io.StringIO(read_text(root / name)), skipinitialspace=True)
    absent = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
    if absent:
        raise ValueError(
            f"{root / name} has no column {', '.join(absent)} but {', '.join(rows.fieldnames or ()) or 'none'}: "
            f"its first line is {','.join(COLUMNS)}"
        )
    listing = Listing([], [], [])
    for row in rows:
        story, frame, file = (row[column] or "" for column in COLUMNS)
        story, frame, file = clean(story), clean(frame), file.strip()
        shortest = os.path.normpath(file)
        where = f"{name}:{rows.line_num}"
        if not re.fullmatch(r"[0-9]+", frame):
            listing.problems.append(Problem(where, f"no frame: {frame!r} is no number"))
        elif not file or PurePosixPath(shortest).is_absolute() or shortest.startswith(".."):
            listing.problems.append(Problem(where, f"no file: {file!r} is no path below the folder of {name}"))
        else:
            listing.frames.append(Found(story, int(frame), Place(Path(shortest).as_posix())))
    return listing


def maps_files(root: Path, file: str) -> bool:
    """True for a CSV that maps files to frames, by its first line."""
    if not file.endswith(".csv") or "/" in file:
        return False
    with (root / file).open(encoding="utf-8-sig", errors="replace") as lines:
        return set(COLUMNS) <= {name.strip() for name in lines.readline().split(",")}


def open_tensor(path: Path) -> Tensor:
    """Frames of the released StoryDALL-E, (b, f, 3, h, w); no code is run, and nothing is read before it is used.

    Raises ValueError, naming the file, for one that asks for code, is truncated or holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise ValueError(f"{path} is refused: it asks for {asked[1]}; a tensor of frames needs no code") from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no tensor that can be read, or truncated: {reason}") from error
    if not isinstance(content, Tensor):
        raise ValueError(f"{path} holds {type(content).__name__}, no tensor of frames (stories, frames, 3, h, w)")
    is_plain = content.layout == torch.strided and content.is_floating_point() and content.ndim == 5
    if not is_plain or content.shape[2] != 3 or 0 in content.shape or not _is_filled(content):
        raise ValueError(
            f"{path} holds a {content.dtype} tensor of shape {tuple(content.shape)}: frames are floats in [0, 1], "
            "(stories, frames, 3, h, w)"
        )
    return content.detach()


def _is_filled(content: Tensor) -> bool:
    """True if a tensor has bytes for each of its values: a small file could claim millions of stories."""
    return content.untyped_storage().nbytes() >= content.numel() * content.element_size()


def _add(listing: Listing, stories: Sequence[str], number: int, frame: int, place: Place) -> None:
    """A picture of the story with a number, which may be beyond the split's last."""
    if number < len(stories):
        listing.frames.append(Found(stories[number], frame, place))
    else:
        listing.problems.append(Problem(str(place), f"no story: number {number} of {len(stories)}, counted from 0"))


def _batches_of(root: Path, files: Sequence[str]) -> dict[int | None, str]:
    """Tensors of one mode by the numbers of their batches, None for the one of all batches."""
    matches = {file: TENSORS.fullmatch(PurePosixPath(file).stem) for file in files}
    strange = [file for file, match in matches.items() if match is None]
    modes = sorted({match[1] for match in matches.values() if match})
    if strange or len(modes) != 1:
        found = strange[0] if strange else f"tensors of {' and '.join(modes)}"
        raise ValueError(f"{root} holds {found}: give a folder with the sdalle_story_<mode>*.pt of one split alone")
    batches = {int(match[2]) if match[2] else None: file for file, match in matches.items() if match}
    if len(batches) < len(files) or (None in batches and len(files) > 1):
        raise ValueError(
            f"{root} holds stories twice, in {', '.join(files[:3])}: keep each batch once, or the one of all"
        )
    return batches


def _batch_size(root: Path, sizes: Mapping[int, int]) -> int:
    """Stories of a batch; raises ValueError where the batches do not say how many came before one."""
    if 0 not in sizes:
        raise ValueError(f"{root} has no batch 0: it says how many stories a batch has, so later ones have no number")
    last = max(sizes)
    odd = next((number for number in sizes if sizes[number] != sizes[0] and number != last), None)
    odd = last if odd is None and sizes[last] > sizes[0] else odd
    if odd is not None:
        found = f"{sizes[odd]} stories in batch {odd} and {sizes[0]} in batch 0"
        raise ValueError(f"{root} holds {found}: give the batches of one run, which differ in the last alone")
    return sizes[0]


def _arldm_order(lengths: Lengths, stories_per_batch: int) -> Iterator[tuple[str, int]]:
    """Story and frame of each picture, in the order in which AR-LDM numbers them."""
    if stories_per_batch < 1:
        raise ValueError(f"stories_per_batch={stories_per_batch}: it is AR-LDM's batch_size, 1 or more")
    if stories_per_batch > 1 and len(set(lengths.values())) > 1:
        raise ValueError(f"stories_per_batch={stories_per_batch}: AR-LDM's batches hold stories of one length")
    for start in range(0, len(lengths), stories_per_batch):
        batch = list(lengths)[start : start + stories_per_batch]
        for frame in range(1, lengths[batch[0]] + 1):
            yield from ((story, frame) for story in batch)


def _check_root(root: Path, listing: Listing, lengths: Lengths) -> None:
    """Raise ValueError if the stories of the split are in a folder one or two levels below or above ``root``."""
    stories = {found.story for found in listing.frames}
    if any(story in lengths for story in stories):
        return
    full = root.resolve()
    for depth in (1, 2):
        for parts in (PurePosixPath(story).parts for story in stories):
            above = "/".join((*full.parts[-depth:], *parts))
            if above in lengths or "/".join(parts[depth:]) in lengths:
                near = full.parents[depth - 1] if above in lengths else root.joinpath(*parts[:depth])
                raise ValueError(f"{root} holds no story of this split, but {near} does: give that")


def _leads_back(folder: Path, name: str) -> bool:
    """True if a link below a folder leads to the folder itself or one above it."""
    return (folder / name).is_symlink() and folder.resolve().is_relative_to((folder / name).resolve())
