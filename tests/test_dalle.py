"""The backbone: minDALL-E's keys and arithmetic, causality, padding, and the cache."""

import math

import pytest
import torch

from storydalle.models.backbones.dalle import DALLE, Cache
from tests.reference import dalle_logits

PAD = 0


def small(pad_id: int | None = PAD) -> DALLE:
    torch.manual_seed(0)
    return DALLE(40, 30, text_length=7, image_length=9, dim=32, depth=3, num_heads=4, pad_id=pad_id).eval()


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


def test_a_fresh_model_knows_nothing():
    backbone = small()
    tokens, codes = inputs()
    logits = backbone(tokens, codes)
    image = torch.nn.functional.cross_entropy(logits.image.flatten(0, 1), codes.flatten())
    text = torch.nn.functional.cross_entropy(logits.text.flatten(0, 1), logits.text_targets.flatten())
    assert abs(image.item() - math.log(30)) < 0.1
    assert abs(text.item() - math.log(40)) < 0.1


def test_a_code_is_predicted_from_the_caption_and_earlier_codes_only():
    backbone = small()
    tokens, codes = inputs(1)
    for position in range(9):
        embedded = {}
        handle = backbone.tok_emb_img.register_forward_hook(
            lambda _module, _inputs, out, store=embedded: store.setdefault("codes", out.retain_grad() or out)
        )
        backbone(tokens, codes).image[0, position].sum().backward()
        handle.remove()
        reach = embedded["codes"].grad[0].abs().sum(-1) > 0
        assert reach.tolist() == [i < position for i in range(8)]


def test_the_last_code_is_read_by_nobody():
    backbone = small()
    tokens, codes = inputs()
    changed = codes.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 30
    assert torch.equal(backbone(tokens, codes).image, backbone(tokens, changed).image)


def test_padding_changes_nothing_where_it_is_invisible():
    """A caption's logits do not depend on how much padding the longest caption beside it forces on the batch."""
    backbone = small()
    tokens, codes = inputs()
    together = backbone(tokens, codes).image
    for row in range(len(tokens)):
        alone = backbone(tokens[row : row + 1], codes[row : row + 1]).image
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)


def test_padding_is_read_where_no_pad_id_is_set_as_in_minDALL_E():
    backbone = small(pad_id=None)
    tokens, codes = inputs(1)
    other = tokens.masked_fill(tokens == PAD, 5)
    assert not torch.allclose(backbone(tokens, codes).image, backbone(other, codes).image)


def test_an_empty_caption_is_legal():
    backbone = small()
    tokens, codes = inputs(2)
    assert backbone(torch.full_like(tokens, PAD), codes).image.isfinite().all()


@pytest.mark.parametrize("num_prefix", [0, 3])
@pytest.mark.parametrize("pad_id", [None, PAD])
def test_cached_decoding_equals_the_full_forward(num_prefix: int, pad_id: int | None):
    backbone = small(pad_id)
    tokens, codes = inputs()
    prefix = torch.randn(3, num_prefix, 32) if num_prefix else None
    with torch.no_grad():
        full = backbone(tokens, codes, prefix).image
        cache = Cache(backbone, 3, num_prefix + 16)
        steps = [backbone(tokens, None, prefix, cache=cache).image]
        for i in range(8):
            steps.append(backbone(None, codes[:, i : i + 1], cache=cache).image)
    torch.testing.assert_close(torch.cat(steps, 1), full, atol=1e-5, rtol=1e-4)


def test_hooks_act_at_the_positions_that_predict_a_code_and_nowhere_else():
    backbone = small()
    tokens, codes = inputs()
    columns = []

    def hook(x: torch.Tensor) -> torch.Tensor:
        columns.append(x.shape[1])
        return torch.randn_like(x)

    plain, hooked = backbone(tokens, codes), backbone(tokens, codes, hooks=[None, hook, None])
    assert columns == [9]
    assert not torch.isclose(plain.image, hooked.image).all(-1).any()
    assert torch.equal(plain.text, hooked.text)


def test_a_caption_of_another_length_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"5 tokens.*takes 7"):
        small()(torch.ones(1, 5, dtype=torch.long), None)
