"""Tiny models and encoded stories for tests of training: made in milliseconds, no data set needed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from storydalle.backbones.dalle import DALLE
from storydalle.checkpoints.training_state import SafetensorsCheckpointIO
from storydalle.retrofit import retrofit
from storydalle.stories.data import BatchDataset, StepData
from storydalle.stories.story import Story
from storydalle.story_dalle import StoryDALLE
from storydalle.tokens.cache import EncodedStories
from storydalle.tokens.captions import CaptionTokenizer
from storydalle.tokens.vqgan import VQGAN

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


def tiny_stories(num_stories: int = 8, resolution: int = GRID * 4, seed: int = 0) -> list[Story]:
    rng = np.random.default_rng(seed)
    stories = []
    for i in range(num_stories):
        pixels = rng.integers(0, 256, (FRAMES + 1, resolution, resolution, 3), dtype=np.uint8)
        captions = [CAPTIONS[int(rng.integers(len(CAPTIONS)))] for _ in range(FRAMES + 1)]
        labels = {"mood": rng.integers(0, 2, (FRAMES,))}
        probes = {"other": 255 - pixels[0]}
        stories.append(Story(f"tiny/{i}", captions[1:], pixels[0], pixels[1:], labels, captions, probes))
    return stories


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


class TinyData(StepData):
    def __init__(self, story_dalle: StoryDALLE, batch_size: int = 2, num_items: int = 10) -> None:
        super().__init__(batch_size)
        self.dataset = BatchDataset(num_items, lambda indices: tiny_batch(story_dalle, indices))

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
