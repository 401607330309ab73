"""A network remembers its settings in one way: a frozen dataclass, whose fields are the keys of config.json."""

import inspect
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from storydalle.configured import Configured
from storydalle.metrics.networks.character_classifier import SmallNetwork
from storydalle.metrics.networks.clip import TinyCLIP
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_gan.caption_encoder import SmallCaptionEncoder
from storydalle.models.story_gan.model import StoryGANc
from storydalle.models.zoo import zoo_folder
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.dvae import DVAE
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN

IMAGES = {"resolution": 16, "ch": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "norm_groups": 4}


def words() -> CaptionTokenizer:
    return CaptionTokenizer.train(["a b"], 80, text_length=8)


def encoder() -> SmallCaptionEncoder:
    return SmallCaptionEncoder(words(), dim=8, depth=1, num_heads=2)


def backbone() -> DALLE:
    return DALLE(dim=8, depth=3, num_heads=2)


MAKERS: dict[str, tuple[Callable[..., Configured], dict]] = {
    "vqgan": (VQGAN, IMAGES),
    "dvae": (DVAE, {"hidden": 8}),
    "paired": (PairedTokenizer, {"tokenizer": IMAGES, "detokenizer": {**IMAGES, "pixel_range": [0, 1]}}),
    "dalle": (DALLE, {"dim": 8, "depth": 1, "num_heads": 2}),
    "mega": (MegaDALLE, {"dim": 8, "glu_dim": 8, "depth": 1, "num_heads": 2}),
    "retrofit": (lambda **settings: RetrofittedDALLE(backbone(), **settings), {"source_blocks": "third"}),
    "label reader": (LabelReader, {"dims": [8, 8]}),
    "clip": (lambda **settings: TinyCLIP(words(), **settings), {"dims": [8, 8]}),
    "classifier": (SmallNetwork, {"num_classes": 3}),
    "captions": (lambda **settings: SmallCaptionEncoder(words(), **settings), {"dim": 8}),
    "gan": (lambda **settings: StoryGANc(encoder(), **settings), {"generator": {"dim": 32}, "resolution": 32}),
}


def own_settings(network: Configured) -> dict:
    return {key: value for key, value in network.config.items() if key != "kind"}


@pytest.mark.parametrize("what", MAKERS)
def test_a_network_is_built_again_of_its_config(what: str) -> None:
    make, settings = MAKERS[what]
    with torch.device("meta"):
        network = make(**settings)
        again = make(**json.loads(json.dumps(own_settings(network))))
    assert again.settings == network.settings and again.config == network.config
    assert [field.name for field in fields(network.settings)] == list(own_settings(network))


@pytest.mark.parametrize("what", MAKERS)
def test_an_unknown_setting_is_refused_by_name(what: str) -> None:
    make, settings = MAKERS[what]
    with torch.device("meta"), pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        make(**settings, colour="red")


@pytest.mark.parametrize("what", [what for what in MAKERS if what not in ("classifier", "paired")])
def test_a_setting_of_another_kind_is_refused_by_name(what: str) -> None:
    make, settings = MAKERS[what]
    with torch.device("meta"):
        name, value = next((key, each) for key, each in own_settings(make(**settings)).items() if type(each) is int)
        with pytest.raises(ValueError, match=f"{name}="):
            make(**{**settings, name: str(value)})


def test_a_needed_setting_that_is_missing_is_named() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'num_classes'"):
        SmallNetwork()


def test_a_signature_tells_what_a_network_takes() -> None:
    parameters = inspect.signature(DALLE).parameters
    assert list(parameters) == [field.name for field in fields(DALLE.__annotations__["settings"])]
    assert parameters["depth"].default == 42
    assert list(inspect.signature(StoryGANc).parameters)[:2] == ["caption_encoder", "num_characters"]


def test_settings_of_a_network_cannot_be_changed_afterwards() -> None:
    with torch.device("meta"):
        network = DALLE(dim=8, depth=1, num_heads=2)
    with pytest.raises(FrozenInstanceError):
        network.settings.dim = 16  # type: ignore[misc]
    network.config["dim"] = 16
    assert network.config["dim"] == 8


def test_configs_that_ship_are_written_again_to_the_byte() -> None:
    for name, network in (("clip", TinyCLIP), ("label_reader2", LabelReader)):
        text = (zoo_folder() / name / "config.json").read_text()
        opened = network.from_pretrained(zoo_folder() / name)
        kind = {"model_type": "tiny_clip"} if name == "clip" else {}
        assert json.dumps(kind | opened.config, indent=2) + "\n" == text
    story_gan = StoryGANc.open_folder(zoo_folder() / "storyganc")
    config = {"model_type": "storyganc", "caption_encoder": story_gan.caption_encoder.config, **story_gan.config}
    assert json.dumps(config, indent=2) + "\n" == (zoo_folder() / "storyganc" / "config.json").read_text()


def test_older_configs_that_ship_keep_their_keys_and_their_order() -> None:
    """Settings that came later are added, each with the value that networks had before."""
    reader = json.loads((zoo_folder() / "label_reader" / "config.json").read_text())
    written = LabelReader.from_pretrained(zoo_folder() / "label_reader").config
    assert list(written)[: len(reader)] == list(reader) and {key: written[key] for key in reader} == reader
    shipped = json.loads((zoo_folder() / "story_dalle" / "config.json").read_text())
    written = StoryDALLE.open_folder(zoo_folder() / "story_dalle").description()
    for part, settings in shipped.items():
        assert [key for key in written[part] if key in settings] == list(settings)
        assert {key: written[part][key] for key in settings} == settings
