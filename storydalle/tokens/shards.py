"""Encoded stories as webdataset shards, for training on several machines; each reads its own files sequentially.

FOLDER/00000.tar ...   of each story the codes of all frames of its clips, its shots, tokens, labels, probes and id
FOLDER/header.json     tokenizers, columns, and the number of stories of each shard; written last

Shards are divided among readers; every worker of every node is a reader. The order of shards and stories, and the
frames drawn from clips, depend only on (seed, epoch).
"""

import io
import json
import random
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
from filelock import FileLock
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from storydalle.files.paths import user_path
from storydalle.files.pickles import array_of
from storydalle.files.reading import object_if_whole
from storydalle.files.whole import replaced_when_whole, write_json
from storydalle.stories.data import StepData
from storydalle.tokens.cache import CachedStories, chosen_frames
from storydalle.tokens.caption_tokenizer import TextTokenizer
from storydalle.tokens.encoded_stories import EncodedStories, Row, collate
from storydalle.tokens.encoding import CODES, batched, digest_of, encoding_hash
from storydalle.tokens.headers import HEADER, codes_header, tables_header
from storydalle.tokens.image_tokenizer import ImageTokenizer

FORMAT = 1
ENDLESS = range(sys.maxsize)
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # what compressed archives begin with


class ShardsHeader(TypedDict):
    """The header of a folder of shards, whose values ``KINDS`` checks."""

    format: int
    image_tokenizer: str  # hash of what encodes
    caption_tokenizer: str  # fingerprint
    resolution: int
    num_codes: int  # a frame
    pad_id: int
    columns: list[str]
    stories: list[int]  # of each shard
    cache: str  # hash of the header of its tables


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


KINDS: dict[str, Callable[[object], bool]] = {  # what a header holds
    **dict.fromkeys(("image_tokenizer", "caption_tokenizer"), lambda value: isinstance(value, str)),
    "num_codes": is_count,
    "pad_id": lambda value: value is None or is_count(value),
    "columns": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "stories": lambda value: isinstance(value, list) and all(map(is_count, value)),
}


def shard_name(shard: int) -> str:
    return f"{shard:05d}.tar"


def write_shards(cache: CachedStories, folder: Path, stories_per_shard: int = 1000) -> list[Path]:
    """Write the stories of a cache in order, unless ``folder`` has exactly these; return the paths of the shards.

    Equal caches give equal bytes. Without a header, as after a killed run, everything is written again.
    """
    if stories_per_shard < 1:
        raise ValueError(f"stories_per_shard={stories_per_shard} must be at least 1")
    parts = list(batched(range(len(cache)), stories_per_shard))
    paths = [folder / shard_name(shard) for shard in range(len(parts))]
    header = header_of(cache, [len(part) for part in parts])
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if object_if_whole(folder / HEADER) == header and all(path.is_file() for path in paths):
            return paths
        (folder / HEADER).unlink(missing_ok=True)
        ids = cache.ids()
        for path, part in zip(paths, parts, strict=True):
            write_shard(path, ({"__key__": f"{i:09d}", "id.txt": ids[i].encode(), **files_of(cache, i)} for i in part))
        for path in {*folder.glob("[0-9]*.tar"), *folder.glob(".[0-9]*.partial")} - {*paths}:
            path.unlink()
        write_json(folder / HEADER, header)
    return paths


def write_shard(path: Path, samples: Iterable[Mapping[str, str | bytes]]) -> None:
    """Write files as a tar, which is never incomplete; owner and time are fixed: equal files give equal bytes."""
    owner = "storydalle"
    with replaced_when_whole(path) as file, _webdataset().TarWriter(file, owner, owner, mtime=0, encoder=False) as tar:
        for sample in samples:
            tar.write(sample)


def header_of(cache: CachedStories, num_stories: list[int]) -> ShardsHeader:
    """The header of shards that hold ``num_stories`` stories each."""
    codes, tables = codes_header(cache.folder / CODES), tables_header(cache.tables)
    assert codes is not None and tables is not None
    return {
        "format": FORMAT,
        "image_tokenizer": codes["key"]["image_tokenizer"],
        "caption_tokenizer": tables["key"]["caption_tokenizer"],
        "resolution": codes["key"]["resolution"],
        "num_codes": cache.num_codes,
        "pad_id": cache.pad_id,
        "columns": [name for name in cache.columns if name != "num_targets"],
        "stories": num_stories,
        "cache": digest_of(json.dumps(tables, sort_keys=True)),
    }


def files_of(cache: CachedStories, index: int) -> dict[str, bytes]:
    """A story as a row of the cache, with the codes of all frames of its clips and the places of its shots."""
    start, stop = cache.starts[index : index + 2].tolist()
    own_shots, own = slice(start + index, stop + index + 1), slice(index, index + 1)
    columns = {name: array for name, array in cache.arrays.items() if name.startswith(("shots", "probe_"))}
    places = {name: array[own_shots if name == "shots" else own] for name, array in columns.items()}
    ranges = [np.arange(first, first + count) for place in places.values() for first, count, _ in place.tolist()]
    frames = np.unique(np.concatenate(ranges))  # shots may share a clip; what was a range of frames stays one
    row = {**cache.row(index), "codes": cache.codes(frames)}
    for name, place in places.items():
        row[name] = np.column_stack([np.searchsorted(frames, place[:, 0]), place[:, 1:]])
    return {f"{name}.npy": npy(array) for name, array in row.items()}


def npy(array: np.ndarray | np.generic) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def read_header(folder: Path) -> ShardsHeader:
    """A finished folder's header; ValueError if there is none, or if it has values of the wrong type."""
    header = object_if_whole(folder / HEADER)
    if header is None or header.get("format") != FORMAT:
        raise ValueError(f"{folder} holds no finished shards of format {FORMAT}: write them again")
    wrong = [name for name, is_right in KINDS.items() if not is_right(header.get(name))]
    if wrong:
        raise ValueError(
            f"{folder / HEADER} is damaged: {wrong[0]} is {header.get(wrong[0])!r}; write the shards again"
        )
    return cast(ShardsHeader, header)


class StoryShards:
    """The stories of a folder of shards, read sequentially.

    Raises ValueError if the folder is not finished or, with both hashes, if it was made with other tokenizers than
    those with the hashes ``image_tokenizer`` and ``caption_tokenizer``. The files need not be trusted: only arrays of
    numbers are read, and nothing is unpickled or unpacked to disk.
    """

    def __init__(
        self, folder: Path, image_tokenizer: str | None = None, caption_tokenizer: str | None = None, buffer: int = 1000
    ) -> None:
        header = read_header(folder)
        for name, written, model in (
            ("image tokenizer", header["image_tokenizer"], image_tokenizer),
            ("caption tokenizer", header["caption_tokenizer"], caption_tokenizer),
        ):
            if model not in (None, written):
                raise ValueError(
                    f"{folder} was made with the {name} {written}, but the model has {model}: "
                    "write shards from a cache of this model"
                )
        self.folder, self.buffer = folder, buffer
        self.num_codes, self.pad_id, self.columns = header["num_codes"], header["pad_id"], header["columns"]
        self.num_stories = np.array(header["stories"])
        found = {path.name for path in folder.glob("*.tar")}
        missing = [name for name in map(shard_name, range(len(self.num_stories))) if name not in found]
        if missing or not self.num_stories.all():
            raise ValueError(f"{folder} lacks {len(missing)} shards, or stories ({missing[:3]}): copy them again")

    def __len__(self) -> int:
        return int(self.num_stories.sum())

    def check_readers(self, num_ranks: int, num_workers: int) -> None:
        num_readers = num_ranks * num_workers
        if num_readers > len(self.num_stories):
            raise ValueError(
                f"{self.folder} has {len(self.num_stories)} shards for {num_readers} readers ({num_ranks} processes x "
                f"{num_workers} workers): write it with fewer stories a shard, or use fewer workers"
            )

    def dealt(self, reader: int, num_readers: int, order: tuple[int, int] | None) -> list[int]:
        """The shards of a reader, in the order of (seed, epoch) or as written."""
        number = len(self.num_stories)
        shards = np.arange(number) if order is None else np.random.default_rng(order).permutation(number)
        return shards[reader::num_readers].tolist()

    def rows(self, shards: list[int], order: tuple[int, int] | None) -> Iterator[Row]:
        """Stories of shards: in the order of (seed, epoch), which also draws frames, or as written and evaluated."""
        if order is None:
            return self._rows(shards, order)
        draws = random.Random(f"{order[0]} {order[1]}")
        return _webdataset().shuffle(self.buffer, self.buffer, rng=draws)(self._rows(shards, order))

    def _rows(self, shards: list[int], order: tuple[int, int] | None) -> Iterator[Row]:
        for shard in shards:
            path, number = self.folder / shard_name(shard), 0
            try:
                for key, sample in self._samples(path):
                    draw = None if order is None else np.random.default_rng([*order, int(key)])
                    yield self.row(sample, draw)
                    number += 1
            except (tarfile.TarError, ValueError, LookupError, EOFError) as error:
                raise ValueError(f"{path} is damaged after {number} stories, {error}: copy it again") from error
            if number != self.num_stories[shard]:
                raise ValueError(f"{path} has {number} of {self.num_stories[shard]} stories: copy it again")

    def _samples(self, path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Each story's key, and its files by the names of columns; other files are ignored."""
        tariterators = _webdataset().tariterators
        names = {f"{name}.npy" for name in ("codes", *self.columns)}
        with path.open("rb") as stream:
            if stream.read(len(max(COMPRESSED, key=len))).startswith(COMPRESSED):
                raise ValueError("it is compressed, as no shard is")  # a few bytes may unpack to any number
            stream.seek(0)
            files = tariterators.tar_file_expander(
                [{"url": path.name, "stream": stream}], select_files=lambda name: name.partition(".")[2] in names
            )
            for sample in tariterators.group_by_keys(files, lcase=False):
                key = sample["__key__"]
                yield key, {name: content for name, content in sample.items() if isinstance(content, bytes)}

    def row(self, sample: Mapping[str, bytes], draw: np.random.Generator | None) -> Row:
        """One story, with frames as ``CachedStories.row`` chooses them."""
        arrays = {name: array_of(sample[f"{name}.npy"]) for name in self.columns}
        if (codes := array_of(sample["codes.npy"])).shape[1:] != (self.num_codes,):
            raise ValueError(f"codes of shape {codes.shape} are not {self.num_codes} a frame")

        row: Row = {"codes": codes[chosen_frames(arrays.pop("shots"), draw)]}
        for name, array in arrays.items():
            row[name] = codes[chosen_frames(array, draw)][0] if name.startswith("probe_") else array
        return row


class ShardBatches(IterableDataset[EncodedStories]):
    """Batches of process ``rank`` of ``num_ranks``, divided among the workers of its loader.

    With ``seed`` the stories are shuffled and their frames drawn; without it they keep their order, with the frames of
    evaluation. A batch may reach over the end of an epoch; only the very last one is smaller. ``start`` is the number
    of batches that this process has read, with the same number of processes and workers: it continues exactly there.
    """

    def __init__(
        self,
        shards: StoryShards,
        batch_size: int,
        seed: int | None = None,
        epochs: range = range(1),
        start: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.shards, self.batch_size, self.seed, self.epochs, self.start = shards, batch_size, seed, epochs, start
        self.rank, self.num_ranks = rank, num_ranks

    def __iter__(self) -> Iterator[EncodedStories]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        self.shards.check_readers(self.num_ranks, num_workers)
        for batch in self.rows_of(worker, num_workers):
            yield collate(batch, self.shards.pad_id)

    def rows_of(self, worker: int, num_workers: int) -> Iterator[list[Row]]:
        """The batches of a worker, as the rows of their stories."""
        # A loader's first batch is worker 0's: on resuming, that one takes the part of the worker whose turn it was.
        part = (worker + self.start) % num_workers
        skip = len(range(part, self.start, num_workers)) * self.batch_size
        rows = self._rows(self.rank + self.num_ranks * part, self.num_ranks * num_workers, skip)
        while batch := list(islice(rows, self.batch_size)):
            yield batch

    def _rows(self, reader: int, num_readers: int, skip: int) -> Iterator[Row]:
        """A reader's stories from number ``skip`` on; files of skipped epochs are not opened."""
        for epoch in self.epochs:
            order = None if self.seed is None else (self.seed, epoch)
            dealt = self.shards.dealt(reader, num_readers, order)
            number = int(self.shards.num_stories[dealt].sum())
            if skip < number:
                yield from islice(self.shards.rows(dealt, order), skip, None)
            skip = max(0, skip - number)


class Share(TypedDict, total=False):
    """The options of ``ShardBatches``."""

    seed: int | None
    epochs: range
    start: int
    rank: int
    num_ranks: int


def shard_loader(shards: StoryShards, batch_size: int, num_workers: int = 0, **options: Unpack[Share]) -> DataLoader:
    """A loader of ``ShardBatches``; ``rank`` defaults to that of the environment or of torch.

    The rank is found here, because a spawned worker does not know it and would read the stories of every process.
    """
    if "rank" not in options:
        options["rank"], options["num_ranks"], *_ = _webdataset().utils.pytorch_worker_info()
    batches = ShardBatches(shards, batch_size, **options)
    shards.check_readers(batches.num_ranks, max(1, num_workers))
    return DataLoader(batches, batch_size=None, num_workers=num_workers)


class ShardedStoryCodes(StepData):
    """Encoded stories for training on several machines, from folders that ``write_shards`` made.

    Each process trains on its share of ``train``, epoch after epoch, and validates on all of ``val``. A resumed run
    continues exactly where it was if it has the same number of processes and workers; it reads the stories that it
    skips in the current epoch.
    """

    def __init__(
        self,
        train: str | Path,
        val: str | Path,
        image_tokenizer: ImageTokenizer,
        caption_tokenizer: TextTokenizer,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        buffer: int = 1000,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.train, self.val, self.buffer = user_path(train), user_path(val), buffer
        self.hashes = encoding_hash(image_tokenizer), caption_tokenizer.fingerprint

    def counted_in(self) -> dict[str, int]:
        num_ranks = self.trainer.world_size if self.trainer else 1
        return {"stories a batch": self.batch_size, "processes": num_ranks, "workers": self.num_workers}

    def train_dataloader(self) -> DataLoader:
        options: Share = {"seed": self.seed, "epochs": ENDLESS, "start": self.start}
        if self.trainer:
            options |= {"rank": self.trainer.global_rank, "num_ranks": self.trainer.world_size}
        shards = StoryShards(self.train, *self.hashes, buffer=self.buffer)
        return shard_loader(shards, self.batch_size, self.num_workers, **options)

    def val_dataloader(self) -> DataLoader:
        return shard_loader(StoryShards(self.val, *self.hashes), self.batch_size, rank=0, num_ranks=1)


def _webdataset() -> Any:  # without types
    try:
        import webdataset
    except ImportError as error:
        raise ValueError('shards need the package webdataset: pip install "storydalle[data]"') from error
    return webdataset
