"""Single frames with the characters in them, from any story set that has such labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.stories.character_labels import character_names, labelled
from storydalle.stories.data import BatchDataset, StepData
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Outline, Shot, Stories, shown_frame

Augment = Callable[[Float[Tensor, "n c h w"], torch.Generator], Float[Tensor, "n c h w"]]


class LabelledPictures(NamedTuple):
    """A batch of frames, and who is in each."""

    images: Float[Tensor, "n c h w"]  # in [-1, 1]
    characters: Int[Tensor, "n k"]  # 0 or 1


class LabelledFrames(StepData):
    """Frames for a character classifier.

    In every step training draws ``frames_per_story`` frames of each story, source or targets, and for each any frame of
    its clip; half of them are mirrored, then ``augment(images, generator)`` is applied if given. All draws are
    functions of (seed, step). Validation sees every frame of each story, as every evaluation does.
    """

    def __init__(
        self,
        train: Stories,
        val: Stories,
        batch_size: int,
        frames_per_story: int = 1,
        mirror: bool = True,
        augment: Augment | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if (names := character_names(train)) != character_names(val):
            raise ValueError(f"train has the characters {', '.join(names)}, val {', '.join(character_names(val))}")
        self.train, self.val, self.frames_per_story = train, val, frames_per_story
        self.mirror, self.augment = mirror, augment
        self.labelled_train, self.labelled_val = labelled(train), labelled(val)

    def training_set(self) -> BatchDataset:
        draws = (self.frames_per_story, self.mirror, self.augment, self.seed)
        batches = LabelledTrainingBatches(self.train, self.labelled_train, *draws)
        return BatchDataset(batches, np.ones(len(self.labelled_train)))

    def validation_set(self) -> BatchDataset:
        batches = LabelledValidationBatches(self.val, self.labelled_val)
        return BatchDataset(batches, np.ones(len(self.labelled_val)))


@dataclass(frozen=True)
class LabelledTrainingBatches:
    """Reads some frames of each of the ``labelled`` stories."""

    stories: Stories
    labelled: list[int]
    frames_per_story: int
    mirror: bool
    augment: Augment | None
    seed: int

    def __call__(self, indices: list[int], step: int | None) -> LabelledPictures:
        rng = np.random.default_rng([self.seed, step or 0])
        pictures: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        for index in indices:
            outline = self.stories.outline(self.labelled[index])
            chosen = rng.permutation(len(outline.shots))[: self.frames_per_story]
            for frames, shot in clips_of(self.stories, [outline.shots[i] for i in chosen]):
                picture = frames[rng.integers(len(frames)) if shot.frame is None else shot.frame]
                pictures.append(picture[:, ::-1] if self.mirror and rng.random() < 0.5 else picture)
            rows.append(characters_of(outline)[chosen])
        images = to_tensor(torch.from_numpy(np.stack(pictures)))
        if self.augment is not None:
            images = self.augment(images, torch.Generator().manual_seed(int(rng.integers(2**63))))
        return LabelledPictures(images, torch.from_numpy(np.concatenate(rows)))


@dataclass(frozen=True)
class LabelledValidationBatches:
    """Reads every frame of each of the ``labelled`` stories."""

    stories: Stories
    labelled: list[int]

    def __call__(self, indices: list[int], _: int | None) -> LabelledPictures:
        outlines = [self.stories.outline(self.labelled[index]) for index in indices]
        pictures = [
            frames[shown_frame(shot, len(frames))]
            for outline in outlines
            for frames, shot in clips_of(self.stories, outline.shots)
        ]
        rows = np.concatenate([characters_of(outline) for outline in outlines])
        return LabelledPictures(to_tensor(torch.from_numpy(np.stack(pictures))), torch.from_numpy(rows))


def characters_of(outline: Outline) -> np.ndarray:
    """The characters of all frames, (f + 1, k), the source's first."""
    return np.concatenate([outline.labels["source_characters"][None], outline.labels["characters"]])


def clips_of(stories: Stories, shots: list[Shot]) -> list[tuple[np.ndarray, Shot]]:
    """Each shot with all frames of its clip, every clip read once."""
    clips = {clip: stories.read(clip) for clip in dict.fromkeys(shot.clip for shot in shots)}
    return [(clips[shot.clip], shot) for shot in shots]
