"""How stories are divided among the processes of a large training and the workers of each: simulated, by the real code.

Stories are numbers here, and no file is read: it needs none of the machines.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storydalle.stories.data import StepSampler
from storydalle.tokens.encoded_stories import Row
from storydalle.tokens.shards import ENDLESS, ShardBatches, StoryShards

NUMBER = "number"  # the only column


class ManyDevices(NamedTuple):
    """A training on many devices."""

    num_stories: int = 1_000_000
    num_ranks: int = 64
    num_workers: int = 8  # of each process
    batch_size: int = 4  # of each process
    seed: int = 0
    stories_per_shard: int = 200
    epochs: int = 2
    compared: int = 50  # batches after a resumption


class Division(NamedTuple):
    """How often stories are read in an epoch, by all processes together, and what a resumed process reads."""

    once: int
    repeated: int
    left_out: int
    fewest: int  # stories of a process in an epoch
    most: int
    resumed: int  # processes
    differing: int  # of these, that did not read on where they were


class NumberedShards(StoryShards):
    """Shards of which only the numbers of their stories are known."""

    def __init__(self, num_stories: int, stories_per_shard: int, buffer: int = 1000) -> None:
        self.folder, self.buffer, self.columns, self.pad_id = Path("shards"), buffer, [NUMBER], 0
        self.starts = np.arange(0, num_stories, stories_per_shard)
        self.num_stories = np.diff(self.starts, append=num_stories)

    def _rows(self, shards: list[int], order: tuple[int, int] | None) -> Iterator[Row]:
        numbers = np.arange(len(self))
        for shard in shards:
            start = self.starts[shard]
            for index in range(start, start + self.num_stories[shard]):
                yield {NUMBER: numbers[index : index + 1]}


def read_by(batches: ShardBatches, num_workers: int) -> Iterator[list[int]]:
    """The stories of each batch, in the order in which a loader takes them from its workers: in turn."""
    workers = [batches.rows_of(worker, num_workers) for worker in range(num_workers)]
    for turn in chain.from_iterable(zip(*workers, strict=False)):
        yield [int(row[NUMBER][0]) for row in turn]


def split_of_shards(devices: ManyDevices) -> Division:
    """Check shards: each epoch of every reader, and every process resumed in the middle of a later epoch."""
    shards = NumberedShards(devices.num_stories, devices.stories_per_shard)
    shards.check_readers(devices.num_ranks, devices.num_workers)

    def batches(rank: int, epochs: range, start: int = 0) -> ShardBatches:
        return ShardBatches(shards, devices.batch_size, devices.seed, epochs, start, rank, devices.num_ranks)

    counts, of_ranks = np.zeros((devices.epochs, devices.num_stories), np.int64), []
    for epoch in range(devices.epochs):
        for rank in range(devices.num_ranks):
            reader = batches(rank, range(epoch, epoch + 1))
            parts = [reader.rows_of(worker, devices.num_workers) for worker in range(devices.num_workers)]
            own = np.array([row[NUMBER][0] for part in parts for batch in part for row in batch])
            np.add.at(counts[epoch], own, 1)
            of_ranks.append(len(own))
    start = devices.num_stories * 3 // 2 // (devices.num_ranks * devices.batch_size)
    differing = 0
    for rank in range(devices.num_ranks):
        whole = islice(read_by(batches(rank, ENDLESS), devices.num_workers), start, start + devices.compared)
        resumed = islice(read_by(batches(rank, ENDLESS, start), devices.num_workers), devices.compared)
        differing += list(whole) != list(resumed)
    return split_of(counts, of_ranks, devices, differing)


def split_of_cache(devices: ManyDevices) -> Division:
    """Check a cache, whose batches are cut from the order of all stories: its workers change nothing."""
    lengths = np.ones(devices.num_stories)

    def steps(rank: int, start: int) -> Iterator[list[int]]:
        sampler = StepSampler(lengths, devices.batch_size, devices.seed, start, rank, devices.num_ranks)
        return (step.indices for step in sampler)

    steps_per_epoch = devices.num_stories // (devices.num_ranks * devices.batch_size)
    counts = np.zeros((devices.epochs, devices.num_stories), np.int64)
    start, differing, of_ranks = steps_per_epoch * 3 // 2, 0, []
    for rank in range(devices.num_ranks):
        read = list(islice(steps(rank, 0), devices.epochs * steps_per_epoch + devices.compared))
        for epoch in range(devices.epochs):
            own = list(chain.from_iterable(read[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]))
            np.add.at(counts[epoch], own, 1)
            of_ranks.append(len(own))
        differing += list(islice(steps(rank, start), devices.compared)) != read[start : start + devices.compared]
    return split_of(counts, of_ranks, devices, differing)


def split_of(counts: np.ndarray, of_ranks: list[int], devices: ManyDevices, differing: int) -> Division:
    """The worst epoch: the one with most stories that were not read once."""
    times = [Counter(epoch.tolist()) for epoch in counts]
    worst = min(times, key=lambda found: found[1])
    repeated = devices.num_stories - worst[0] - worst[1]
    return Division(worst[1], repeated, worst[0], min(of_ranks), max(of_ranks), devices.num_ranks, differing)
