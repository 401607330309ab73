"""The VQGAN: released sizes and names, local codes, exact nearest neighbours, files that come back equal."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from storydalle.tokens.vqgan import VQGAN, Downsample
from tests.released_tokenizers import taming_shapes

SIZES: dict[str, Any] = {
    "resolution": 16,
    "ch": 8,
    "ch_mult": (1, 2, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (4,),
    "z_channels": 8,
    "codebook_size": 32,
    "embed_dim": 4,
    "norm_groups": 4,
}


def tiny(**changes: Any) -> VQGAN:
    torch.manual_seed(0)
    model = VQGAN(**{**SIZES, **changes})
    nn.init.normal_(model.quantize.embedding.weight, generator=torch.Generator().manual_seed(1))
    return model.eval()


def pictures(num: int = 2, resolution: int = 16) -> Tensor:
    return torch.rand(num, 3, resolution, resolution, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.fixture(scope="module")
def released() -> VQGAN:
    with torch.device("meta"):
        return VQGAN()


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_default_has_the_released_sizes(released: VQGAN):
    assert round(num_parameters(released) / 1e6, 2) == 76.07
    assert round(num_parameters(released.encoder) / 1e6, 2) == 29.30
    assert round(num_parameters(released.decoder) / 1e6, 2) == 42.45
    assert (released.grid, released.num_codes) == (16, 256)


def test_the_default_has_the_released_keys_and_shapes(released: VQGAN):
    shapes = taming_shapes((128, 128, 256, 256, 512), 2, (4,), z=256, codes=16384, embed=256)
    assert {key: tuple(value.shape) for key, value in released.state_dict().items()} == shapes


def test_every_norm_has_the_released_epsilon_and_groups(released: VQGAN):
    norms = [module for module in released.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 2 * (10 + 2) + 1 + 2 + 2 * (15 + 2) + 1 + 3 + 2
    assert {(module.eps, module.num_groups) for module in norms} == {(1e-6, 32)}


def test_downsampling_pads_right_and_below_only():
    layer = Downsample(1)
    nn.init.ones_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    halved = layer(torch.ones(1, 1, 4, 4))
    assert torch.equal(halved[0, 0], torch.tensor([[9.0, 6.0], [6.0, 4.0]]))


def test_attention_equals_a_loop_over_positions():
    block = tiny().encoder.mid.attn_1
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(3))
    normed = block.norm(x)
    q, k, v = block.q(normed), block.k(normed), block.v(normed)
    mixed = torch.zeros_like(x)
    for b in range(2):
        for row in range(4):
            for column in range(4):
                scores = torch.einsum("c,chw->hw", q[b, :, row, column], k[b]) / 16**0.5
                mixed[b, :, row, column] = torch.einsum("hw,chw->c", scores.flatten().softmax(0).view(4, 4), v[b])
    torch.testing.assert_close(block(x), x + block.proj_out(mixed))


def test_the_nearest_code_equals_a_loop_over_the_codebook():
    model = tiny()
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    found = model.quantize(latents).codes
    for b in range(3):
        for place in range(16):
            vector = latents[b, :, place // 4, place % 4]
            distances = [(vector - code).square().sum().item() for code in model.quantize.embedding.weight]
            assert int(found[b, place]) == min(range(32), key=distances.__getitem__)


def test_codes_are_found_in_full_precision_under_autocast():
    model = tiny()
    with torch.no_grad():  # neighbours that bf16 cannot tell apart
        model.quantize.embedding.weight.copy_(1.0 + torch.arange(32.0)[:, None] * 0.001)
    latents = model.embed(torch.arange(16)[None])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.quantize(latents).codes, torch.arange(16)[None])


def test_quantising_puts_code_vectors_in_place_and_measures_the_way():
    model = tiny()
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    quantized, codes, commitment = model.quantize(latents)
    torch.testing.assert_close(quantized, model.embed(codes))
    torch.testing.assert_close(commitment, (latents - model.embed(codes)).square().mean())
    torch.testing.assert_close(model.quantize.embedding.weight[codes[1, 6]], model.embed(codes)[1, :, 1, 2])


def test_gradients_pass_straight_through_to_the_encoder():
    model = tiny()
    latents = torch.randn(2, 4, 4, 4, requires_grad=True)
    weight = torch.randn(2, 4, 4, 4)
    (model.quantize(latents).quantized * weight).sum().backward()
    assert torch.equal(latents.grad, weight)
    model.reconstruct(model.quantize(model.latents(pictures())).quantized).square().mean().backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert model.quantize.embedding.weight.grad is None


@pytest.mark.parametrize("changes", [{}, {"encoder_window": 4}, {"pixel_shuffle": 2, "ch_mult": (1, 2)}])
def test_pictures_become_codes_and_pictures_again(changes: dict[str, Any]):
    model = tiny(**changes)
    codes = model.encode(pictures())
    assert codes.shape == (2, model.num_codes) and codes.dtype == torch.long
    drawn = model.decode(codes)
    assert drawn.shape == (2, 3, 16, 16)
    assert drawn.abs().max() <= 1.0
    assert model.encode(drawn).shape == codes.shape


def test_codes_lie_in_raster_order():
    model = tiny(encoder_window=4, attn_resolutions=(), mid_attention=False)
    picture = pictures(1)
    codes = model.encode(picture)[0]
    for place in range(16):
        row, column = divmod(place, 4)
        changed = picture.clone()
        changed[..., row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] *= -1.0
        latents = model.latents(changed) - model.latents(picture)
        assert latents[0, :, row, column].abs().max() > 1e-4
        others = torch.arange(16) != place
        assert torch.equal(model.encode(changed)[0][others], codes[others])


@pytest.mark.parametrize(("window", "is_local"), [(4, True), (8, True), (None, False)])
def test_a_window_hides_the_rest_of_the_picture(window: int | None, is_local: bool):
    model = tiny(encoder_window=window)
    picture = pictures(1).requires_grad_()
    model.latents(picture)[0, :, 0, 0].sum().backward()
    own = window or 4
    outside = picture.grad.clone()
    outside[..., :own, :own] = 0.0
    assert picture.grad[..., :own, :own].abs().max() > 0
    assert (outside.abs().max() == 0) == is_local


@pytest.mark.parametrize("window", [None, 4])
def test_a_batch_row_equals_the_picture_alone(window: int | None):
    model = tiny(encoder_window=window)
    batch = pictures(3)
    torch.testing.assert_close(model.latents(batch)[1:2], model.latents(batch[1:2]), atol=5e-5, rtol=1e-5)
    codes = model.encode(batch)
    assert torch.equal(codes[1:2], model.encode(batch[1:2]))
    torch.testing.assert_close(model.decode(codes)[1:2], model.decode(codes[1:2]), atol=5e-5, rtol=1e-5)


def test_saved_and_loaded_are_equal(tmp_path: Path):
    model = tiny(encoder_window=4)
    model.save_pretrained(tmp_path / "tokenizer")
    assert {file.name for file in (tmp_path / "tokenizer").iterdir()} == {"config.json", "model.safetensors"}
    loaded = VQGAN.from_pretrained(tmp_path / "tokenizer")
    assert loaded.config == model.config
    codes = model.encode(pictures())
    assert torch.equal(loaded.encode(pictures()), codes)
    assert torch.equal(loaded.decode(codes), model.decode(codes))


@pytest.mark.parametrize("content", [None, b"", b"no weights"])
@pytest.mark.parametrize("wrong", ["config.json", "model.safetensors"])
def test_a_wrong_file_is_named_in_one_line(wrong: str, content: bytes | None, tmp_path: Path):
    tiny().save_pretrained(tmp_path)
    (tmp_path / wrong).unlink()
    if content is not None:
        (tmp_path / wrong).write_bytes(content)
    with pytest.raises(ValueError) as error:
        VQGAN.from_pretrained(tmp_path)
    assert str(tmp_path / wrong) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [{"colour": 3}, {"ch": "wide"}, {**SIZES, "codebook_size": 33}, [1]])
def test_a_foreign_configuration_is_refused_in_one_line(config: Any, tmp_path: Path):
    tiny().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        VQGAN.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", [-1, 32])
def test_a_code_outside_the_codebook_is_named(code: int):
    codes = torch.zeros(1, 16, dtype=torch.long)
    codes[0, 3] = code
    with pytest.raises(ValueError, match=f"code {code} lies outside the codebook of 32 .* decode with the tokenizer"):
        tiny().decode(codes)


def test_a_wrong_number_of_codes_is_named():
    with pytest.raises(ValueError, match="9 codes a picture do not fill this tokenizer's 16"):
        tiny().decode(torch.zeros(1, 9, dtype=torch.long))


def test_a_picture_of_the_wrong_size_is_named():
    with pytest.raises(ValueError, match="32x16 pixels do not fit a tokenizer of 16x16: resize"):
        tiny().latents(torch.zeros(1, 3, 16, 32))


@pytest.mark.parametrize("changes", [{"resolution": 18}, {"encoder_window": 6}, {"encoder_window": 2}])
def test_sizes_that_do_not_divide_are_named(changes: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{changes.get('encoder_window', 18)}.* must be multiples of 4 pixels"):
        tiny(**changes)


def test_norm_groups_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="8 channels do not divide into norm_groups=3"):
        tiny(norm_groups=3)
