"""Folders of models whose settings are of any kind and size: refused by name, before memory is taken for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from storydalle.files.weights import described_by, write_tensors
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.models.pretrained import read_card
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.zoo import zoo_folder
from storydalle.tokens.image_tokenizer import ImageTokenizer
from tests.tiny import tiny_story_dalle
from tests.tiny_gan import tiny_story_gan


def changed(folder: Path, *keys: str, to: Any) -> None:
    """Put a value into the configuration of a folder."""
    config = json.loads((folder / "config.json").read_text())
    place = config
    for key in keys[:-1]:
        place = place[key]
    assert keys[-1] in place
    place[keys[-1]] = to
    (folder / "config.json").write_text(json.dumps(config))


def save_story_dalle(folder: Path) -> None:
    tiny_story_dalle().save_pretrained(folder)


def save_tokenizer(folder: Path) -> None:
    tiny_story_dalle().image_tokenizer.save_pretrained(folder)


MODELS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], tuple[str, ...], Any]] = {
    "a deep transformer": (save_story_dalle, StoryDALLE.open_folder, ("backbone", "depth"), 10**9),
    "a wide transformer": (save_story_dalle, StoryDALLE.open_folder, ("backbone", "dim"), 2**20),
    "a large tokenizer": (save_tokenizer, ImageTokenizer.from_pretrained, ("codebook_size",), 10**8),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_network_of_more_numbers_than_its_weights_is_not_built(tmp_path: Path, what: str) -> None:
    save, open_it, keys, value = MODELS[what]
    save(tmp_path)
    changed(tmp_path, *keys, to=value)
    with pytest.raises(ValueError, match=r"config\.json is .*more numbers than its weights hold"):
        open_it(tmp_path)


def test_what_is_built_inside_is_counted_as_it_is_built(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1000)})
    built = []
    refused = pytest.raises(ValueError, match=r"config\.json is nothing: it describes more numbers")
    with refused, described_by(tmp_path / "config.json", "is nothing", tmp_path / "x.safetensors"):
        while True:
            built.append(nn.Linear(1000, 1000, device="meta"))
    assert len(built) == 9, "10 million numbers beside those of the file"
    nn.Linear(10**4, 10**4, device="meta")  # outside nothing is counted


@pytest.mark.parametrize("error", [RuntimeError("x"), MemoryError(), IndexError("x"), KeyError("dim")])
def test_whatever_a_constructor_raises_is_told_of_the_settings(tmp_path: Path, error: Exception) -> None:
    refused = pytest.raises(ValueError, match=r"config\.json is no model: (it lacks 'dim'|x|\w+Error)")
    with refused, described_by(tmp_path / "config.json", "is no model"):
        raise error


CARDS: list[dict[str, Any]] = [
    {"sampling": []},
    {"sampling": "text"},
    {"tables": 5},
    {"tables": [1]},
    {"story_window": "4"},
    {"story_window": -1},
    {"reconstruction_error_p99": "0.1"},
    {"data": []},
]


@pytest.mark.parametrize("card", CARDS, ids=str)
def test_a_card_of_another_kind_is_named(tmp_path: Path, card: dict[str, Any]) -> None:
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=rf"card\.json is no card: {next(iter(card))}"):
        read_card(tmp_path)


@pytest.mark.parametrize("sampling", [{"top_k": 1.5}, {"unknown": 1}, {"temperature": None}, {"noise_scale": "loud"}])
@pytest.mark.parametrize("make", [tiny_story_dalle, tiny_story_gan])
def test_sampling_that_a_model_has_not_is_named_when_it_is_opened(
    tmp_path: Path, make: Callable[[], Any], sampling: dict[str, Any]
) -> None:
    made = make()
    made.save_pretrained(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({"sampling": sampling}))
    with pytest.raises(ValueError, match=r"card\.json is no card of a Story"):
        type(made).open_folder(tmp_path)


@pytest.mark.parametrize("name", ["story_dalle", "storyganc", "text_to_image"])
def test_cards_that_ship_are_cards(name: str) -> None:
    assert read_card(zoo_folder() / name)


def test_a_damaged_label_reader_is_a_value_error(tmp_path: Path) -> None:
    LabelReader(dims=(8, 8, 8, 8)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="label reader"):
        LabelReader.from_pretrained(tmp_path)
