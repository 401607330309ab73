"""AR-LDM's HDF5 files, as its three scripts write them, with the faults that such a file can have."""

import io
import multiprocessing
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from storydalle.stories.pictures import ClipError
from storydalle.stories.sets import heaps
from storydalle.stories.sets.arldm import ARLDM
from storydalle.stories.story_set import Problem

h5py = pytest.importorskip("h5py")

CONFIG = Path(__file__).parent.parent / "conf" / "data" / "arldm.yaml"
SIDE = 16
FIVE = "a|b|c|d|e"
PORORO = {
    "train": [
        "Pororo Jumps.|He falls|Loopy  laughs|Crong|The end",
        "Pororo says a|b|c|d|e|f",
        FIVE,
        "",
        "|b|c|d|e",
        "a|b||d|e",
    ],
    "val": [FIVE],
    "test": [FIVE, "a|b|c|d"],
}
LEFT_OUT = [
    Problem("train/1", "captions do not match the frames: 6 parts of 5"),
    Problem("train/3", "no caption: its text is empty"),
    Problem("train/5", "no caption: that of a target is empty"),
    Problem("test/1", "captions do not match the frames: 4 parts of 5"),
]


def strip_of(split: str, row: int, frame: int, num_frames: int = 3) -> np.ndarray:
    """A vertical strip in RGB: red tells the row, green the frame, blue the square and the split."""
    squares = [(10 * row, 10 * frame, 100 * len(split) % 256 + square) for square in range(num_frames)]
    return np.repeat(np.asarray(squares, np.uint8)[:, None, :], SIDE, axis=0) * np.ones((1, SIDE, 1), np.uint8)


def png(rgb: np.ndarray, swapped: bool = True) -> bytes:
    """As OpenCV encodes an array: its first channel is taken for blue."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb[..., ::-1]) if swapped else rgb).save(stream, "PNG")
    return stream.getvalue()


def write_file(path: Path, texts: dict[str, dict[str, list[str]]], picture: Callable[[str, int, int], bytes]) -> Path:
    """``texts``: split -> name of the data set -> joined captions of each row."""
    with h5py.File(path, "w") as content:
        for split, columns in texts.items():
            group = content.create_group(split)
            num_rows = len(next(iter(columns.values())))
            for frame in range(5):
                images = group.create_dataset(f"image{frame}", (num_rows,), dtype=h5py.vlen_dtype(np.dtype("uint8")))
                for row in range(num_rows):
                    images[row] = np.frombuffer(picture(split, row, frame), np.uint8)
            for name, rows in columns.items():
                column = group.create_dataset(name, (num_rows,), dtype=h5py.string_dtype(encoding="utf-8"))
                column[:] = rows
    return path


@pytest.fixture
def pororo(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    texts = {split: {"text": rows} for split, rows in PORORO.items()}
    return write_file(tmp_path / "files" / "pororo.h5", texts, lambda *place: png(strip_of(*place)))


@pytest.fixture
def vist(tmp_path: Path) -> Path:
    """Photos, not strips; two photos of the second story share a description, which the script writes once."""
    texts = {split: {"sis": [FIVE, FIVE], "dii": ["v|w|x|y|z", "v|w|x|y"]} for split in PORORO}
    photo = np.zeros((3 * SIDE, SIDE, 3), np.uint8)
    return write_file(tmp_path / "vist.h5", texts, lambda *place: png(photo))


def test_stories_are_rows_and_captions_the_parts_of_their_text(pororo: Path):
    stories = ARLDM(pororo)
    first, third, fifth = stories.records("train")
    assert first.id == "train/0"
    assert first.clips == tuple(f"train/0/image{frame}" for frame in range(5))
    assert first.captions == ("Pororo Jumps.", "He falls", "Loopy laughs", "Crong", "The end")
    assert (third.id, third.captions) == ("train/2", ("a", "b", "c", "d", "e"))
    assert (fifth.id, fifth.captions) == ("train/4", ("", "b", "c", "d", "e"))
    assert [r.id for split in ("val", "test") for r in stories.records(split)] == ["val/0", "test/0"]
    assert {r.group for r in (first, third, fifth)} == {"train/0", "train/2", "train/4"}


def test_a_caption_with_a_bar_leaves_its_story_out_by_name(pororo: Path):
    stories = ARLDM(pororo)
    assert stories.problems == LEFT_OUT
    assert sum(len(stories.records(split)) for split in PORORO) + len(LEFT_OUT) == sum(map(len, PORORO.values()))


def test_a_strip_is_cut_in_squares_from_above_in_its_true_colours(pororo: Path):
    stories = ARLDM(pororo)
    for clip, place in {"train/2/image3": ("train", 2, 3), "test/0/image0": ("test", 0, 0)}.items():
        frames = np.stack([np.asarray(frame) for frame in stories.pictures(clip)])
        assert (frames == strip_of(*place).reshape(3, SIDE, SIDE, 3)).all()
    as_stored = np.asarray(ARLDM(pororo, swap_red_blue=False).pictures("train/2/image3")[0])
    assert (as_stored == strip_of("train", 2, 3)[:SIDE, :, ::-1]).all()


def test_the_rest_of_a_strip_below_its_last_square_is_no_frame(tmp_path: Path):
    texts = {split: {"text": [FIVE]} for split in PORORO}
    path = write_file(tmp_path / "rest.h5", texts, lambda *place: png(strip_of(*place)[: 3 * SIDE - 1]))
    assert [frame.size for frame in ARLDM(path).pictures("val/0/image0")] == [(SIDE, SIDE)] * 2


def test_photos_of_vist_are_whole_and_its_texts_are_two(vist: Path):
    told = ARLDM(vist, text="sis", strips=False)
    described = ARLDM(vist, text="dii", strips=False)
    assert told.pictures("val/0/image1")[0].size == (SIDE, 3 * SIDE)
    assert [r.captions[0] for r in told.records("val")] == ["a", "a"]
    assert [r.captions[0] for r in described.records("val")] == ["v"]
    assert described.problems[0] == Problem("train/1", "captions do not match the frames: 4 parts of 5")


def test_a_file_of_vist_is_told_by_its_captions(vist: Path):
    with pytest.raises(ValueError, match=r"has no train/text: set data.text=sis or dii$"):
        ARLDM(vist)
    with pytest.raises(ValueError, match=r"strips=true with text=sis: .* set data.strips=false"):
        ARLDM(vist, text="sis")
    with pytest.raises(ValueError, match="text=captions"):
        ARLDM(vist, text="captions")


def test_damaged_pictures_are_named_when_they_are_read(tmp_path: Path):
    whole = png(np.random.default_rng(0).integers(0, 255, (3 * SIDE, SIDE, 3), dtype=np.uint8))
    pictures = [
        b"",
        b"no picture",
        whole[: len(whole) // 2],
        png(np.zeros((1, 1, 3), np.uint8)),
        png(np.zeros((16, 32, 3), np.uint8)),
    ]
    texts = {split: {"text": [FIVE]} for split in PORORO}
    stories = ARLDM(write_file(tmp_path / "damaged.h5", texts, lambda split, row, frame: pictures[frame]))
    assert len(stories.records("val")) == 1
    starts = ("missing", "corrupt", "truncated", "wrong shape: 1x1", "wrong shape: 32x16")
    for frame, start in enumerate(starts):
        with pytest.raises(ClipError, match=f"^{start}"):
            stories.pictures(f"val/0/image{frame}")


def test_opening_a_file_reads_no_picture(pororo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "open", None)
    assert len(ARLDM(pororo).records("train")) == 3


def first_pixel(stories: ARLDM, clip: str) -> Any:
    return stories.pictures(clip)[0].getpixel((0, 0))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_what_the_first_process_reads(method: str, pororo: Path):
    stories = ARLDM(pororo)
    clips = [f"train/{row}/image{frame}" for row in (0, 2) for frame in range(5)]
    expected = [first_pixel(stories, clip) for clip in clips]
    assert len(set(expected)) == len(clips)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(first_pixel, [(stories, clip) for clip in clips], chunksize=1) == expected
    assert first_pixel(pickle.loads(pickle.dumps(stories)), clips[-1]) == expected[-1]


def test_the_file_or_its_folder_is_the_root(pororo: Path):
    assert ARLDM(pororo.parent).records("train") == ARLDM(pororo).records("train")
    assert ARLDM(pororo.parent).clip_file("train/0/image0") == pororo
    with pytest.raises(ValueError, match=rf"it seems to be in {pororo.parent}: give"):
        ARLDM(pororo.parent.parent)
    pororo.with_name("second.hdf5").write_bytes(pororo.read_bytes())
    with pytest.raises(ValueError, match=r"holds pororo.h5, second.hdf5: give one file"):
        ARLDM(pororo.parent)


def test_fewer_targets_take_the_first_frames(pororo: Path):
    record = ARLDM(pororo, num_targets=2).records("train")[0]
    assert record.clips == ("train/0/image0", "train/0/image1", "train/0/image2")
    assert record.captions == ("Pororo Jumps.", "He falls", "Loopy laughs")
    with pytest.raises(ValueError, match="num_targets=5"):
        ARLDM(pororo, num_targets=5)


def drop_a_split(content: Any) -> None:
    del content["val"]


def drop_a_frame(content: Any) -> None:
    del content["val/image4"]


def drop_the_text(content: Any) -> None:
    del content["val/text"]


def shorten_a_frame(content: Any) -> None:
    del content["val/image4"]
    content.create_dataset("val/image4", (0,), dtype=h5py.vlen_dtype(np.dtype("uint8")))


def number_the_text(content: Any) -> None:
    del content["val/text"]
    content["val/text"] = np.arange(1)


def write_latin1(content: Any) -> None:
    content["val/text"][0] = b"caf\xe9|b|c|d|e"


def empty_a_split(content: Any) -> None:
    content["val/text"][0] = "no five parts"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (drop_a_split, "has no group val"),
        (drop_a_frame, "has no val/image4 of 1 PNG files"),
        (shorten_a_frame, "has no val/image4 of 1 PNG files"),
        (drop_the_text, "has no val/text: make it"),
        (number_the_text, "has no text in val/text"),
        (write_latin1, "row 0 of val/text is not in UTF-8"),
        (empty_a_split, "gives no story of 1 in val; the first, val/0: captions do not match"),
    ],
)
def test_another_layout_is_refused_in_one_line(fault: Callable[[Any], None], message: str, pororo: Path):
    with h5py.File(pororo, "a") as content:
        fault(content)
    with pytest.raises(ValueError, match=message) as error:
        ARLDM(pororo)
    assert str(pororo) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_part_of_a_file_is_refused(pororo: Path):
    pororo.write_bytes(pororo.read_bytes()[:3000])
    with pytest.raises(ValueError, match="is no HDF5 file, or a part of one"):
        ARLDM(pororo)


def test_without_h5py_the_extra_is_named(pororo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r'pip install "storydalle\[data\]"'):
        ARLDM(pororo)


def test_the_config_opens_the_set(pororo: Path):
    from hydra.utils import instantiate

    config = OmegaConf.create({"data": OmegaConf.load(CONFIG)})
    config.data.root = str(pororo)
    assert len(instantiate(config.data.set).records("train")) == 3


@pytest.mark.parametrize("name", ["text", "image2"])
def test_a_heap_that_hdf5_would_walk_for_ever_is_refused(pororo: Path, name: str):
    stories = ARLDM(pororo)
    with h5py.File(pororo) as content:
        start = content["val"][name].id.get_offset()
    whole = bytearray(pororo.read_bytes())
    heap = heaps.DESCRIPTOR.unpack_from(whole, start)[1]
    heaps.OBJECT.pack_into(whole, heap + heaps.HEAP.size, heaps.FREE_SPACE, 0, 0)
    pororo.write_bytes(whole)
    if name == "text":
        with pytest.raises(ValueError, match=r"pororo\.h5 is damaged: .* free space of 0 bytes"):
            ARLDM(pororo)
    else:
        with pytest.raises(ClipError, match=r"corrupt: .* free space of 0 bytes"):
            stories.pictures("val/0/image2")


def test_a_file_in_chunks_reads_as_one_in_one_piece(pororo: Path, tmp_path: Path):
    with h5py.File(pororo) as content, h5py.File(tmp_path / "chunked.h5", "w", userblock_size=512) as other:
        for split in PORORO:
            for name, column in content[split].items():
                chunks = (1,) if name == "image0" else None
                copy = other.create_dataset(f"{split}/{name}", column.shape, dtype=column.dtype, chunks=chunks)
                for row, value in enumerate(column):
                    copy[row] = value
    for name in ("image0", "image1"):
        whole, chunked = (ARLDM(path).pictures(f"train/2/{name}") for path in (pororo, tmp_path / "chunked.h5"))
        assert [picture.tobytes() for picture in whole] == [picture.tobytes() for picture in chunked]
