"""Single frames with their texts, for training networks that compare pictures with captions."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.stories.data import BatchDataset, StepData
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Stories, Story
from storydalle.tokens.caption_tokenizer import TextTokenizer


class CaptionedFrames(NamedTuple):
    """Frames of a batch, sources included, in [-1, 1], and the tokens of two texts of each.

    A description says everything about one frame; a caption continues a story. The source has no caption, so its
    description is used for both.
    """

    images: Float[Tensor, "n c h w"]
    descriptions: Int[Tensor, "n t"]
    captions: Int[Tensor, "n t"]


class CaptionedStories(StepData):
    """All frames of ``batch_size`` stories a step, drawn or read when they are needed.

    The frames of one story share cast, light and place, so they are the best negatives for each other.
    """

    def __init__(
        self,
        train: Stories,
        val: Stories,
        caption_tokenizer: TextTokenizer,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.train, self.val, self.caption_tokenizer = train, val, caption_tokenizer

    def training_set(self) -> BatchDataset:
        return BatchDataset(CaptionedBatches(self.train, self.caption_tokenizer), np.ones(len(self.train)))

    def validation_set(self) -> BatchDataset:
        return BatchDataset(CaptionedBatches(self.val, self.caption_tokenizer), np.ones(len(self.val)))


@dataclass(frozen=True)
class CaptionedBatches:
    """Reads all frames of stories with their texts."""

    stories: Stories
    caption_tokenizer: TextTokenizer

    def __call__(self, indices: list[int], _: int | None) -> CaptionedFrames:
        told: list[Story] = [self.stories[index] for index in indices]
        for story in told:
            if not story.descriptions:
                raise ValueError(f"story {story.id} has no descriptions of its frames: train on a data set that has")
        images = np.concatenate([pixels for story in told for pixels in (story.source[None], story.frames)])
        descriptions = [text for story in told for text in story.descriptions]
        captions = [text for story in told for text in (story.descriptions[0], *story.captions)]
        return CaptionedFrames(
            to_tensor(torch.from_numpy(images)),
            self.caption_tokenizer.encode(descriptions).tokens,
            self.caption_tokenizer.encode(captions).tokens,
        )
