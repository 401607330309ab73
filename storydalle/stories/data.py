"""Batches for training: an order that is a function of (seed, step) alone, and frames drawn on the fly."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story


class StepSampler:
    """Batches of indices without end: epoch after epoch, each in its own order, from step ``start`` on.

    The batch of a step depends on (seed, step) only, so a resumed run reads on exactly where it was killed.
    """

    def __init__(self, num_items: int, batch_size: int, seed: int, start: int = 0) -> None:
        if num_items < batch_size:
            raise ValueError(f"batch_size={batch_size} is larger than the data ({num_items}); use fewer")
        self.num_items, self.batch_size, self.seed, self.start = num_items, batch_size, seed, start

    def __iter__(self) -> Iterator[list[int]]:
        steps_per_epoch = self.num_items // self.batch_size
        step = self.start
        while True:
            epoch, position = divmod(step, steps_per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_items)
            for i in range(position, steps_per_epoch):
                yield order[i * self.batch_size : (i + 1) * self.batch_size].tolist()
                step += 1


class BatchDataset(Dataset):
    """A data set whose unit is a batch: ``read(indices)`` returns one, ready for the model."""

    def __init__(self, num_items: int, read: Callable[[list[int]], Any]) -> None:
        self.num_items, self.read = num_items, read

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, indices: list[int]) -> Any:
        return self.read(indices)


def first_of(batch: Sequence[Any]) -> Any:
    (only,) = batch
    return only


class StepData(pl.LightningDataModule):
    """A data module whose training batches follow ``StepSampler`` and whose position is in the checkpoint.

    Subclasses provide ``training_set`` and ``validation_set``.
    """

    def __init__(self, batch_size: int, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.start = 0

    def training_set(self) -> BatchDataset:
        raise NotImplementedError

    def validation_set(self) -> BatchDataset:
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader:
        dataset = self.training_set()
        sampler = StepSampler(len(dataset), self.batch_size, self.seed, self.start)
        # A batch is one item of the sampler here: collation has nothing left to do.
        return DataLoader(
            dataset, batch_size=None, sampler=sampler, num_workers=self.num_workers, persistent_workers=False
        )

    def val_dataloader(self) -> DataLoader:
        dataset = self.validation_set()
        indices = range(len(dataset))
        batches = [list(indices[i : i + self.batch_size]) for i in range(0, len(dataset), self.batch_size)]
        return DataLoader(dataset, batch_size=None, sampler=batches)

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.trainer.global_step if self.trainer else self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start = state_dict["start"]


class Frames(StepData):
    """Single frames for an image tokenizer: some of each story's, source or target, chosen by (seed, index).

    A batch holds ``batch_size * frames_per_story`` frames: drawing a story costs the same however many are used.
    """

    def __init__(
        self,
        train: Sequence[Story],
        val: Sequence[Story],
        batch_size: int,
        frames_per_story: int = 1,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.train, self.val, self.frames_per_story = train, val, frames_per_story

    def training_set(self) -> BatchDataset:
        return BatchDataset(len(self.train), lambda indices: self._read(self.train, indices))

    def validation_set(self) -> BatchDataset:
        return BatchDataset(len(self.val), lambda indices: self._read(self.val, indices))

    def _read(self, stories: Sequence[Story], indices: list[int]) -> Tensor:
        pictures: list[np.ndarray] = []
        for index in indices:
            story = stories[index]
            frames = np.concatenate([story.source[None], story.frames])
            chosen = np.random.default_rng([self.seed, index]).permutation(len(frames))[: self.frames_per_story]
            pictures.extend(frames[chosen])
        return to_tensor(torch.from_numpy(np.stack(pictures)))
