"""Tiny trainings that run the same in one process and in two: what each logs and what it ends with."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.multiprocessing as mp
from torch import Tensor

from storydalle.stories.data import Frames, WholeStories
from storydalle.tokens.cache import StoryCodes
from storydalle.tokens.dvae import DVAE
from storydalle.training.dvae_training import DVAETraining
from storydalle.training.story_dalle_training import StoryDALLETraining
from storydalle.training.story_gan_training import StoryGANTraining
from storydalle.training.text_to_image_training import TextToImageTraining
from storydalle.training.tokenizer_training import ImageTokenizerTraining
from tests.tiny import TinyStories, tiny_story_dalle, trainer
from tests.tiny_gan import ShapeStories, tiny_story_gan

BATCH = 4  # of a step, whatever the number of processes


class Curve(pl.Callback):
    """Every number that is logged, step by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def codes(made: Any, folder: Path, batch_size: int) -> StoryCodes:
    """Stories of several lengths, of clips of which a frame is drawn."""
    stories = TinyStories(14, lengths=(1, 3, 2), clip_frames=(1, 4))
    return StoryCodes(stories, stories, made.image_tokenizer, made.caption_tokenizer, folder / "cache", batch_size)


def image_tokenizer(
    folder: Path, batch_size: int, steps: int, restart_below: float = 0.3
) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """Quantised after a few steps, with a codebook of which many codes die."""
    system = ImageTokenizerTraining(
        tiny_story_dalle().image_tokenizer,
        max_steps=steps,
        steps_without_quantization=3,
        restart_below=restart_below,
        codebook_decay=0.5,
        edge_emphasis=2.0,
    )
    stories = TinyStories(14)
    return system, Frames(stories, stories, batch_size, frames_per_story=2)


def dvae(folder: Path, batch_size: int, steps: int) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """With codes in shares, drawn at random."""
    model = DVAE(12, hidden=8, num_groups=2, blocks_per_group=1, codebook_size=12, embed_dim=6, pixel_shuffle=2)
    stories = TinyStories(14)
    system = DVAETraining(model, learning_rate=1e-3, warmup_steps=2, max_steps=steps)
    return system, Frames(stories, stories, batch_size, frames_per_story=2)


def text_to_image(folder: Path, batch_size: int, steps: int) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    made = tiny_story_dalle()
    return TextToImageTraining(made, max_steps=steps, warmup_steps=2, frames_per_story=2), codes(
        made, folder, batch_size
    )


def story_dalle(folder: Path, batch_size: int, steps: int) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """With everything that is drawn at random, and steps in which only a part trains."""
    made = tiny_story_dalle(num_prompt_tokens=1)
    options = {"story_warmup_steps": 3, "source_dropout": 0.3, "caption_dropout": 0.3}
    return StoryDALLETraining(made, max_steps=steps, warmup_steps=2, **options), codes(made, folder, batch_size)


def storyganc(folder: Path, batch_size: int, steps: int) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """With everything that may be switched on, on stories of several lengths."""
    system = StoryGANTraining(
        tiny_story_gan(),
        max_steps=steps,
        reconstruction_weight=5.0,
        order_weight=0.5,
        word_weight=0.5,
        r1_weight=0.1,
        r1_every=2,
        augmentation=("color", "translation", "cutout"),
        adversarial_start=2,
        clip=1.0,
    )
    stories = ShapeStories(14, lengths=(3, 1, 2))
    return system, WholeStories(stories, stories, batch_size)


SYSTEMS: dict[str, Callable[..., Any]] = {
    "image_tokenizer": image_tokenizer,
    "dvae": dvae,
    "text_to_image": text_to_image,
    "story_dalle": story_dalle,
    "storyganc": storyganc,
}


def train(
    name: str, folder: Path, steps: int, num_ranks: int = 1, strategy: Any = "auto", **options: Any
) -> dict[str, Any]:
    """The curve of a training in this process, one of ``num_ranks``, and the weights that it ends with."""
    curve = Curve()
    torch.manual_seed(0)
    system, data = SYSTEMS[name](folder, BATCH // num_ranks, steps, **options)
    plain = {"log_every_n_steps": 1, "use_distributed_sampler": False}
    fitting = trainer(folder, steps, [curve], devices=num_ranks, strategy=strategy, **plain)
    fitting.fit(system, data)
    state: dict[str, Tensor] = {key: value.clone() for key, value in system.state_dict().items()}
    return {"curve": curve.steps, "state": state}


def one_of_two(rank: int, port: int, names: list[str], folder: Path, steps: int, strategy: Any) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    for name in names:
        result = train(name, folder, steps, 2, strategy=strategy if isinstance(strategy, str) else strategy())
        torch.save(result, folder / f"{name}-{rank}.pt")


def in_two_processes(names: list[str], folder: Path, steps: int, strategy: Any) -> dict[str, list[dict[str, Any]]]:
    """The results of both processes, by the names of the systems, which are trained one after the other.

    ``strategy`` is a name of Lightning's, or what makes one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(one_of_two, (port, names, folder, steps, strategy), nprocs=2)
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)] for name in names}


def largest_difference(one: list[dict[str, float]], two: list[dict[str, float]]) -> float:
    """Of all numbers that both log at a step."""
    assert len(one) == len(two) and all(first.keys() == second.keys() for first, second in zip(one, two, strict=True))
    return max(abs(first[key] - second[key]) for first, second in zip(one, two, strict=True) for key in first)
