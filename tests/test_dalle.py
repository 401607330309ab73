"""The backbone: minDALL-E's keys and arithmetic."""

import math

import torch

from storydalle.models.backbones.dalle import DALLE
from tests.reference import dalle_logits
from tests.tiny_backbones import PAD, tiny_dalle


def small(pad_id: int | None = PAD) -> DALLE:
    torch.manual_seed(0)
    return tiny_dalle(pad_id).eval()


def inputs(num_rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 40, (num_rows, 7), generator=generator)
    for row in range(num_rows):
        tokens[row, 3 + row :] = PAD
    return tokens, torch.randint(0, 30, (num_rows, 9), generator=generator)


def test_default_sizes_and_keys_are_minDALL_Es():
    with torch.device("meta"):
        backbone = DALLE()
    shapes = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_291_081_728
    expected = {
        "tok_emb_img.weight": (16384, 1536),
        "tok_emb_txt.weight": (16384, 1536),
        "pos_emb_img.weight": (256, 1536),
        "pos_emb_txt.weight": (64, 1536),
        "ln_f.weight": (1536,),
        "ln_f.bias": (1536,),
        "head_img.weight": (16384, 1536),
        "head_txt.weight": (16384, 1536),
    }
    for i in range(42):
        for norm in ("ln1", "ln2"):
            expected |= {f"blocks.{i}.{norm}.{kind}": (1536,) for kind in ("weight", "bias")}
        for layer in ("key", "query", "value", "proj"):
            expected |= {f"blocks.{i}.attn.{layer}.weight": (1536, 1536), f"blocks.{i}.attn.{layer}.bias": (1536,)}
        expected |= {f"blocks.{i}.mlp.0.weight": (6144, 1536), f"blocks.{i}.mlp.0.bias": (6144,)}
        expected |= {f"blocks.{i}.mlp.2.weight": (1536, 6144), f"blocks.{i}.mlp.2.bias": (1536,)}
    assert shapes == expected


def test_logits_equal_the_slow_reference():
    backbone = small(pad_id=None)
    tokens, codes = inputs()
    logits = backbone(tokens, codes).image
    for row in range(len(tokens)):
        torch.testing.assert_close(logits[row], dalle_logits(backbone, tokens[row], codes[row]), atol=1e-5, rtol=1e-4)


def test_padding_is_read_where_no_pad_id_is_set_as_in_minDALL_E():
    backbone = small(pad_id=None)
    tokens, codes = inputs(1)
    other = tokens.masked_fill(tokens == PAD, 5)
    assert not torch.allclose(backbone(tokens, codes).image, backbone(other, codes).image)
