"""OpenAI's dVAE: sizes, pixel map, codes and pictures equal to the released code's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from storydalle.tokens.dvae import DVAE, ResidualBlock, VocabularyConv2d
from tests.released_tokenizers import openai_blocks, openai_codes, openai_pixels, openai_weights, pictures

RESOLUTION, CODES = 32, 24


def ours(weights: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    """OpenAI's names with our endings."""
    return {f"{side}.{key[:-1]}{'weight' if key[-1] == 'w' else 'bias'}": value for key, value in weights.items()}


def tiny() -> tuple[DVAE, dict[str, Tensor], dict[str, Tensor]]:
    """Ours, filled with the weights of the two files, which are returned too."""
    encoder, decoder = openai_weights("encoder", seed=0), openai_weights("decoder", seed=1)
    model = DVAE(RESOLUTION, hidden=8, num_groups=4, blocks_per_group=2, codebook_size=CODES, embed_dim=6)
    model.load_state_dict(ours(encoder, "encoder") | ours(decoder, "decoder"))
    return model.eval(), encoder, decoder


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_default_has_the_released_sizes() -> None:
    with torch.device("meta"):
        released = DVAE()
    assert round(num_parameters(released.encoder) / 1e6, 2) == 53.79
    assert round(num_parameters(released.decoder) / 1e6, 2) == 43.83
    assert (released.grid, released.num_codes, released.codebook_size) == (32, 1024, 8192)


def test_the_default_has_the_released_keys_and_shapes() -> None:
    with torch.device("meta"):
        released = DVAE().state_dict()
    sizes = {"hidden": 256, "codes": 8192, "embed": 128, "seed": None}
    expected = {key: tensor for side in ("encoder", "decoder") for key, tensor in full(side, sizes).items()}
    assert {key: value.shape for key, value in released.items()} == {key: v.shape for key, v in expected.items()}


def full(side: str, sizes: dict[str, Any]) -> dict[str, Tensor]:
    return ours(openai_weights(side, **sizes), side)


def test_codes_equal_the_released_codes() -> None:
    model, encoder, _ = tiny()
    images = pictures(3, RESOLUTION)
    codes = model.encode(images)
    assert torch.equal(codes, openai_codes(encoder, (images + 1) / 2))
    assert len(codes.unique()) > 2, "otherwise any codes would be equal"
    theirs = openai_blocks(encoder, 0.8 * (images + 1) / 2 + 0.1, is_encoder=True)
    torch.testing.assert_close(model.logits(images), theirs, atol=1e-5, rtol=1e-5)


def test_pictures_equal_the_released_pictures() -> None:
    model, _, decoder = tiny()
    codes = torch.randint(0, CODES, (3, 16), generator=torch.Generator().manual_seed(0))
    drawn, theirs = model.decode(codes), openai_pixels(decoder, codes)
    torch.testing.assert_close((drawn + 1) / 2, theirs, atol=1e-5, rtol=0)
    assert theirs.std() > 0.05, "otherwise grey would be as good"


def test_phi_keeps_away_from_black_and_white_and_is_undone() -> None:
    model = tiny()[0]
    ends = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert model.phi(ends).flatten().tolist() == pytest.approx([0.1, 0.5, 0.9])
    images = pictures(2, RESOLUTION)
    torch.testing.assert_close(model.inverse_phi(model.phi(images)), images, atol=1e-6, rtol=0)
    assert model.inverse_phi(torch.full((1, 3, 1, 1), 0.95)).max() == 1.0
    assert model.inverse_phi(torch.full((1, 3, 1, 1), 0.05)).min() == -1.0


def test_the_gain_of_a_block_is_one_over_the_number_of_blocks_squared() -> None:
    with torch.device("meta"):
        released = DVAE()
    blocks = [module for module in released.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 16 and {block.gain for block in blocks} == {1 / 64}


def test_looking_codes_up_equals_the_convolution_of_one_hot_codes() -> None:
    layer = VocabularyConv2d(7, 4, 1)
    codes = torch.randint(0, 7, (2, 3, 3))
    one_hot = nn.functional.one_hot(codes, 7).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(layer.look_up(codes), layer(one_hot))


def test_the_vocabulary_stays_in_full_precision_under_autocast() -> None:
    model = tiny()[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(pictures(1, RESOLUTION)).dtype == torch.float32
        assert model.decode(torch.zeros(1, 16, dtype=torch.long)).dtype == torch.float32


def test_a_fresh_network_keeps_the_size_of_its_activations() -> None:
    torch.manual_seed(0)
    model = DVAE(RESOLUTION, hidden=16, codebook_size=50, embed_dim=8)
    assert 0.05 < model.logits(pictures(2, RESOLUTION)).std() < 5.0
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name


def test_codes_lie_in_raster_order() -> None:
    model = tiny()[0]
    logits = model.logits(pictures(1, RESOLUTION))
    codes = model.encode(pictures(1, RESOLUTION))
    assert int(codes[0, 7]) == int(logits[0, :, 1, 3].argmax())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"resolution": 30}, "resolution=30 must be a multiple of 8"),
        ({"hidden": 10}, "hidden=10 must be a multiple of 4"),
        ({"margin": 0.5}, "margin=0.5"),
    ],
)
def test_sizes_that_do_not_fit_are_named(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said), torch.device("meta"):
        DVAE(**settings)


def test_codes_equal_flavas_codebook() -> None:
    flava = pytest.importorskip("transformers.models.flava.modeling_flava")
    torch.manual_seed(0)
    config = flava.FlavaImageCodebookConfig(hidden_size=8, vocab_size=CODES)
    codebook = flava.FlavaImageCodebook(config).eval()
    for parameter in codebook.parameters():
        nn.init.normal_(parameter, std=0.2)
    model = tiny()[0]
    theirs = {key.replace(".group.", ".").replace(".path.", "."): v for key, v in codebook.state_dict().items()}
    model.encoder.load_state_dict(theirs)
    images = pictures(2, RESOLUTION)
    codes = codebook.get_codebook_indices(0.8 * (images + 1) / 2 + 0.1)
    assert torch.equal(model.encode(images), codes.flatten(1))
    assert len(codes.unique()) > 1
