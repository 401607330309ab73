"""A model that holds nan or infinity is neither written nor opened: the message names the tensor."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from storydalle.metrics.networks.character_classifier import CharacterClassifier, SmallNetwork
from storydalle.metrics.networks.clip import TinyCLIP
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_gan.model import StoryGANc
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from tests.tiny import CAPTIONS, tiny_story_dalle
from tests.tiny_gan import tiny_story_gan


def small_clip() -> TinyCLIP:
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=60, text_length=16)
    return TinyCLIP(captions, 32, dims=(4, 4), text_dim=8, text_depth=1, text_heads=2, embedding_dim=8)


# What makes a model, and what opens its folder.
MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "story_dalle": (tiny_story_dalle, StoryDALLE),
    "storyganc": (tiny_story_gan, StoryGANc),
    "image_tokenizer": (lambda: tiny_story_dalle().image_tokenizer, ImageTokenizer),
    "clip": (small_clip, TinyCLIP),
    "label_reader": (lambda: LabelReader(16, dims=(8, 16)), LabelReader),
    "character_classifier": (
        lambda: CharacterClassifier(SmallNetwork(2, dims=(4, 4)), ["a", "b"], 64),
        CharacterClassifier,
    ),
}
EACH = pytest.mark.parametrize(("make", "kind"), MODELS.values(), ids=MODELS)
NUMBERS = pytest.mark.parametrize("number", [math.nan, -math.inf])


def spoil(model: nn.Module, number: float) -> str:
    """Put a number into the last parameter; its name."""
    name, parameter = list(model.named_parameters())[-1]
    with torch.no_grad():
        parameter.view(-1)[-1] = number
    return name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@EACH
def test_a_model_that_is_not_finite_is_not_saved_and_the_one_before_stays(
    make: Callable[[], Any], kind: Any, tmp_path: Path
) -> None:
    model = make()
    model.save_pretrained(tmp_path / "model")
    before = contents(tmp_path / "model")
    name = spoil(model, math.nan)
    with pytest.raises(ValueError, match=rf"{name.rpartition('.')[2]} is not finite"):
        model.save_pretrained(tmp_path / "model")
    assert contents(tmp_path / "model") == before


@EACH
@NUMBERS
def test_a_folder_whose_weights_are_not_finite_is_not_opened(
    make: Callable[[], Any], kind: Any, number: float, tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path)
    kind.from_pretrained(tmp_path)
    path = sorted(tmp_path.glob("*.safetensors"))[0]
    weights = load_file(path)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] = number
    save_file(weights, path)
    with pytest.raises(ValueError, match=rf"{path.name}.*{name} is not finite"):
        kind.from_pretrained(tmp_path)


def test_a_number_that_half_precision_cannot_hold_is_not_made_infinite(tmp_path: Path) -> None:
    model = tiny_story_dalle()
    name = spoil(model, 1e30)
    with pytest.raises(ValueError, match=rf"{name} is too large"):
        model.save_pretrained(tmp_path / "model")
    model.save_folder(tmp_path / "single", dtype=torch.float32)
    assert StoryDALLE.from_pretrained(tmp_path / "single").state_dict()[name].view(-1)[-1] == 1e30
