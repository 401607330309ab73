"""evaluate: a reranker chooses each frame's candidate as it does in generate, before the next frame is drawn."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from storydalle import StoryDALLE
from storydalle.evaluation.entries import ModelEntry
from storydalle.evaluation.splits import Split
from storydalle.metrics.reranking import NearestToCaption
from storydalle.metrics.text_image import rerank
from storydalle.stories.images import from_images, to_pixels, to_tensor
from tests.test_story_dalle import CAPTIONS, awake, picture, pixels

SEED, NUM_CANDIDATES = 3, 4


class Taste:
    """An image-text network of arbitrary taste; it counts the captions that it was asked about."""

    name, sha256 = "taste", "0"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def projected(self, features: Tensor) -> Tensor:
        weights = torch.randn(features.shape[1], 5, generator=torch.Generator().manual_seed(0))
        return F.normalize(features @ weights, dim=1)

    def embed_images(self, images: Tensor) -> Tensor:
        return self.projected(self.features(images))

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        self.asked += captions
        return F.normalize(
            torch.tensor([[float(ord(letter)) - 100 for letter in each[:5]] for each in captions]), dim=1
        )


class Two(Split):
    """A split of stories as they are."""

    def __init__(self, stories: list[Any]) -> None:
        self.at = lambda _: stories  # type: ignore[assignment, misc]
        self.group = lambda start, stop, _: stories[start:stop]  # type: ignore[assignment, misc]


def entry_and_split(made: StoryDALLE, reranker: Taste | None) -> tuple[ModelEntry, Split]:
    """Two stories, the second one of two frames and with another source."""
    sources = [picture(made.resolution, made.resolution), picture(made.resolution, made.resolution).rotate(90)]
    told = [CAPTIONS, ["Lulu jumps.", "Pip sits."]]
    stories = [
        SimpleNamespace(captions=captions, source=np.asarray(source))
        for captions, source in zip(told, sources, strict=True)
    ]
    return ModelEntry("made", Path("made"), made, SEED, NUM_CANDIDATES, reranker), Two(stories)


def chosen_after(entry: ModelEntry, split: Split) -> Tensor:
    """The candidates nearest to their captions, of frames that were all drawn before."""
    stories = split.group(0, 2, None)
    sources = to_tensor(np.stack([story.source for story in stories]))
    drawn = entry.model.draw_stories([story.captions for story in stories], sources, SEED, 0, NUM_CANDIDATES)
    drawn = to_tensor(to_pixels(drawn))
    best = drawn[:, :, 0].clone()
    for row, story in enumerate(stories):
        for frame, caption in enumerate(story.captions):
            scores = rerank(Taste(), [caption], drawn[row, frame][:, None])
            best[row, frame] = drawn[row, frame, scores.argmax()]
    return best


def test_without_memory_the_choice_is_that_among_the_candidates_of_all_frames_to_the_bit() -> None:
    entry, split = entry_and_split(awake(), Taste())
    frames = entry.frames(split, 0, 2)
    assert torch.equal(frames, chosen_after(entry, split))
    plain, _ = entry_and_split(entry.model, None)
    assert not torch.equal(frames, plain.frames(split, 0, 2)), "the likeliest are others"


@pytest.mark.parametrize("memory", ["none", "last", "all"])
def test_the_frames_that_are_scored_are_those_that_generate_draws(memory: str) -> None:
    network = Taste()
    entry, split = entry_and_split(awake(memory=memory), network)
    frames = entry.frames(split, 0, 2)
    assert sorted(network.asked) == sorted([*CAPTIONS, "Lulu jumps.", "Pip sits."]), "once a frame, none after the end"

    def reranker(images: list[Image.Image], caption: str) -> Tensor:
        return rerank(Taste(), [caption], from_images(images, images[0].width)[:, None])

    source = Image.fromarray(split.group(0, 1, None)[0].source)
    drawn = entry.model.generate(CAPTIONS, source, NUM_CANDIDATES, SEED, reranker=reranker)
    assert [each.tobytes() for each in to_pixels(frames[0]).numpy()] == pixels(drawn.frames)
    is_as_after = torch.equal(frames, chosen_after(entry, split))
    assert is_as_after == (memory == "none"), "a frame remembers the one that was chosen"


def test_the_own_choice_of_a_model_with_memory_is_as_it_was() -> None:
    entry, split = entry_and_split(awake(memory="last"), None)
    stories = split.group(0, 2, None)
    sources = to_tensor(np.stack([story.source for story in stories]))
    drawn = entry.model.draw_stories([story.captions for story in stories], sources, SEED, 0, NUM_CANDIDATES)
    assert torch.equal(entry.frames(split, 0, 2), to_tensor(to_pixels(drawn[:, :, 0])))


def test_candidates_are_judged_as_pictures_of_8_bits() -> None:
    exact = torch.rand(1, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen: list[Tensor] = []

    class Watching(Taste):
        def embed_images(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().embed_images(images)

    NearestToCaption(Watching(), [["Pip waves."]]).choose(0, exact)
    assert torch.equal(torch.cat(seen)[:4], to_tensor(to_pixels(exact[0])))
