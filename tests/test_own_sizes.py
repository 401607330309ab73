"""Recipes for one's own stories: their sizes follow the number of pictures, and give way to what is given."""

from pathlib import Path
from typing import Any

import pytest

from storydalle.commands import main
from storydalle.files.conf import config_names
from storydalle.stories.own_sizes import sizes_told
from tests.test_configs import composed
from tests.test_folder import row, rows

RECIPES = [name for name in config_names("experiment") if name.startswith("folder/")]
GROWING = {
    "folder/image_tokenizer": ("max_steps", "tokenizer.image.codebook_size", "tokenizer.image.ch"),
    "folder/text_to_image": ("max_steps", "backbone.dim", "backbone.depth", "tokenizer.captions.vocab_size"),
    "folder/story_dalle": ("max_steps", "system.story_warmup_steps"),
    "folder/storyganc": ("max_steps", "network.generator.dim"),
}


def at(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = settings[name]
    return settings


def stories(root: Path, number: int, num_frames: int = 5) -> str:
    """A root of so many stories to train on, without their pictures; and one that is tested on."""
    own = (row(str(k), num_frames, split="train") for k in range(number))
    return f"data.root={rows(root / f'{number} of {num_frames}', *own, row('other', 30, split='test'))}"


def test_the_models_that_grow_are_those_with_a_recipe() -> None:
    assert sorted(GROWING) == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_sizes_grow_with_the_number_of_pictures(recipe: str, tmp_path: Path) -> None:
    few, some, many = (
        composed("train", f"experiment={recipe}", stories(tmp_path, *counts))
        for counts in ((12, 5), (20, 26), (25, 90))
    )
    assert [each["sized"]["pictures"] for each in (few, some, many)] == [60, 520, 2250]
    for key in GROWING[recipe]:
        assert at(few, key) < at(many, key) and at(few, key) <= at(some, key) <= at(many, key), key
    assert set(GROWING[recipe]) <= set(few["sized"]["settings"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_batch_is_never_larger_than_the_stories(recipe: str, tmp_path: Path) -> None:
    """Whole stories are batched, so that long ones do not fill the memory."""
    for number, num_frames in ((1, 2), (12, 5), (6, 40), (100, 5)):
        config = composed("train", f"experiment={recipe}", stories(tmp_path, number, num_frames))
        batch_size = config["data_module"]["batch_size"]
        assert 1 <= batch_size <= number
        assert batch_size == 1 or batch_size * num_frames <= 80


def test_every_picture_of_a_story_trains_the_image_tokenizer(tmp_path: Path) -> None:
    config = composed("train", "experiment=folder/image_tokenizer", stories(tmp_path, 3, 7))
    assert config["data_module"]["frames_per_story"] == 7


def test_what_is_given_takes_the_place_of_a_size_and_is_told(tmp_path: Path) -> None:
    root = stories(tmp_path, 12)
    given = ("max_steps=7", "tokenizer.image.codebook_size=99")
    config = composed("train", "experiment=folder/image_tokenizer", root, *given)
    assert config["max_steps"] == config["system"]["max_steps"] == config["trainer"]["max_steps"] == 7
    assert config["network"]["codebook_size"] == 99
    line = sizes_told(config, frozenset({"max_steps", "tokenizer.image.codebook_size"}))
    assert line == (
        "sized for 60 pictures in 12 stories of train: max_steps=7 (as given), data_module.batch_size=3, "
        "tokenizer.image.ch=32, tokenizer.image.codebook_size=99 (as given)"
    )


def test_a_group_that_is_given_takes_the_place_of_sizes(tmp_path: Path) -> None:
    root = stories(tmp_path, 12)
    config = composed("train", "experiment=folder/text_to_image", root, "backbone=tiny", "tokenizer=openstory")
    assert config["network"]["backbone"] == {"dim": 32, "depth": 2, "num_heads": 2}
    assert config["network"]["captions"]["vocab_size"] == 4000


@pytest.mark.parametrize(
    ("setting", "message"), [((), "data.root is not set"), (("data.root=nowhere",), "data.root=nowhere is no folder")]
)
def test_stories_that_cannot_be_counted_are_a_mistake_of_one_line(
    setting: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["storydalle"])
    assert main.main(["train", "experiment=folder/image_tokenizer", *setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
