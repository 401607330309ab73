"""Fill ``storydalle/zoo/`` from finished runs: ``python -m storydalle.commands.fill_zoo`` (``make zoo`` runs it last).

Copies the newest models of toon/story_dalle, toon/text_to_image (without the image tokenizer that both share) and
toon/storyganc, and the networks that evaluation of ToonSV needs: the newest of toon/clip, and the label readers of both
versions, which are trained here. ``python -m storydalle.commands.fill_zoo --words`` only writes the words of the
models' captions, ``--reader NAME`` only trains that label reader.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from storydalle.commands.application import instantiate
from storydalle.files.paths import user_path
from storydalle.metrics.networks.clip_card import publish_clip
from storydalle.metrics.networks.label_reader import TOONSV2, LabelReader
from storydalle.metrics.networks.label_reader_training import make_label_reader
from storydalle.models.kinds import open_model
from storydalle.models.licences import part_of
from storydalle.models.pretrained import README_NAME
from storydalle.models.zoo import EXPERIMENTS, zoo_folder
from storydalle.stories.drawn_worlds import WORLDS
from storydalle.stories.toon import ToonSV
from storydalle.tokens.known_words import KnownWords
from storydalle.training.building import learn_words, model_folder

SAVED: dict[str, dict[str, object]] = {
    "story_dalle": {"is_tokenizer_rounded": True},  # the weights have to be small, and are scored as they ship
    "text_to_image": {"tokenizer_of": "../story_dalle"},
}
ABOUT = """
ToonSV (`data/toon/README.md`) is drawn by code: no picture of anybody's is in it. The model knows ToonSV's characters,
settings, actions and things; it draws anything else as that world allows.
"""
WORDS, READER = "--words", "--reader"


class ReaderRecipe(NamedTuple):
    """The training of a label reader, and what its card measures."""

    data: str  # the world that it reads
    settings: Mapping[str, object]
    num_stories: int
    resolution: int
    steps: int
    checks: tuple[str, ...]
    checked_at: tuple[int, ...]  # resolutions


READERS = {
    "label_reader": ReaderRecipe("toon", {}, 16000, 64, 2600, ("val", "test", "unseen"), (64, 128)),
    "label_reader2": ReaderRecipe("toon2", TOONSV2, 6000, 128, 3600, ("val", "test", "unseen", "misleading"), (128,)),
}
NUM_CHECKED = 200  # stories of each split that the card of clip scores


def publish(name: str, folder: Path, runs: Path) -> None:
    """Copy the newest model of an experiment into the zoo."""
    model = open_model(model_folder(EXPERIMENTS[name], runs))
    model.card |= {"license": "mit", "experiment": EXPERIMENTS[name]}
    shutil.rmtree(folder / name, ignore_errors=True)
    model.save_folder(folder / name, **SAVED.get(name, {}))
    with (folder / name / README_NAME).open("a") as readme:
        readme.write(ABOUT)


def write_words(folder: Path) -> None:
    """Write the words of the training captions beside each model of the zoo, from the stories that its card names.

    For weights from before words were kept: a training writes them itself.
    """
    read = KnownWords()
    for name, texts in (("text_to_image", "descriptions"), ("story_dalle", "captions"), ("storyganc", "captions")):
        model = open_model(folder / name)
        model.words = KnownWords() if name == "storyganc" else read
        learn_words(model, instantiate(part_of(part_of(model.card, "data"), "train")), texts)
        model.words.save(folder / name)
        read = model.words


def train_reader(folder: Path, recipe: ReaderRecipe) -> None:
    drawn = WORLDS[recipe.data].stories
    checks = {
        f"{split}/{resolution}": drawn(split, resolution=resolution)
        for split in recipe.checks
        for resolution in recipe.checked_at
    }
    stories = drawn("train", recipe.num_stories, resolution=recipe.resolution)
    torch.manual_seed(0)
    reader = LabelReader(**recipe.settings)
    with tqdm(total=recipe.steps, desc=f"training {folder.name}", disable=None) as bar:
        make_label_reader(
            folder, stories, checks, recipe.steps, reader=reader, progress=lambda step, losses: bar.update(1)
        )


def main(runs: str = "runs", name: str = "") -> None:
    if runs == WORDS:
        write_words(zoo_folder())
        return
    if runs == READER:
        train_reader(zoo_folder() / name, READERS[name])
        return
    torch.manual_seed(0)
    for name in EXPERIMENTS:
        publish(name, zoo_folder(), user_path(runs))
    checks = {split: ToonSV(split, NUM_CHECKED, resolution=64) for split in ("val", "test", "unseen")}
    publish_clip(model_folder("toon/clip", user_path(runs)).parent, zoo_folder() / "clip", checks)
    for reader, recipe in READERS.items():
        train_reader(zoo_folder() / reader, recipe)


if __name__ == "__main__":
    main(*sys.argv[1:])
