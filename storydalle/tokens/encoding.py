"""Stories as tokens and codes, written once: shards of codes, of which a killed run loses one, and tables of stories.

FOLDER/codes/00000.npy ...   uint16 (frames, l): the codes of every frame of every clip, clip after clip
FOLDER/codes/header.json     tokenizer, resolution, frames a shard; written last
FOLDER/stories-HASH/         of each story its shots, tokens, labels and id, for one caption tokenizer
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int, UInt8, UInt16
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from storydalle.files import locks
from storydalle.files.records import sha256_of_text
from storydalle.files.whole import folder_when_whole, replaced_when_whole, write_json
from storydalle.stories.images import to_tensor
from storydalle.stories.pictures import ClipError
from storydalle.stories.story import Outline, Shot, Stories, shown_frame
from storydalle.tokens.caption_tokenizer import TextTokenizer
from storydalle.tokens.headers import (
    HEADER,
    ArrayFile,
    CodesHeader,
    CodesKey,
    ShardRecord,
    TablesKey,
    codes_header,
    shard_if_whole,
    tables_header,
    written_shard,
)
from storydalle.tokens.image_tokenizer import ImageTokenizer

CODES, IDS = "codes", "ids.txt"
FORMAT = 1
CLIPS_PER_SHARD = 256
FRAMES_PER_BATCH = 128
STORIES_PER_CHUNK = 1024
Item = TypeVar("Item")


class Clip(NamedTuple):
    """The place of a clip's codes: its first row and its number of frames, 0 if it cannot be read."""

    start: int
    num_frames: int


def build_cache(
    stories: Stories,
    image_tokenizer: ImageTokenizer,
    caption_tokenizer: TextTokenizer | None,
    folder: Path,
    num_workers: int = 0,
    check_pictures: bool = False,
) -> None:
    """Encode what is not yet in ``folder``; without a caption tokenizer, only the codes.

    A cache whose header names these stories and this tokenizer is complete. ``check_pictures`` still checks the stamp
    of every clip, and encodes shards with changed clips again. Of several processes, one works and the others wait.
    Raises ValueError if stories and tokenizer differ in resolution, or if no story has all its pictures.
    """
    if stories.resolution != image_tokenizer.resolution:
        raise ValueError(
            f"the stories have {stories.resolution} pixels, the image tokenizer {image_tokenizer.resolution}: "
            f"give data.resolution={image_tokenizer.resolution}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with locks.after_others(folder / "lock", f"waiting for {folder}, which another process writes"):
        key = codes_key(stories, image_tokenizer)
        header = codes_header(folder / CODES)
        if check_pictures or header is None or header["key"] != key:
            header = encode_clips(stories, image_tokenizer, folder / CODES, key, num_workers)
        if caption_tokenizer is not None:
            write_tables(stories, caption_tokenizer, folder, header)


def codes_key(stories: Stories, image_tokenizer: ImageTokenizer) -> CodesKey:
    """Everything that codes depend on: equal keys give equal codes."""
    return {
        "format": FORMAT,
        "stories": stories.fingerprint(),
        "resolution": stories.resolution,
        "image_tokenizer": encoding_hash(image_tokenizer),
    }


def encoding_hash(image_tokenizer: ImageTokenizer) -> str:
    """A short hash of everything that codes depend on: equal hashes give equal codes, whatever the decoder is."""
    digest = hashlib.sha256()
    for name, value in image_tokenizer.encoding_weights().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    if settings := image_tokenizer.encoding_settings():
        digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def encode_clips(
    stories: Stories, image_tokenizer: ImageTokenizer, folder: Path, key: CodesKey, num_workers: int
) -> CodesHeader:
    """Write the shards that are missing or out of date, then the header, which is returned."""
    folder.mkdir(exist_ok=True)
    shards = list(batched(stories.clips(), CLIPS_PER_SHARD))
    records = [shard_record(stories, clips, key) for clips in shards]
    stale = [i for i, record in enumerate(records) if not is_written(folder, i, record)]
    clips_to_read = [clip for i in stale for clip in shards[i]]
    bar = tqdm(total=len(clips_to_read), desc="encoding", unit="clip", disable=None if stale else True)
    pictures = read_clips(stories, clips_to_read, num_workers)
    for i in stale:
        codes, frames, problems = encode_shard(FrameEncoder(image_tokenizer), shards[i], pictures, bar)
        replace_file(folder / f"{i:05d}.npy", codes)
        write_json(folder / f"{i:05d}.json", {**records[i], "frames": frames, "problems": problems})
    bar.close()
    for path in folder.glob("[0-9]*"):
        if int(path.stem) >= len(shards):
            path.unlink()
    written = [written_shard(folder, i) for i in range(len(shards))]
    header: CodesHeader = {
        "key": key,
        "num_codes": image_tokenizer.num_codes,
        "num_clips": sum(len(clips) for clips in shards),
        "num_problems": sum(len(record["problems"]) for record in written),
        "frames": [sum(record["frames"]) for record in written],
        "shards": digest_of(json.dumps(written)),
    }
    if header != codes_header(folder):
        write_json(folder / HEADER, header)
    return header


def shard_record(stories: Stories, clips: Sequence[str], key: CodesKey) -> ShardRecord:
    """A record of a shard's clips, as they are now, and of their encoder."""
    stamps = json.dumps([(clip, stories.stamp(clip)) for clip in clips])
    return {
        "format": key["format"],
        "resolution": key["resolution"],
        "image_tokenizer": key["image_tokenizer"],
        "clips": digest_of(stamps),
    }


def is_written(folder: Path, shard: int, record: ShardRecord) -> bool:
    found = shard_if_whole(folder, shard)
    return found is not None and record.items() <= found.items() and (folder / f"{shard:05d}.npy").is_file()


class ClipReader(Dataset):
    """Reads the pictures of clips, or returns the reason why they cannot be read."""

    def __init__(self, stories: Stories, clips: Sequence[str]) -> None:
        self.stories, self.clips = stories, clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray | str:
        try:
            return self.stories.read(self.clips[index])
        except ClipError as error:
            return str(error)


def read_clips(stories: Stories, clips: Sequence[str], num_workers: int) -> Iterator[np.ndarray | str]:
    """The pictures of clips in their order, read ahead by worker processes."""
    for pictures in DataLoader(ClipReader(stories, clips), batch_size=None, num_workers=num_workers):
        yield pictures if isinstance(pictures, str) else pictures.numpy()


def encode_shard(
    encode: "FrameEncoder", clips: Sequence[str], pictures: Iterator[np.ndarray | str], bar: tqdm
) -> tuple[UInt16[np.ndarray, "n l"], list[int], dict[str, str]]:
    """Codes of the next ``len(clips)`` clips' frames, the number of each clip's frames, and what could not be read.

    A batch is always within one shard, so its codes do not depend on the other shards that are written.
    """
    frames, problems, waiting = [], {}, []
    codes = [np.zeros((0, encode.image_tokenizer.num_codes), np.uint16)]
    for clip, read in zip(clips, islice(pictures, len(clips)), strict=True):
        if isinstance(read, str):
            problems[clip] = read
        else:
            waiting.append(read)
        frames.append(0 if isinstance(read, str) else len(read))
        if sum(map(len, waiting)) >= FRAMES_PER_BATCH:
            codes.append(encode(np.concatenate(waiting)).astype(np.uint16))
            waiting = []
        bar.update()
    if waiting:
        codes.append(encode(np.concatenate(waiting)).astype(np.uint16))
    return np.concatenate(codes), frames, problems


class FrameEncoder:
    """Codes of uint8 frames. If the tokenizer encodes windows separately, equal windows are encoded only once."""

    def __init__(self, image_tokenizer: ImageTokenizer) -> None:
        self.image_tokenizer = image_tokenizer
        self.device = next(image_tokenizer.parameters()).device
        patch = image_tokenizer.resolution // image_tokenizer.grid
        self.window = patch if image_tokenizer.window == patch else None
        self.known: dict[bytes, int] = {}

    @torch.inference_mode()
    def __call__(self, frames: UInt8[np.ndarray, "n h w 3"]) -> Int[np.ndarray, "n l"]:
        if self.window is None:
            parts = to_tensor(torch.from_numpy(frames)).split(FRAMES_PER_BATCH)
            return torch.cat([self.image_tokenizer.encode(part.to(self.device)).cpu() for part in parts]).numpy()
        windows = rearrange(frames, "n (r h) (c w) k -> (n r c) h w k", h=self.window, w=self.window)
        keys = [hashlib.blake2b(window.tobytes(), digest_size=16).digest() for window in windows]
        first = {key: i for i, key in enumerate(keys) if key not in self.known}
        for part in batched(first.items(), 4096):
            pixels = to_tensor(torch.from_numpy(windows[[i for _, i in part]]))
            codes = self.image_tokenizer.encode_windows(pixels.to(self.device))[:, 0].tolist()
            self.known.update(zip((key for key, _ in part), codes, strict=True))
        return np.array([self.known[key] for key in keys]).reshape(len(frames), -1)


def tables_folder(folder: Path, caption_tokenizer: TextTokenizer) -> Path:
    return folder / f"stories-{caption_tokenizer.fingerprint[:8]}"


def write_tables(
    stories: Stories, caption_tokenizer: TextTokenizer, folder: Path, header_of_codes: CodesHeader
) -> None:
    """Write shots, tokens, labels and ids of stories whose clips all have frames."""
    target = tables_folder(folder, caption_tokenizer)
    key: TablesKey = {"codes": header_of_codes, "caption_tokenizer": caption_tokenizer.fingerprint}
    header = tables_header(target)
    if header is not None and header["key"] == key:
        return
    clips = clips_of_shards(stories, folder / CODES, len(header_of_codes["frames"]))
    with folder_when_whole(target, replaces=True) as folder:
        columns, ids = Columns(folder), list[str]()
        chunks = batched(range(len(stories)), STORIES_PER_CHUNK)
        for chunk in tqdm(chunks, desc="writing stories", unit_scale=STORIES_PER_CHUNK, disable=None):
            outlines = [stories.outline(i) for i in chunk]
            whole = [outline for outline in outlines if all(clips[shot.clip].num_frames for shot in outline.shots)]
            ids.extend(outline.id for outline in whole)
            if whole:
                columns.append(table_columns(whole, clips, caption_tokenizer))
        if not ids:
            raise ValueError(
                f"none of the {len(stories)} stories has all its pictures: storydalle prepare says what is wrong"
            )
        header = {
            "key": key,
            "num_stories": len(ids),
            "left_out": len(stories) - len(ids),
            "pad_id": caption_tokenizer.pad_id,
            "columns": columns.close(),
        }
        (folder / IDS).write_text("\n".join(ids) + "\n", encoding="utf-8")
        write_json(folder / HEADER, header)


def clips_of_shards(stories: Stories, folder: Path, num_shards: int) -> dict[str, Clip]:
    """The place of each clip's codes, counted over all shards."""
    counts = [n for i in range(num_shards) for n in written_shard(folder, i)["frames"]]
    starts = np.cumsum([0, *counts])[:-1].tolist()
    return {clip: Clip(*at) for clip, *at in zip(stories.clips(), starts, counts, strict=True)}


class Columns:
    """Arrays that grow row by row, each in a file of raw bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, BinaryIO] = {}
        self.types: dict[str, tuple[str, list[int]]] = {}
        self.lengths: dict[str, int] = {}

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            if name not in self.files:
                self.files[name] = (self.folder / f"{name}.bin").open("wb")
                self.types[name], self.lengths[name] = (array.dtype.str, list(array.shape[1:])), 0
            assert self.types[name] == (array.dtype.str, list(array.shape[1:])), name
            self.files[name].write(np.ascontiguousarray(array).tobytes())
            self.lengths[name] += len(array)

    def close(self) -> dict[str, ArrayFile]:
        """Finish the files; return what a reader must know about them."""
        for file in self.files.values():
            file.close()
        return {
            name: {"dtype": dtype, "shape": [self.lengths[name], *shape]} for name, (dtype, shape) in self.types.items()
        }


def table_columns(
    outlines: Sequence[Outline], clips: Mapping[str, Clip], caption_tokenizer: TextTokenizer
) -> dict[str, np.ndarray]:
    """One row a story ("num_targets", source labels, probes), a shot, a caption or a target (the other labels)."""

    def place(shot: Shot) -> tuple[int, int, int]:
        """First row, number of frames to draw from, and the frame for evaluation."""
        clip = clips[shot.clip]
        if shot.frame is not None:
            return clip.start + shot.frame, 1, 0
        return clip.start, clip.num_frames, shown_frame(shot, clip.num_frames)

    def tokens(captions: list[str]) -> np.ndarray:
        return caption_tokenizer.encode(captions).tokens.numpy().astype(np.uint16)

    columns: dict[str, np.ndarray] = {
        "num_targets": np.array([len(outline.captions) for outline in outlines], np.int32),
        "shots": np.array([place(shot) for outline in outlines for shot in outline.shots], np.int64),
        "captions": tokens([caption for outline in outlines for caption in outline.captions]),
    }
    descriptions = [caption for outline in outlines for caption in outline.descriptions]
    if descriptions:
        columns["descriptions"] = tokens(descriptions)
    for name in outlines[0].labels:
        rows = [outline.labels[name] for outline in outlines]
        columns[f"label_{name}"] = np.stack(rows) if name.startswith("source_") else np.concatenate(rows)
    for name in outlines[0].probes:
        columns[f"probe_{name}"] = np.array([place(outline.probes[name]) for outline in outlines], np.int64)
    return columns


def digest_of(text: str) -> str:
    return sha256_of_text(text)[:16]


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to ``size`` items (itertools.batched comes with Python 3.12)."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def replace_file(path: Path, array: np.ndarray) -> None:
    """Write an array; the file is never incomplete."""
    with replaced_when_whole(path, is_synced=False) as file:
        np.save(file, array)
