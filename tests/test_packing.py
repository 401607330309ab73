"""A packed view draws the codes of its model, leaves the model as it is, and packs only what may be packed."""

import copy

import pytest
import torch
from torch import nn

from storydalle.models import packing
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.packing import PackedLinear, decoding_view, is_half, picture_view
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt, Sampled, sample
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.tiny import tiny_story_dalle

FRAMES, PAD = 2, 0
SIZES = {"text_vocab_size": 20, "text_length": 6, "image_length": 16, "dim": 32, "num_heads": 4, "pad_id": PAD}
LAYERED = {"mega": {"glu_dim": 48, "image_vocab_size": 40, "num_codes": 32, "start_code": 32}}


def drawing_model(kind: str = "dalle", is_rounded: bool = True) -> RetrofittedDALLE:
    """Random weights, large enough for unequal logits; by default numbers of 16 bits, as in files."""
    torch.manual_seed(0)
    if kind == "dalle":
        backbone = DALLE(**SIZES, image_vocab_size=32, depth=3)
    else:
        backbone = MegaDALLE(**SIZES, **LAYERED["mega"], depth=3)
    model = retrofit(backbone, source_start="random").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            value = parameter + 0.1 * torch.randn_like(parameter)
            parameter.copy_(value.half().float() if is_rounded else value)
    return model


def story_prompt(model: RetrofittedDALLE) -> Prompt:
    """Two stories of two frames; one caption is shorter than the others."""
    tokens = torch.randint(1, 20, (2, FRAMES, 6))
    tokens[0, 1, 3:] = PAD
    source = torch.randint(model.backbone.num_codes, (2, 1, 16))
    with torch.inference_mode():
        story = model.encode_story(tokens, torch.ones(2, FRAMES, dtype=torch.bool))
    return Prompt(tokens, story, source, [FrameKey(0, i, j) for i in range(2) for j in range(FRAMES)])


def drawn(model: RetrofittedDALLE, name: str, num_candidates: int = 1) -> Sampled:
    torch.manual_seed(1)
    return sample(model, story_prompt(model), num_candidates, CodeSampling(top_k=8, packing=name))


def need(name: str) -> None:
    if name not in ("exact", "plain", *packing.available()):
        pytest.skip(f"this build of torch has no kernel for {name} on this processor")


@pytest.mark.parametrize("kind", ["dalle", "mega"])
@pytest.mark.parametrize("num_candidates", [1, 3])
@pytest.mark.parametrize("name", ["exact", "onednn", "fp16"])
def test_a_packed_view_draws_the_codes_of_its_model(name: str, kind: str, num_candidates: int) -> None:
    need(name)
    model = drawing_model(kind)
    plain, packed = (drawn(model, each, num_candidates) for each in ("plain", name))
    assert torch.equal(packed.codes, plain.codes)
    torch.testing.assert_close(packed.log_likelihood, plain.log_likelihood, rtol=1e-4, atol=1e-4)


def test_bf16_stays_close_to_its_model() -> None:
    need("bf16")
    model = drawing_model()
    layer = model.backbone.blocks[0].mlp[0]
    x = torch.randn(4, 32)
    with torch.no_grad():
        exact, rounded = layer(x), packing.pack("bf16", layer.weight, layer.bias, 4)(x)
    error = (rounded - exact).norm() / exact.norm()
    assert 0 < error < 0.02  # 8 bits of mantissa


def every_layer(view: nn.Module) -> list[PackedLinear]:
    return [layer for layer in view.modules() if isinstance(layer, PackedLinear)]


@pytest.mark.parametrize("name", ["exact", "onednn", "fp16", "bf16"])
def test_packing_leaves_the_model_as_it_is(name: str) -> None:
    need(name)
    model = drawing_model(is_rounded=False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = list(map(type, model.modules()))
    drawn(model, name)
    assert list(map(type, model.modules())) == modules
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


def test_a_view_shares_every_number_until_it_packs_it() -> None:
    model = drawing_model()
    view = decoding_view(model, "onednn")
    owned = {parameter.data_ptr() for parameter in model.parameters()}
    strangers = {name for name, value in view.named_parameters() if value.data_ptr() not in owned}
    assert {name.split(".fused.")[0] for name in strangers} == {f"backbone.blocks.{i}.attn" for i in range(3)} | {
        "story_encoder.blocks.0.attn"
    }, "only query, key and value are copied, joined"
    assert every_layer(view) and all(layer.product is None for layer in every_layer(view)), "packed when called"


def test_weights_that_change_are_drawn_from_at_once() -> None:
    model = drawing_model()
    before = drawn(model, "exact")
    with torch.no_grad():
        model.backbone.head_img.weight.neg_()
    after = drawn(model, "exact")
    assert not torch.equal(before.codes, after.codes)
    assert torch.equal(after.codes, drawn(model, "plain").codes)


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_only_large_weights_are_packed_and_only_numbers_of_16_bits_as_such(
    capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    weight = torch.randn(1024, packing.LARGE // 1024)
    halved = weight.half().float()
    assert not is_half(weight) and is_half(halved)
    need("fp16")
    need("onednn")
    assert packing.exact(halved) == "fp16" and packing.exact(weight) == "onednn"
    assert packing.exact(halved[1:]) == ("plain" if capability == "AVX512" else "fp16")
    assert packing.exact(halved[:63]) == packing.exact(weight[1:]) == "plain"


def test_without_its_kernels_a_weight_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "available", list)
    assert packing.exact(torch.zeros(1024, packing.LARGE // 1024)) == "plain"


def test_a_packing_without_its_hardware_becomes_exact_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packing.resolved("exact") == ("exact", None)
    monkeypatch.setattr(packing, "available", lambda: ["onednn", "bf16"])
    monkeypatch.setattr(packing, "slowdown_of_bf16", lambda: 60.0)
    assert packing.resolved("onednn") == ("onednn", None)
    assert packing.resolved("fp16") == ("exact", "packing=fp16 is not available on this processor; exact is used")
    name, note = packing.resolved("bf16")
    assert name == "exact" and note is not None and "60 times as slow" in note


def test_an_unknown_packing_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"packing='int4' is unknown; choose one of exact, plain, onednn, fp16, bf16"):
        CodeSampling(packing="int4")


@pytest.mark.parametrize("why", ["float64", "autocast"])
def test_nothing_is_packed_in_another_precision(why: str) -> None:
    model = drawing_model()
    if why == "float64":
        view = decoding_view(copy.deepcopy(model).double())
    else:
        with torch.autocast("cpu", torch.bfloat16):
            view = decoding_view(model)
    assert not every_layer(view)


def test_a_training_draws_without_copies_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[str] = []
    pack = packing.pack
    monkeypatch.setattr(packing, "pack", lambda *given: packed.append(given[0]) or pack(*given))
    made = tiny_story_dalle()
    made.generate(["Pip waves."], packing="onednn")
    assert packed
    packed.clear()
    StoryDALLETraining(made)
    made.generate(["Pip waves."], packing="onednn")
    assert not packed


def test_pictures_are_equal_in_the_layout_that_is_fast_and_the_tokenizer_stays_as_it_is() -> None:
    tokenizer = tiny_story_dalle().image_tokenizer.eval()
    before = {name: (value.clone(), value.stride()) for name, value in tokenizer.state_dict().items()}
    codes = torch.randint(tokenizer.num_codes, (2, tokenizer.grid**2))
    view = picture_view(tokenizer)
    with torch.inference_mode():
        torch.testing.assert_close(view.decode(codes), tokenizer.decode(codes), atol=1e-5, rtol=1e-5)
    layers = [layer for layer in view.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)]
    assert layers and all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in layers)
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(value, before[name][0]) and value.stride() == before[name][1]
    half = copy.deepcopy(tokenizer).bfloat16()
    assert picture_view(half) is half, "there the layout gains nothing"
