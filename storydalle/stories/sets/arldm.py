"""The HDF5 files that AR-LDM's scripts make of PororoSV, FlintstonesSV and VIST (data/arldm/README.md)."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any  # h5py has no types

import numpy as np
from PIL import Image

from storydalle.files.text import clean
from storydalle.stories.pictures import ClipError, open_photo
from storydalle.stories.sets.heaps import check_heaps
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root

SPLITS = ("train", "val", "test")
NUM_FRAMES = 5
SUFFIXES = (".h5", ".hdf5")
TEXTS = ("text", "sis", "dii")
DAMAGED = (OSError, RuntimeError, KeyError)  # what HDF5 says of a file whose parts do not fit


class ARLDM(StorySet):
    """Stories of one HDF5 file: ``root`` is the file, or a folder that holds one. Clips are ``<split>/<row>/image<k>``.

    ``text`` is the data set of the captions: ``text`` in files of PororoSV and FlintstonesSV, ``sis`` or ``dii`` in
    those of VIST. With ``strips`` a picture holds a clip's frames one below the other, which are cut into squares;
    without, it is one photo. ``swap_red_blue`` corrects a mistake of AR-LDM's scripts, which give RGB pictures to a
    library that expects BGR: in the files red and blue are exchanged.

    The file is opened for each read and closed again, so that a set can be pickled and read in any process.
    """

    name = "arldm"

    def __init__(
        self,
        root: str | Path | None,
        num_targets: int = NUM_FRAMES - 1,
        text: str = "text",
        strips: bool = True,
        swap_red_blue: bool = True,
    ) -> None:
        super().__init__(root)
        if not 1 <= num_targets < NUM_FRAMES:
            raise ValueError(f"num_targets={num_targets}: a story has a source and 1 to {NUM_FRAMES - 1} targets")
        if text not in TEXTS:
            raise ValueError(f"text={text} is no text of AR-LDM's files: give one of {', '.join(TEXTS)}")
        if strips and text != "text":
            raise ValueError(f"strips=true with text={text}: files of VIST hold photos; set data.strips=false")
        self.num_targets, self.text, self.strips, self.swap_red_blue = num_targets, text, strips, swap_red_blue
        self.file = _find_file(self.root)
        with _opened(self.file) as content:
            self._records = {split: self._stories(split, self._captions(content, split)) for split in SPLITS}

    def pictures(self, clip: str) -> list[Image.Image]:
        picture = open_photo(io.BytesIO(self._picture_file(clip)))
        if self.swap_red_blue:
            red, green, blue = picture.split()
            picture = Image.merge("RGB", (blue, green, red))
        return _squares(picture) if self.strips else [picture]

    def clip_file(self, clip: str) -> Path:
        return self.file

    def annotation_files(self) -> list[Path]:
        return [self.file]

    def _picture_file(self, clip: str) -> bytes:
        split, row, name = clip.split("/")
        with _opened(self.file) as content:
            try:
                pictures = content[split][name]
                check_heaps(self.file, pictures, range(int(row), int(row) + 1))
                data = pictures[int(row)].tobytes()
            except DAMAGED as error:
                raise ClipError(f"corrupt: {' '.join(str(error).split())}") from error
        if not data:
            raise ClipError("missing: the file has no bytes for it")
        return data

    def _captions(self, content: Any, split: str) -> list[str]:
        """The joined captions of each row; raises ValueError where the file is not laid out as AR-LDM's are."""
        h5py = _h5py()
        group = content.get(split)
        if not isinstance(group, h5py.Group):
            raise ValueError(f"{self.file} has no group {split}: make it with AR-LDM's script, of all three splits")
        if self.text not in group:
            others = [name for name in TEXTS if name in group]
            remedy = f"set data.text={' or '.join(others)}" if others else "make it with AR-LDM's script"
            raise ValueError(f"{self.file} has no {split}/{self.text}: {remedy}")
        texts = group[self.text]
        if not isinstance(texts, h5py.Dataset) or len(texts.shape) != 1 or len(texts) > self.file.stat().st_size:
            raise ValueError(f"{self.file} has no row of texts in {split}/{self.text}: make it with AR-LDM's script")
        check_heaps(self.file, texts, range(len(texts)))
        rows = texts[:]
        for frame in range(NUM_FRAMES):
            pictures = group.get(f"image{frame}")
            layout = pictures is not None and (pictures.shape, h5py.check_vlen_dtype(pictures.dtype))
            if layout != ((len(rows),), np.uint8):
                what = f"{split}/image{frame} of {len(rows)} PNG files"
                raise ValueError(f"{self.file} has no {what}: make it again with AR-LDM's script")
        captions = []
        for row, joined in enumerate(rows):
            if not isinstance(joined, bytes):
                raise ValueError(f"{self.file} has no text in {split}/{self.text}: make it again with AR-LDM's script")
            try:
                captions.append(joined.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.file}: row {row} of {split}/{self.text} is not in UTF-8") from error
        return captions

    def _stories(self, split: str, captions: list[str]) -> list[StoryRecord]:
        records: list[StoryRecord] = []
        left_out = []
        for row, joined in enumerate(captions):
            story = f"{split}/{row}"
            parts = [clean(part) for part in joined.split("|")]
            if not any(parts):
                left_out.append(Problem(story, "no caption: its text is empty"))
            elif len(parts) != NUM_FRAMES:
                left_out.append(Problem(story, f"captions do not match the frames: {len(parts)} parts of {NUM_FRAMES}"))
            elif not all(parts[1:]):
                left_out.append(Problem(story, "no caption: that of a target is empty"))
            else:
                clips = tuple(f"{story}/image{frame}" for frame in range(self.num_targets + 1))
                # A file tells nothing of episodes and albums: nothing is known to be shared but bytes.
                records.append(StoryRecord(story, clips, tuple(parts[: self.num_targets + 1]), group=story))
        self.problems += left_out
        if not records:
            why = f"; the first, {left_out[0].where}: {left_out[0].what}" if left_out else ""
            raise ValueError(f"{self.file} gives no story of {len(captions)} in {split}{why}")
        return records


def _find_file(root: Path) -> Path:
    if root.is_file():
        return root
    find_root(root, "AR-LDM HDF5", [f"*{suffix}" for suffix in SUFFIXES], "give the HDF5 file, or its folder")
    files = sorted(path for path in root.iterdir() if path.suffix in SUFFIXES)
    if len(files) > 1:
        raise ValueError(f"data.root={root} holds {', '.join(path.name for path in files)}: give one file")
    return files[0]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError('HDF5 files need the package h5py: pip install "storydalle[data]"') from error
    return h5py


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        content = _h5py().File(path, "r", locking="best-effort")
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file, or a part of one: {' '.join(str(error).split())}") from error
    with content:
        try:
            yield content
        except DAMAGED as error:
            raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def _squares(strip: Image.Image) -> list[Image.Image]:
    """The frames of a vertical strip, from top to bottom; a remainder at its end is ignored."""
    side, height = strip.size
    if height < side:
        raise ClipError(f"wrong shape: {side}x{height} is no vertical strip; set data.strips=false for photos")
    return [strip.crop((0, top, side, top + side)) for top in range(0, height - side + 1, side)]
