"""Configs of runs from before modules moved: every name of ours in them is found where it lies now."""

import re
from pkgutil import resolve_name

import pytest

from storydalle.training.moved import NAMES, with_names_of_today


def test_targets_of_an_earlier_config_are_those_of_today() -> None:
    earlier = {
        "system": {"_target_": "storydalle.systems.image_tokenizer.ImageTokenizer", "clip": 1.0},
        "data": {"train": [{"_target_": "storydalle.stories.pororo.PororoSV", "root": "storydalle"}]},
        "warp": {"_target_": "hydra.utils.get_method", "path": "storydalle.metrics.label_reader_training.roughened"},
    }
    assert with_names_of_today(earlier) == {
        "system": {"_target_": "storydalle.training.tokenizer_training.ImageTokenizerTraining", "clip": 1.0},
        "data": {"train": [{"_target_": "storydalle.stories.sets.pororo.PororoSV", "root": "storydalle"}]},
        "warp": {
            "_target_": "hydra.utils.get_method",
            "path": "storydalle.metrics.networks.label_reader_training.roughened",
        },
    }


def test_targets_of_todays_names_stay_as_they_are() -> None:
    for name in ("storydalle.tokens.cache.StoryCodes", "storydalle.stories.toon.ToonSV", "pytorch_lightning.Trainer"):
        assert with_names_of_today({"_target_": name}) == {"_target_": name}


@pytest.mark.parametrize("name", NAMES.values())
def test_every_new_name_of_what_moved_is_found(name: str) -> None:
    found = resolve_name(f"storydalle.{name}")
    assert isinstance(found, type) or re.fullmatch(rf"storydalle\.{re.escape(name)}", found.__name__)
