"""Stories as tokens and codes: encoded once, kept in memory-mapped arrays, read in batches."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from filelock import FileLock
from jaxtyping import Bool, Int, UInt8
from torch import Tensor
from tqdm import tqdm

from storydalle.stories.data import BatchDataset, StepData
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story
from storydalle.tokens.captions import CaptionTokenizer
from storydalle.tokens.vqgan import VQGAN

HEADER = "header.json"


class EncodedStories(NamedTuple):
    """A batch of stories, ready for a transformer."""

    tokens: Int[Tensor, "b f t"]
    descriptions: Int[Tensor, "b g t"]  # g = f + 1: full captions, the source's first; g = 0 where there are none
    source: Int[Tensor, "b l"]
    codes: Int[Tensor, "b f l"]
    mask: Bool[Tensor, "b f"]
    labels: dict[str, Tensor]
    probes: dict[str, Tensor]  # codes (b, l) of other sources, by the name of the probe


def encode_stories(
    stories: Sequence[Story],
    image_tokenizer: VQGAN,
    caption_tokenizer: CaptionTokenizer,
    folder: Path,
    key: dict[str, Any],
    chunk_size: int = 64,
) -> None:
    """Write the stories' arrays to ``folder``, with ``key`` in the header; a folder with the same key is kept.

    The header is written last: a folder without one is an encoding that was cut off, and is made again. Of several
    processes, one encodes and the others wait for it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if read_header(folder) != key:
            write_encoded(stories, image_tokenizer, caption_tokenizer, folder, key, chunk_size)


def write_encoded(
    stories: Sequence[Story],
    image_tokenizer: VQGAN,
    caption_tokenizer: CaptionTokenizer,
    folder: Path,
    key: dict[str, Any],
    chunk_size: int,
) -> None:
    """Encode chunk by chunk, in place of what the folder held."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    arrays: dict[str, np.memmap] = {}
    encode = FrameEncoder(image_tokenizer)
    starts = range(0, len(stories), chunk_size)
    for start in tqdm(starts, desc=f"encoding {len(stories)} stories", unit_scale=chunk_size, disable=None):
        chunk = [stories[i] for i in range(start, min(start + chunk_size, len(stories)))]
        for name, values in encoded_arrays(chunk, encode, caption_tokenizer):
            if name not in arrays:
                path, shape = folder / f"{name}.npy", (len(stories), *values.shape[1:])
                arrays[name] = np.lib.format.open_memmap(path, "w+", dtype=values.dtype, shape=shape)
            arrays[name][start : start + len(chunk)] = values
    for array in arrays.values():
        array.flush()
    (folder / HEADER).write_text(json.dumps(key, indent=2, sort_keys=True) + "\n")


class FrameEncoder:
    """Codes of uint8 frames. A tokenizer that sees windows alone encodes each distinct window only once."""

    def __init__(self, image_tokenizer: VQGAN) -> None:
        self.image_tokenizer = image_tokenizer
        self.device = next(image_tokenizer.parameters()).device
        patch = image_tokenizer.resolution // image_tokenizer.grid
        self.window = patch if image_tokenizer.window == patch else None
        self.known: dict[bytes, int] = {}

    @torch.inference_mode()
    def __call__(self, frames: UInt8[np.ndarray, "n h w 3"]) -> Int[np.ndarray, "n l"]:
        if self.window is None:
            parts = to_tensor(torch.from_numpy(frames)).split(128)
            return torch.cat([self.image_tokenizer.encode(part.to(self.device)).cpu() for part in parts]).numpy()
        windows = rearrange(frames, "n (r h) (c w) k -> (n r c) h w k", h=self.window, w=self.window)
        keys = [hashlib.blake2b(window.tobytes(), digest_size=16).digest() for window in windows]
        first = {key: i for i, key in enumerate(keys) if key not in self.known}
        for part in batched(first.items(), 4096):
            pixels = to_tensor(torch.from_numpy(windows[[i for _, i in part]]))
            latents = self.image_tokenizer.window_latents(pixels.to(self.device))
            codes = self.image_tokenizer.quantize(latents).codes[:, 0].tolist()
            self.known.update(zip((key for key, _ in part), codes, strict=True))
        return np.array([self.known[key] for key in keys]).reshape(len(frames), -1)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of up to ``size`` items (itertools.batched comes with Python 3.12)."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def encoded_arrays(
    chunk: Sequence[Story], encode: FrameEncoder, caption_tokenizer: CaptionTokenizer
) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of some stories of one length, by name."""
    num_stories = len(chunk)
    pictures = np.concatenate([frames for story in chunk for frames in (story.source[None], story.frames)])
    yield "codes", encode(pictures).reshape(num_stories, -1, encode.image_tokenizer.num_codes).astype(np.uint16)
    for name in chunk[0].probes:
        yield f"probe_{name}", encode(np.stack([story.probes[name] for story in chunk])).astype(np.uint16)
    for name in ("captions", "descriptions"):
        captions = [caption for story in chunk for caption in getattr(story, name)]
        if captions:
            tokens = caption_tokenizer.encode(captions).tokens
            yield name, tokens.view(num_stories, -1, tokens.shape[-1]).numpy().astype(np.uint16)
    for name in chunk[0].labels:
        yield f"label_{name}", np.stack([story.labels[name] for story in chunk])


def read_header(folder: Path) -> dict[str, Any] | None:
    path = folder / HEADER
    return json.loads(path.read_text()) if path.is_file() else None


def encoding_hash(image_tokenizer: VQGAN) -> str:
    """A short hash of the weights that make codes: equal hashes make equal codes, whatever the decoder is."""
    digest = hashlib.sha256()
    for name, value in image_tokenizer.state_dict().items():
        if name.startswith(("encoder.", "quant_conv.", "quantize.")):
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def stories_hash(stories: Sequence[Story], num_samples: int = 16) -> str:
    """A short hash of captions, pixels and labels of some stories, spread over the set."""
    digest = hashlib.sha256()
    for i in range(0, len(stories), max(1, len(stories) // num_samples)):
        story = stories[i]
        digest.update("\n".join([story.id, *story.captions, *story.descriptions]).encode())
        for array in (story.source, story.frames, *story.labels.values(), *story.probes.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


class CachedStories:
    """Encoded stories on disk; opening costs nothing, a batch reads its rows."""

    def __init__(self, folder: Path) -> None:
        self.arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}

    def __len__(self) -> int:
        return len(self.arrays["codes"])

    def batch(self, indices: Sequence[int]) -> EncodedStories:
        rows = np.asarray(indices)
        return as_batch({name: array[rows] for name, array in self.arrays.items()})


def as_batch(arrays: Mapping[str, np.ndarray]) -> EncodedStories:
    """The arrays of some stories, as they are stored, as a batch."""
    read = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
    codes, tokens = read["codes"], read["captions"]
    descriptions = read.get("descriptions", tokens[:, :0])
    labels, probes = (
        {name.removeprefix(kind): value for name, value in read.items() if name.startswith(kind)}
        for kind in ("label_", "probe_")
    )
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    return EncodedStories(tokens, descriptions, codes[:, 0], codes[:, 1:], mask, labels, probes)


class StoryCodes(StepData):
    """Encoded stories for training: caches train and val in ``folder`` on first use.

    ``repeats`` trains on some stories more often, as rare facts need: name -> (label, value, times), for stories
    where any entry of the label has the value. The stories themselves stay as they are, and so do other splits.
    """

    def __init__(
        self,
        train: Sequence[Story],
        val: Sequence[Story],
        image_tokenizer: VQGAN,
        caption_tokenizer: CaptionTokenizer,
        folder: str | Path,
        batch_size: int,
        seed: int = 0,
        repeats: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        super().__init__(batch_size, seed)
        self.splits = {"train": train, "val": val}
        self.repeats = repeats or {}
        self.image_tokenizer, self.caption_tokenizer = image_tokenizer, caption_tokenizer
        self.folder = Path(folder)

    def prepare_data(self) -> None:
        hashes = {
            "image_tokenizer": encoding_hash(self.image_tokenizer),
            "caption_tokenizer": self.caption_tokenizer.fingerprint,
        }
        for name, stories in self.splits.items():
            key = {"stories": stories_hash(stories), "num_stories": len(stories), **hashes}
            encode_stories(stories, self.image_tokenizer, self.caption_tokenizer, self.folder / name, key)

    def training_set(self) -> BatchDataset:
        stories = CachedStories(self.folder / "train")
        times = np.ones(len(stories), dtype=np.int64)
        for label, value, count in self.repeats.values():
            matches = np.asarray(stories.arrays[f"label_{label}"] == value)
            times[matches.reshape(len(stories), -1).any(1)] *= count
        rows = np.repeat(np.arange(len(stories)), times)
        return BatchDataset(len(rows), lambda indices: stories.batch(rows[indices].tolist()))

    def validation_set(self) -> BatchDataset:
        stories = CachedStories(self.folder / "val")
        return BatchDataset(len(stories), stories.batch)
