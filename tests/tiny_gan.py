"""Tiny StoryGANs and stories of coloured shapes for tests: made in milliseconds."""

from typing import Any

import numpy as np
import torch

from storydalle.models.story_gan.caption_encoder import SmallCaptionEncoder
from storydalle.models.story_gan.model import StoryGANc
from storydalle.models.story_gan.story_encoder import Noise
from storydalle.stories.data import WholeStories
from storydalle.stories.story import Outline, Shot, Stories, StoryBatch, batch_of
from storydalle.tokens.caption_tokenizer import CaptionTokenizer

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
PLACES = {"left": slice(0, 8), "right": slice(8, 16)}
RESOLUTION = 16


class ShapeStories(Stories):
    """A square of some colour on the left or on the right; the ground is the source's. Who is there: the colours.

    Story i has ``lengths[i % len]`` targets.
    """

    def __init__(self, num_stories: int = 8, lengths: tuple[int, ...] = (3,), is_labelled: bool = True) -> None:
        self.resolution, self.num_stories, self.num_lengths, self.is_labelled = (
            RESOLUTION,
            num_stories,
            lengths,
            is_labelled,
        )

    def __len__(self) -> int:
        return self.num_stories

    def facts(self, index: int) -> tuple[int, list[tuple[int, int]]]:
        rng = np.random.default_rng([3, index])
        num_targets = self.num_lengths[index % len(self.num_lengths)]
        return int(rng.integers(256)), [(int(rng.integers(3)), int(rng.integers(2))) for _ in range(num_targets + 1)]

    def outline(self, index: int) -> Outline:
        _, frames = self.facts(index)
        captions = [f"a {list(COLORS)[color]} square on the {list(PLACES)[place]}" for color, place in frames]
        characters = np.eye(3, dtype=np.int64)[[color for color, _ in frames]]
        labels = {"characters": characters[1:], "source_characters": characters[0]} if self.is_labelled else {}
        return Outline(f"shapes/{index}", captions[1:], [Shot(str(index), i) for i in range(len(frames))], labels, [])

    def read(self, clip: str) -> np.ndarray:
        ground, frames = self.facts(int(clip))
        pictures = np.full((len(frames), RESOLUTION, RESOLUTION, 3), ground, np.uint8)
        for picture, (color, place) in zip(pictures, frames, strict=True):
            picture[4:12, list(PLACES.values())[place]] = list(COLORS.values())[color]
        return pictures

    def stamp(self, clip: str) -> str:
        return "drawn"

    def fingerprint(self) -> str:
        return f"{self.num_stories}{self.num_lengths}"


def tiny_story_gan(seed: int = 0, num_characters: int = 3, **options: Any) -> StoryGANc:
    """A network of each kind, some thousand parameters in all; ``options`` are those of ``StoryGANc``."""
    torch.manual_seed(seed)
    stories = ShapeStories(20)
    captions = [caption for i in range(20) for caption in stories.outline(i).captions]
    encoder = SmallCaptionEncoder(CaptionTokenizer.train(captions, 80, text_length=12), dim=16, depth=1, num_heads=2)
    networks: dict[str, Any] = {
        "story_encoder": {"sentence_dim": 12, "content_dim": 24, "noise_dim": 5},
        "generator": {"dim": 32, "attention_side": 8},
        "image_discriminator": {"dim": 8},
        "story_discriminator": {"dim": 8},
    }
    for name, value in options.items():
        networks[name] = networks[name] | value if name in networks else value
    return StoryGANc(encoder, num_characters, **({"resolution": RESOLUTION} | networks)).eval()


SETTLED: dict[str, dict[str, torch.Tensor]] = {}  # weights and statistics, by the options


def settled(seed: int = 0, **options: Any) -> StoryGANc:
    """A fresh network whose batch norms have seen frames, so that its pictures are not grey."""
    gan, batch, key = tiny_story_gan(seed, **options), shape_batch(6), repr((seed, options))
    if key not in SETTLED:
        gan.train()
        with torch.no_grad():
            for _ in range(30):
                noise = Noise(torch.randn(6, 24), torch.randn(6, 3, 5))
                gan.imagine(gan.caption_encoder(batch.captions), batch.source, noise, batch.mask)
        SETTLED[key] = {name: value.clone() for name, value in gan.state_dict().items()}
    gan.load_state_dict(SETTLED[key])
    torch.manual_seed(seed)  # as after any other call
    return gan.eval()


def shape_batch(num_stories: int = 4, lengths: tuple[int, ...] = (3,), is_labelled: bool = True) -> StoryBatch:
    stories = ShapeStories(num_stories, lengths, is_labelled)
    return batch_of([stories[i] for i in range(num_stories)])


def shape_data(batch_size: int = 4, num_stories: int = 10, **options: Any) -> WholeStories:
    stories = ShapeStories(num_stories, **options)
    return WholeStories(stories, stories, batch_size)
