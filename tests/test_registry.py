"""Each word by which files and configs name a class names one class."""

import pytest

from storydalle.files.registry import Registry
from storydalle.metrics.networks.clip import IMAGE_TEXT_NETWORKS
from storydalle.models.backbones.backbone import BACKBONES, Backbone
from storydalle.models.kinds import MODELS
from storydalle.models.story_gan.caption_encoder import CAPTION_ENCODERS, CaptionEncoder
from storydalle.tokens.caption_tokenizer import CAPTION_TOKENIZERS, TextTokenizer
from storydalle.tokens.image_tokenizer import IMAGE_TOKENIZERS, ImageTokenizer

REGISTRIES = (BACKBONES, CAPTION_ENCODERS, CAPTION_TOKENIZERS, IMAGE_TOKENIZERS, IMAGE_TEXT_NETWORKS, MODELS)
KINDS = [(registry, kind) for registry in REGISTRIES for kind in registry]
BASES = [
    (BACKBONES, Backbone),
    (CAPTION_ENCODERS, CaptionEncoder),
    (CAPTION_TOKENIZERS, TextTokenizer),
    (IMAGE_TOKENIZERS, ImageTokenizer),
]


@pytest.mark.parametrize(("registry", "kind"), KINDS)
def test_every_name_opens_a_class(registry: Registry, kind: str) -> None:
    assert registry.classes[kind].endswith(f".{registry.named(kind).__name__}")


@pytest.mark.parametrize(("registry", "base"), BASES)
def test_a_class_writes_the_name_that_it_is_opened_by(registry: Registry, base: type) -> None:
    for kind in registry:
        found = registry.named(kind)
        assert issubclass(found, base) and found.kind == kind


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("kind", ["unheard of", 7, None, ["vqgan"]])
def test_an_unknown_name_is_refused_with_those_that_are_known(registry: Registry, kind: object) -> None:
    with pytest.raises(ValueError, match=f"is none of {', '.join(registry)}") as caught:
        registry.split({registry.key: kind})
    assert repr(kind) in str(caught.value)


def test_a_config_without_a_name_is_of_the_first_kind_that_there_was() -> None:
    assert [registry.unnamed for registry in REGISTRIES] == ["dalle", None, "words", "vqgan", None, "story_dalle"]
    found, settings = BACKBONES.split({"dim": 8})
    assert found is BACKBONES.named("dalle") and settings == {"dim": 8}
    with pytest.raises(KeyError):
        CAPTION_ENCODERS.split({"dim": 8})
