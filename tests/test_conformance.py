"""Every model and backbone that ships is put through the conformance suite, and so are the released code's defects.

The released StoryDALL-E code's mistakes are planted one by one; the suite must see each of them.
"""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from storydalle import StoryDALLE
from storydalle.models.backbones.backbone import Backbone, Logits
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.pretrained import PretrainedModel
from storydalle.models.story_dalle import retrofit
from storydalle.models.story_dalle.retrofit import Conditions, RetrofittedDALLE
from storydalle.models.story_dalle.source_attention import SourceCrossAttention, SourceMemory
from tests import conformance, conformance_backbones, conformance_models
from tests.tiny import tiny_story_dalle
from tests.tiny_backbones import tiny_dalle, tiny_mega
from tests.tiny_gan import settled


def story_dalle(backbone: Callable[[Any], Backbone] | None = None) -> StoryDALLE:
    base = tiny_story_dalle(num_prompt_tokens=2)
    if backbone is not None:
        base = StoryDALLE(base.image_tokenizer, base.caption_tokenizer, retrofit.retrofit(backbone(base))).eval()
    conformance.awake(base.model)
    return base


def mega_for(base: StoryDALLE) -> MegaDALLE:
    words, codes = base.caption_tokenizer, base.image_tokenizer
    return MegaDALLE(
        words.vocab_size,
        codes.codebook_size,
        codes.codebook_size,
        words.text_length,
        codes.num_codes,
        dim=32,
        glu_dim=48,
        depth=2,
        num_heads=2,
        pad_id=words.pad_id,
        start_code=codes.codebook_size,
    )


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "dalle": tiny_dalle,
    "dalle that reads its padding": lambda: tiny_dalle(None),
    "mega": tiny_mega,
}
MODELS: dict[str, Callable[[], PretrainedModel]] = {
    "story_dalle": story_dalle,
    "story_dalle on mega": lambda: story_dalle(mega_for),
    "storyganc": settled,
}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("check", conformance.BACKBONE_CHECKS, ids=lambda check: check.__name__)
def test_every_backbone_conforms(check: Callable[..., None], backbone: str) -> None:
    check(BACKBONES[backbone])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("check", conformance.MODEL_CHECKS, ids=lambda check: check.__name__)
def test_every_model_conforms(check: Callable[..., None], model: str) -> None:
    check(MODELS[model])


# ----------------------------------------------------------------------------------------- the released code's defects


class Unregistered(RetrofittedDALLE):
    """Keeps the source attention in a plain container: no optimizer gets it, and no file."""

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        attention = dict(self.source_attention.items())
        del self.source_attention
        object.__setattr__(self, "source_attention", attention)


class SilentWhileDecoding(RetrofittedDALLE):
    """Multiplies the source attention by zero wherever a single code is decoded."""

    def hooks(self, conditions: Conditions, has_source: Tensor | None = None) -> Any:
        hooks = super().hooks(conditions, has_source)
        return None if hooks is None else [lambda x, hook=hook: hook(x) * (x.shape[1] > 1) for hook in hooks]


class MixedRows(SourceCrossAttention):
    """Takes keys and values from a context that is laid out the other way round: rows of a batch mix."""

    def remember(self, context: Tensor) -> SourceMemory:
        return super().remember(context.transpose(0, 1).reshape(context.shape))


class FirstCodeFromTheWrongPlace(DALLE):
    """Reads the first code where it would stand if nothing lay ahead of the caption."""

    num_ahead = 0

    def forward(
        self, tokens: Any, codes: Any = None, prefix: Any = None, hooks: Any = None, cache: Any = None
    ) -> Logits:
        if cache is None or prefix is None:
            return super().forward(tokens, codes, prefix, hooks, cache)
        self.num_ahead = prefix.shape[1]
        logits = super().forward(tokens, codes, prefix, hooks, cache)
        self.num_ahead = 0
        return logits._replace(image=logits.image[:, :1])

    def _embed(self, *parts: Any) -> Any:
        x, visible, first, targets = super()._embed(*parts)
        return x, visible, first - self.num_ahead, targets


def planted(monkeypatch: pytest.MonkeyPatch, name: str, defect: type) -> None:
    monkeypatch.setattr(retrofit, name, defect)


def refused_by(make: Callable[[], Any], *checks: Callable[..., None], **options: Any) -> None:
    for check in checks:
        with pytest.raises(AssertionError):
            check(make, **options)


def test_a_source_attention_that_is_neither_trained_nor_saved_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "RetrofittedDALLE", Unregistered)
    refused_by(
        tiny_dalle,
        conformance_backbones.every_weight_that_acts_is_trained,
        conformance_backbones.every_weight_that_acts_is_saved,
        source_start="random",
    )
    refused_by(tiny_dalle, conformance_backbones.the_source_changes_every_logit_of_its_own_story_alone)


def test_a_source_that_is_multiplied_by_zero_while_decoding_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "RetrofittedDALLE", SilentWhileDecoding)
    refused_by(
        tiny_dalle,
        conformance_backbones.source_and_story_act_at_the_first_and_at_the_last_step_of_decoding,
        conformance_backbones.greedy_codes_are_the_argmax_of_the_full_forward,
    )


def test_rows_of_a_batch_that_mix_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "SourceCrossAttention", MixedRows)
    refused_by(
        tiny_dalle,
        conformance_backbones.a_story_alone_equals_its_row_of_a_batch,
        conformance_backbones.the_source_changes_every_logit_of_its_own_story_alone,
    )
    refused_by(story_dalle, conformance_models.a_story_is_the_same_whatever_stands_beside_it)


def test_a_first_code_that_is_read_from_the_wrong_place_is_seen() -> None:
    refused_by(
        lambda: tiny_dalle(kind=FirstCodeFromTheWrongPlace),
        conformance_backbones.decoding_with_the_cache_equals_the_full_forward,
        conformance_backbones.greedy_codes_are_the_argmax_of_the_full_forward,
    )
