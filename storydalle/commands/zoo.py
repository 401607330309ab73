"""Fills ``storydalle/zoo/`` from finished runs: ``python -m storydalle.commands.zoo`` (``make zoo`` runs it last).

Copies the newest models of toon/story_dalle and toon/text_to_image, the latter without the image tokenizer that both
share, and trains the label reader that evaluation reads pictures with.
"""

import shutil
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from storydalle.commands.building import model_folder
from storydalle.commands.models import zoo_folder
from storydalle.metrics.label_reader_training import make_label_reader
from storydalle.stories.toon import ToonSV
from storydalle.story_dalle import StoryDALLE

EXPERIMENTS = {"story_dalle": "toon/story_dalle", "text_to_image": "toon/text_to_image"}
READER_STEPS, READER_STORIES = 2600, 16000


def publish(name: str, folder: Path, runs: Path) -> None:
    """Copy the newest model of an experiment into the zoo."""
    model = StoryDALLE.from_pretrained(model_folder(EXPERIMENTS[name], runs))
    shutil.rmtree(folder / name, ignore_errors=True)
    model.save_folder(folder / name, tokenizer_of=None if name == "story_dalle" else "../story_dalle")


def train_reader(folder: Path) -> None:
    checks = {
        f"{split}/{resolution}": ToonSV(split, resolution=resolution)
        for split in ("val", "test", "unseen")
        for resolution in (64, 128)
    }
    stories = ToonSV("train", READER_STORIES, resolution=64)
    with tqdm(total=READER_STEPS, desc="training the label reader", disable=None) as bar:
        make_label_reader(folder, stories, checks, READER_STEPS, progress=lambda step, losses: bar.update(1))


def main(runs: str = "runs") -> None:
    torch.manual_seed(0)
    for name in EXPERIMENTS:
        publish(name, zoo_folder(), Path(runs))
    train_reader(zoo_folder() / "label_reader")


if __name__ == "__main__":
    main(*sys.argv[1:])
