"""Batches for training: an order that is a function of (seed, step) alone, and frames drawn on the fly."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from storydalle.stories.images import to_tensor
from storydalle.stories.story import Stories, StoryBatch, batch_of


class Step(NamedTuple):
    """The items of a batch, and the training step that it is for; none in validation."""

    indices: list[int]
    number: int | None


class StepSampler:
    """Batches of indices without end: epoch after epoch, each in its own order, from step ``start`` on.

    The batch of a step depends on (seed, step) only, so a resumed run continues exactly where it was killed. If
    gradients are accumulated over several batches, each of these is a step here. Each of ``num_ranks`` processes reads
    its own ``batch_size`` items of a step. Items of different ``lengths`` are batched with items of about the same
    length: ``BUCKET_BATCHES`` batches at a time, in the epoch's order, are sorted by length and cut again.
    """

    BUCKET_BATCHES = 32

    def __init__(
        self, lengths: np.ndarray, batch_size: int, seed: int, start: int = 0, rank: int = 0, num_ranks: int = 1
    ) -> None:
        if len(lengths) < batch_size * num_ranks:
            raise ValueError(
                f"batch_size={batch_size} on {num_ranks} devices is larger than the data ({len(lengths)}); use fewer"
                if num_ranks > 1
                else f"batch_size={batch_size} is larger than the data ({len(lengths)}); use fewer"
            )
        self.lengths, self.batch_size, self.seed, self.start = lengths, batch_size, seed, start
        self.rank, self.num_ranks = rank, num_ranks

    def __iter__(self) -> Iterator[Step]:
        size = self.batch_size * self.num_ranks
        steps_per_epoch = len(self.lengths) // size
        step = self.start
        while True:
            epoch, position = divmod(step, steps_per_epoch)
            batches = self._epoch(epoch, steps_per_epoch, size)
            for i in range(position, steps_per_epoch):
                own = batches[i][self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
                yield Step(own.tolist(), step)
                step += 1

    def _epoch(self, epoch: int, num_batches: int, size: int) -> np.ndarray:
        """Every batch of an epoch, (num_batches, size); what does not fill a batch waits for the next epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.lengths))[: num_batches * size]
        if self.lengths.min() == self.lengths.max():
            return order.reshape(num_batches, size)
        bucket = size * self.BUCKET_BATCHES
        parts = [order[start : start + bucket] for start in range(0, len(order), bucket)]
        ordered = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
        return rng.permutation(ordered.reshape(num_batches, size))


class BatchDataset(Dataset):
    """A data set whose unit is a batch: ``read(indices, step)`` returns one, ready for the model.

    ``read`` must be picklable, with all that it holds: a worker process may be started by ``spawn``.
    """

    def __init__(self, read: Callable[[list[int], int | None], object], lengths: np.ndarray) -> None:
        self.read, self.lengths = read, lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, step: Step) -> object:
        return self.read(*step)


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
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = StepSampler(dataset.lengths, self.batch_size, self.seed, self.start, rank, num_ranks)
        # A batch is one item of the sampler here: collation has nothing left to do.
        return DataLoader(
            dataset, batch_size=None, sampler=sampler, num_workers=self.num_workers, persistent_workers=False
        )

    def val_dataloader(self) -> DataLoader:
        dataset = self.validation_set()
        indices = range(len(dataset))
        batches = [Step(list(indices[i : i + self.batch_size]), None) for i in range(0, len(dataset), self.batch_size)]
        return DataLoader(dataset, batch_size=None, sampler=batches)

    def counted_in(self) -> dict[str, int]:
        """The unit of the position in the data: positions of two runs compare only if these numbers are equal."""
        return {"stories a step": self.batch_size * (self.trainer.world_size if self.trainer else 1)}

    def state_dict(self) -> dict[str, object]:
        trainer = self.trainer
        start = trainer.global_step * trainer.accumulate_grad_batches if trainer else self.start
        return {"start": start, "counted_in": self.counted_in()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Continue from a saved position; ValueError, with both numbers, if it was counted in another unit."""
        own = self.counted_in()
        saved = state_dict.get("counted_in", own)
        assert isinstance(saved, dict)
        if saved != own:
            differing = [f"{name}: {saved.get(name)}, now {own[name]}" for name in own if own[name] != saved.get(name)]
            raise ValueError(
                f"the run would lose its place in the data ({', '.join(differing)}): resume with the batch_size, "
                "devices and workers that it began with, or start without resume=true"
            )
        start = state_dict["start"]
        assert isinstance(start, int)
        self.start = start


class Frames(StepData):
    """Single frames for an image tokenizer: some of each story's, source or target, chosen by (seed, index).

    A batch holds ``batch_size * frames_per_story`` frames: reading a story costs the same for one frame or several.
    """

    def __init__(
        self,
        train: Stories,
        val: Stories,
        batch_size: int,
        frames_per_story: int = 1,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.train, self.val, self.frames_per_story = train, val, frames_per_story

    def training_set(self) -> BatchDataset:
        return self._frames(self.train)

    def validation_set(self) -> BatchDataset:
        return self._frames(self.val)

    def _frames(self, stories: Stories) -> BatchDataset:
        return BatchDataset(FrameBatches(stories, self.frames_per_story, self.seed), np.ones(len(stories)))


@dataclass(frozen=True)
class FrameBatches:
    """Reads single frames in [-1, 1], (n, 3, h, w)."""

    stories: Stories
    frames_per_story: int
    seed: int

    def __call__(self, indices: list[int], _: int | None) -> Tensor:
        pictures: list[np.ndarray] = []
        for index in indices:
            rng = np.random.default_rng([self.seed, index])
            shots = self.stories.outline(index).shots
            chosen = [shots[i] for i in rng.permutation(len(shots))[: self.frames_per_story]]
            clips = {clip: self.stories.read(clip) for clip in dict.fromkeys(shot.clip for shot in chosen)}
            for shot in chosen:
                frames = clips[shot.clip]
                pictures.append(frames[rng.integers(len(frames)) if shot.frame is None else shot.frame])
        return to_tensor(torch.from_numpy(np.stack(pictures)))


class WholeStories(StepData):
    """Stories with their pictures, read when they are asked for.

    If a clip has several frames, training draws one of them each time, keyed by (seed, step, index).
    """

    def __init__(self, train: Stories, val: Stories, batch_size: int, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.train, self.val = train, val

    def training_set(self) -> BatchDataset:
        return BatchDataset(WholeStoryBatches(self.train, self.seed), self.train.story_lengths())

    def validation_set(self) -> BatchDataset:
        return BatchDataset(WholeStoryBatches(self.val, self.seed), self.val.story_lengths())


@dataclass(frozen=True)
class WholeStoryBatches:
    """Reads stories with their pictures; without a step the frames are those of evaluation."""

    stories: Stories
    seed: int

    def __call__(self, indices: list[int], step: int | None) -> StoryBatch:
        if step is None:
            return batch_of([self.stories[i] for i in indices])
        return batch_of([self.stories.drawn(i, np.random.default_rng([self.seed, step, i])) for i in indices])
