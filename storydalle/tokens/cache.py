"""Encoded stories for training: memory-mapped, read in batches, encoded on first use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from storydalle.files.paths import user_path
from storydalle.files.records import protocol_hash
from storydalle.stories.data import BatchDataset, StepData
from storydalle.stories.story import Stories
from storydalle.tokens.caption_tokenizer import TextTokenizer
from storydalle.tokens.encoded_stories import EncodedStories, Row, collate
from storydalle.tokens.encoding import (
    CODES,
    IDS,
    build_cache,
    codes_key,
    encoding_hash,
    tables_folder,
)
from storydalle.tokens.headers import codes_header, tables_header
from storydalle.tokens.image_tokenizer import ImageTokenizer


class CachedStories:
    """The stories of a cache. Opening reads two headers, a batch reads only its rows, and a worker gets only the paths.

    ``folder`` has the codes, ``tables`` the stories. Raises ValueError if the cache is not finished or, with both
    hashes, if its codes are from another tokenizer than that with hash ``image_tokenizer``.
    """

    def __init__(self, folder: Path, tables: Path, image_tokenizer: str | None = None) -> None:
        self.folder, self.tables, self.image_tokenizer = folder, tables, image_tokenizer
        codes, stories = codes_header(folder / CODES), tables_header(tables)
        if codes is None or stories is None or stories["key"]["codes"] != codes:
            raise ValueError(f"{tables} is not finished, or older than its codes: encode the stories again")
        found = codes["key"]["image_tokenizer"]
        if image_tokenizer not in (None, found):
            raise ValueError(
                f"{folder} holds codes of the image tokenizer {found}, but the model has {image_tokenizer}: "
                "encode the stories with the model's tokenizer"
            )
        self.pad_id, self.num_codes, self.columns = stories["pad_id"], codes["num_codes"], stories["columns"]
        self.left_out = stories["left_out"]
        self.shard_starts = np.cumsum([0, *codes["frames"]])
        self.shards: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return CachedStories, (self.folder, self.tables, self.image_tokenizer)

    def __len__(self) -> int:
        return self.columns["num_targets"]["shape"][0]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        return {
            name: np.memmap(self.tables / f"{name}.bin", column["dtype"], "r", shape=tuple(column["shape"]))
            for name, column in self.columns.items()
        }

    @cached_property
    def starts(self) -> np.ndarray:
        """The first target of each story, and the number of all."""
        return np.concatenate([[0], np.cumsum(self.arrays["num_targets"], dtype=np.int64)])

    @property
    def lengths(self) -> np.ndarray:
        """Targets of each story."""
        return self.arrays["num_targets"]

    def ids(self) -> list[str]:
        return (self.tables / IDS).read_text(encoding="utf-8").split("\n")[:-1]

    def codes(self, frames: np.ndarray) -> np.ndarray:
        """Codes (n, l) of frames by their number in the cache."""
        shards = np.searchsorted(self.shard_starts, frames, side="right") - 1
        found = np.empty((len(shards), self.num_codes), np.uint16)
        for row, (shard, frame) in enumerate(zip(shards.tolist(), frames.tolist(), strict=True)):
            if shard not in self.shards:
                self.shards[shard] = np.load(self.folder / CODES / f"{shard:05d}.npy", mmap_mode="r")
            found[row] = self.shards[shard][frame - self.shard_starts[shard]]
        return found

    def row(self, index: int, draw: np.random.Generator | None = None) -> Row:
        """One story. ``draw`` chooses frames of clips at random; without it they are the frames of evaluation."""
        start, stop = self.starts[index : index + 2].tolist()
        shots = slice(start + index, stop + index + 1)  # a story has one shot more than it has targets

        row: Row = {"codes": self.codes(chosen_frames(self.arrays["shots"][shots], draw))}
        for name, array in self.arrays.items():
            if name == "captions":
                row[name] = array[start:stop]
            elif name == "descriptions":
                row[name] = array[shots]
            elif name.startswith("label_"):
                row[name] = array[index] if name.startswith("label_source_") else array[start:stop]
            elif name.startswith("probe_"):
                row[name] = self.codes(chosen_frames(array[index : index + 1], draw))[0]
        return row

    def batch(self, indices: Sequence[int], draw: np.random.Generator | None = None) -> EncodedStories:
        return collate([self.row(index, draw) for index in indices], self.pad_id)


def chosen_frames(places: Int[np.ndarray, "k 3"], draw: np.random.Generator | None) -> Int[np.ndarray, " k"]:
    """The rows to read for places (first row, number of frames, frame for evaluation): drawn at random, or fixed."""
    first, count, shown = places.T
    return first + (shown if draw is None else (draw.random(len(count)) * count).astype(np.int64))


class StoryCodes(StepData):
    """Encoded stories for training: caches train and val below ``folder`` on first use.

    ``repeats`` trains on some stories more often, for rare facts: name -> (label, value, times), for stories where any
    entry of the label has the value. Other splits are not changed.
    """

    def __init__(
        self,
        train: Stories,
        val: Stories,
        image_tokenizer: ImageTokenizer,
        caption_tokenizer: TextTokenizer,
        folder: str | Path,
        batch_size: int,
        seed: int = 0,
        repeats: Mapping[str, Sequence[object]] | None = None,
        num_workers: int = 0,
        encoding_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.splits = {"train": train, "val": val}
        self.repeats = repeats or {}
        self.image_tokenizer, self.caption_tokenizer = image_tokenizer, caption_tokenizer
        self.folder, self.encoding_workers = user_path(folder), encoding_workers

    @property
    def train(self) -> Stories:
        """The stories themselves, with their words."""
        return self.splits["train"]

    def prepare_data(self) -> None:
        for split, stories in self.splits.items():
            folder = cache_folder(self.folder, split, stories, self.image_tokenizer)
            build_cache(stories, self.image_tokenizer, self.caption_tokenizer, folder, self.encoding_workers)
            left_out = self.cached(split).left_out
            if left_out:
                print(
                    f"{split}: {left_out} of {len(stories)} stories are left out, because a picture of them cannot be "
                    "read; storydalle prepare lists these pictures"
                )

    def shared_work(self) -> list[dict[str, str]]:
        """The codes of each split, which other trainings read too: what, hash, where."""
        return [
            {
                "what": f"codes of {split}",
                "sha256": protocol_hash(codes_key(stories, self.image_tokenizer)),
                "where": str(cache_folder(self.folder, split, stories, self.image_tokenizer)),
            }
            for split, stories in self.splits.items()
        ]

    def cached(self, split: str) -> CachedStories:
        folder = cache_folder(self.folder, split, self.splits[split], self.image_tokenizer)
        tables = tables_folder(folder, self.caption_tokenizer)
        return CachedStories(folder, tables, encoding_hash(self.image_tokenizer))

    def training_set(self) -> BatchDataset:
        stories = self.cached("train")
        times = np.ones(len(stories), dtype=np.int64)
        for label, value, count in self.repeats.values():
            matches = (stories.arrays[f"label_{label}"] == value).reshape(stories.starts[-1], -1).any(1)
            of_story = np.repeat(np.arange(len(stories)), stories.lengths)
            times[np.unique(of_story[matches])] *= count
        rows = np.repeat(np.arange(len(stories)), times)
        return BatchDataset(TrainingBatches(stories, rows, self.seed), stories.lengths[rows])

    def validation_set(self) -> BatchDataset:
        stories = self.cached("val")
        return BatchDataset(ValidationBatches(stories), stories.lengths)


@dataclass(frozen=True)
class TrainingBatches:
    """Reads batches of stories, by ``rows``; the frames that are drawn from clips depend on (seed, step, row)."""

    stories: CachedStories
    rows: Int[np.ndarray, " n"]
    seed: int

    def __call__(self, indices: list[int], step: int | None) -> EncodedStories:
        draws = [np.random.default_rng([self.seed, step or 0, index]) for index in indices]
        stories = self.rows[indices].tolist()
        rows = [self.stories.row(story, draw) for story, draw in zip(stories, draws, strict=True)]
        return collate(rows, self.stories.pad_id)


@dataclass(frozen=True)
class ValidationBatches:
    """Reads batches of stories, with the frames of evaluation."""

    stories: CachedStories

    def __call__(self, indices: list[int], _: int | None) -> EncodedStories:
        return self.stories.batch(indices)


def cache_folder(folder: Path, split: str, stories: Stories, image_tokenizer: ImageTokenizer) -> Path:
    """The folder for these stories in this tokenizer's codes; its name hashes all that the codes depend on."""
    return folder / encoding_hash(image_tokenizer)[:8] / f"{split}-{stories.fingerprint()[:8]}"
