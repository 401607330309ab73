"""Tiny models and encoded stories for tests of training: made in milliseconds, no data set needed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.stories.data import BatchDataset, StepData
from storydalle.stories.pictures import ClipError
from storydalle.stories.story import Outline, Shot, Stories
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.tokens.encoding import digest_of
from storydalle.tokens.vqgan import VQGAN
from storydalle.training.state import SafetensorsCheckpointIO

CODEBOOK, GRID, FRAMES, TEXT = 24, 3, 3, 16
CAPTIONS = ["Pip waves.", "She jumps at the beach.", "Momo puts on a red hat and runs.", "They sleep."]


def tiny_story_dalle(seed: int = 0, resolution: int = GRID * 4, **options: Any) -> StoryDALLE:
    torch.manual_seed(seed)
    image_tokenizer = VQGAN(
        resolution=resolution,
        ch=8,
        ch_mult=(1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        z_channels=8,
        codebook_size=CODEBOOK,
        embed_dim=4,
        norm_groups=4,
        mid_attention=False,
        pixel_shuffle=resolution // GRID // 2,
    )
    torch.nn.init.normal_(image_tokenizer.quantize.embedding.weight, std=0.3)
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=60, text_length=TEXT)
    backbone = DALLE(captions.vocab_size, CODEBOOK, TEXT, GRID**2, dim=32, depth=2, num_heads=2, pad_id=captions.pad_id)
    return StoryDALLE(image_tokenizer, captions, retrofit(backbone, **options)).eval()


class TinyStories(Stories):
    """Random pictures; clip k has ``clip_frames[k % len]`` frames, and story i ``lengths[i % len]`` targets.

    Clips named in ``broken`` cannot be read; ``stamps`` says which have changed.
    """

    def __init__(
        self,
        num_stories: int = 8,
        seed: int = 0,
        resolution: int = GRID * 4,
        lengths: Sequence[int] = (FRAMES,),
        clip_frames: Sequence[int] = (1,),
    ) -> None:
        self.resolution = resolution
        self.num_stories, self.seed, self.lengths, self.clip_frames = num_stories, seed, lengths, clip_frames
        self.broken: set[str] = set()
        self.stamps: dict[str, str] = {}

    def __len__(self) -> int:
        return self.num_stories

    def outline(self, index: int) -> Outline:
        rng = np.random.default_rng([self.seed, index])
        num_targets = self.lengths[index % len(self.lengths)]
        captions = [CAPTIONS[int(rng.integers(len(CAPTIONS)))] for _ in range(num_targets + 1)]
        shots = [Shot(f"{index}/{i}") for i in range(num_targets + 1)]
        labels = {"mood": rng.integers(0, 2, (num_targets,)), "source_mood": np.array(index)}
        return Outline(f"tiny/{index}", captions[1:], shots, labels, captions, {"other": Shot(shots[1].clip, 0)})

    def read(self, clip: str) -> np.ndarray:
        if clip in self.broken:
            raise ClipError("missing")
        story, number = map(int, clip.split("/"))
        rng = np.random.default_rng([self.seed, story, number, len(self.stamps.get(clip, ""))])
        shape = (self.clip_frames[number % len(self.clip_frames)], self.resolution, self.resolution, 3)
        return rng.integers(0, 256, shape, dtype=np.uint8)

    def stamp(self, clip: str) -> str:
        return self.stamps.get(clip, "")

    def fingerprint(self) -> str:
        return digest_of(f"{self.num_stories} {self.seed} {self.lengths}")


def tiny_batch(story_dalle: StoryDALLE, indices: list[int]) -> EncodedStories:
    """Random codes with captions; a function of the indices."""
    rows = []
    for index in indices:
        rng = np.random.default_rng([7, index])
        captions = [CAPTIONS[int(rng.integers(len(CAPTIONS)))] for _ in range(FRAMES + 1)]
        codes = torch.from_numpy(rng.integers(0, CODEBOOK, (FRAMES + 1, GRID**2)))
        rows.append((story_dalle.caption_tokenizer.encode(captions).tokens, codes))
    descriptions = torch.stack([tokens for tokens, _ in rows])
    codes = torch.stack([codes for _, codes in rows])
    mask = torch.ones(len(indices), FRAMES, dtype=torch.bool)
    labels = {"mood": torch.ones(len(indices), FRAMES, dtype=torch.long)}
    probes = {"other": codes[:, 0].flip(1)}
    return EncodedStories(descriptions[:, 1:], descriptions, codes[:, 0], codes[:, 1:], mask, labels, probes)


def felt(names: Iterable[str]) -> set[str]:
    """Parameters whose gradient is more than rounding: the bias of keys adds one number to a whole row of a softmax."""
    return {name for name in names if not name.endswith("key.bias")}


class TinyData(StepData):
    def __init__(self, story_dalle: StoryDALLE, batch_size: int = 2, num_items: int = 10) -> None:
        super().__init__(batch_size)
        self.dataset = BatchDataset(lambda indices, _: tiny_batch(story_dalle, indices), np.ones(num_items))

    def training_set(self) -> BatchDataset:
        return self.dataset

    def validation_set(self) -> BatchDataset:
        return self.dataset


def trainer(folder: Path, max_steps: int, callbacks: list[Any] | None = None, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=callbacks or [],
        plugins=[SafetensorsCheckpointIO()],
        check_val_every_n_epoch=None,
        **{"limit_val_batches": 0, **options},
    )
