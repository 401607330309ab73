"""The retrofit: the identity at first, then source and story act at every position of every frame."""

import pytest
import torch
from torch import nn

from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, is_trained, parameter_group, retrofit

PAD, STORIES, FRAMES, LENGTH = 0, 2, 3, 9


def model(wake: bool = True, **options) -> RetrofittedDALLE:
    """A small retrofit; ``wake`` draws all its weights large, so that every path is well above rounding."""
    torch.manual_seed(0)
    backbone = DALLE(40, 30, text_length=7, image_length=LENGTH, dim=32, depth=3, num_heads=4, pad_id=PAD)
    made = retrofit(backbone, **options).eval()
    if wake:
        for module in made.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.2)
    return made


class Inputs:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(1, 40, (STORIES, FRAMES, 7), generator=generator)
        self.tokens[0, 1, 4:] = PAD
        self.codes = torch.randint(0, 30, (STORIES, FRAMES, LENGTH), generator=generator)
        self.source = torch.randint(0, 30, (STORIES, 1, LENGTH), generator=generator)
        self.mask = torch.ones(STORIES, FRAMES, dtype=torch.bool)

    def logits(self, made: RetrofittedDALLE, **changes) -> torch.Tensor:
        values = {**vars(self), **changes}
        with torch.no_grad():
            image = made(values["tokens"], values["codes"], values["source"], values["mask"]).image
        return image.view(STORIES, FRAMES, LENGTH, -1)


def differs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Per (story, frame, position): whether any logit changed, by a hundred times what rounding does."""
    return ((a - b).abs() > 1e-4).any(-1)


def test_fresh_source_attention_leaves_the_backbone_as_it_was():
    made, inputs = model(wake=False, story_depth=0), Inputs()
    backbone = made.backbone(inputs.tokens.flatten(0, 1), inputs.codes.flatten(0, 1)).image
    assert torch.equal(inputs.logits(made).flatten(0, 1), backbone)


def test_the_released_start_disturbs_the_backbone_from_the_first_step_on():
    made, inputs = model(wake=False, story_depth=0, source_start="random"), Inputs()
    backbone = made.backbone(inputs.tokens.flatten(0, 1), inputs.codes.flatten(0, 1)).image
    assert differs(inputs.logits(made).flatten(0, 1), backbone).all()
    with pytest.raises(ValueError, match="source_start='zero': choose identity or random"):
        model(source_start="zero")


def test_a_fresh_retrofit_equals_the_backbone_with_the_same_prefix():
    made, inputs = model(wake=False), Inputs()
    prefix = made.encode_story(inputs.tokens, inputs.mask).flatten(0, 1)
    backbone = made.backbone(inputs.tokens.flatten(0, 1), inputs.codes.flatten(0, 1), prefix).image
    assert torch.equal(inputs.logits(made).flatten(0, 1), backbone)


def test_zeroing_is_of_one_factor_only_so_the_source_attention_learns():
    made, inputs = model(wake=False), Inputs()
    made(inputs.tokens, inputs.codes, inputs.source, inputs.mask).image.square().mean().backward()
    assert all(attention.proj.weight.grad.abs().sum() > 0 for attention in made.source_attention.values())


@pytest.mark.parametrize("source_blocks", ["all", "third", [1]])
def test_the_source_changes_every_logit_of_every_frame_from_the_first_code_on(source_blocks):
    """The released code zeroes the source on every decoding step (facts: S1) and misses the first code (S2)."""
    made, inputs = model(source_blocks=source_blocks), Inputs()
    changed = inputs.logits(made, source=(inputs.source + 1) % 30)
    assert differs(inputs.logits(made), changed).all()


def test_the_source_does_not_touch_the_text():
    made, inputs = model(), Inputs()
    first = made(inputs.tokens, inputs.codes, inputs.source, inputs.mask).text
    second = made(inputs.tokens, inputs.codes, (inputs.source + 1) % 30, inputs.mask).text
    assert torch.equal(first, second)


def test_a_story_ignores_another_storys_source():
    made, inputs = model(), Inputs()
    source = inputs.source.clone()
    source[1] = (source[1] + 1) % 30
    assert differs(inputs.logits(made), inputs.logits(made, source=source)).any((1, 2)).tolist() == [False, True]


def test_another_frames_caption_changes_every_logit_of_a_frame():
    made, inputs = model(), Inputs()
    for changed in range(FRAMES):
        tokens = inputs.tokens.clone()
        tokens[:, changed, 0] = tokens[:, changed, 0] % 39 + 1
        assert differs(inputs.logits(made), inputs.logits(made, tokens=tokens)).all()


def test_a_causal_story_encoder_does_not_see_later_captions():
    made, inputs = model(causal_story=True), Inputs()
    tokens = inputs.tokens.clone()
    tokens[:, 1, 0] = tokens[:, 1, 0] % 39 + 1
    changed = differs(inputs.logits(made), inputs.logits(made, tokens=tokens))
    assert changed.all(-1).all(0).tolist() == [False, True, True]
    assert not changed[:, 0].any()


def test_the_order_of_captions_matters_with_positions_and_not_without():
    inputs = Inputs()
    order = torch.tensor([1, 0, 2])
    for positions in (True, False):
        made = model(story_positions=positions)
        straight = made.encode_story(inputs.tokens, inputs.mask)
        swapped = made.encode_story(inputs.tokens[:, order], inputs.mask)[:, order]
        moved = (straight - swapped).abs().max()
        assert moved > 0.01 if positions else moved < 1e-4


def test_frames_do_not_see_each_others_codes():
    made, inputs = model(), Inputs()
    codes = inputs.codes.clone()
    codes[:, 1] = (codes[:, 1] + 1) % 30
    changed = differs(inputs.logits(made), inputs.logits(made, codes=codes))
    assert not changed[:, [0, 2]].any()
    assert changed[:, 1, 1:].all() and not changed[:, 1, 0].any()


def test_a_masked_frame_changes_no_other():
    made, inputs = model(), Inputs()
    mask = inputs.mask.clone()
    mask[:, 2] = False
    tokens = inputs.tokens.clone()
    tokens[:, 2] = 5
    first, second = inputs.logits(made, mask=mask), inputs.logits(made, mask=mask, tokens=tokens)
    assert not differs(first, second)[:, :2].any()


def test_a_shorter_story_padded_equals_the_story_alone():
    made, inputs = model(), Inputs()
    mask = inputs.mask.clone()
    mask[:, 2] = False
    padded = inputs.logits(made, mask=mask)[:, :2]
    with torch.no_grad():
        alone = made(inputs.tokens[:, :2], inputs.codes[:, :2], inputs.source, mask[:, :2]).image
    torch.testing.assert_close(padded.flatten(0, 1), alone, atol=5e-5, rtol=1e-4)


def test_a_story_alone_equals_its_row_of_a_batch():
    made, inputs = model(num_story_tokens=2), Inputs()
    together = inputs.logits(made)
    for row in range(STORIES):
        one = slice(row, row + 1)
        with torch.no_grad():
            alone = made(inputs.tokens[one], inputs.codes[one], inputs.source[one], inputs.mask[one]).image
        torch.testing.assert_close(alone, together[row], atol=5e-5, rtol=1e-4)


def test_a_source_switched_off_is_the_same_as_none():
    made, inputs = model(), Inputs()
    with torch.no_grad():
        args = inputs.tokens, inputs.codes
        off = made(*args, inputs.source, inputs.mask, has_source=torch.tensor([False, True])).image
        none = made(*args, None, inputs.mask).image
    torch.testing.assert_close(off[:FRAMES], none[:FRAMES], atol=5e-5, rtol=1e-4)
    assert differs(off[FRAMES:], none[FRAMES:]).all()


def test_a_context_of_two_frames_is_read_whole():
    made, inputs = model(), Inputs()
    two = torch.cat([inputs.source, (inputs.source + 3) % 30], 1)
    first = inputs.logits(made, source=two)
    for which in range(2):
        changed = two.clone()
        changed[:, which] = (changed[:, which] + 1) % 30
        assert differs(first, inputs.logits(made, source=changed)).all()


@pytest.mark.parametrize(("source_blocks", "blocks"), [("all", "012"), ("third", "2"), ("none", ""), ([0, 2], "02")])
def test_source_attention_sits_in_the_chosen_blocks(source_blocks, blocks):
    assert list(model(source_blocks=source_blocks).source_attention) == list(blocks)


def test_the_released_choice_of_blocks_is_every_third():
    backbone = DALLE(8, 8, 4, 4, dim=4, depth=42, num_heads=1)
    assert [int(i) for i in retrofit(backbone, "third").source_attention] == list(range(2, 42, 3))


@pytest.mark.parametrize("source_blocks", ["every", [3]])
def test_blocks_that_do_not_exist_are_refused(source_blocks):
    with pytest.raises(ValueError, match="source_blocks"):
        model(source_blocks=source_blocks)


def test_prompt_tokens_change_every_logit():
    made, inputs = model(num_prompt_tokens=4), Inputs()
    first = inputs.logits(made)
    nn.init.normal_(made.prompt_tokens.embedding.weight)
    assert differs(first, inputs.logits(made)).all()


def test_the_predicate_of_tuning_names_what_trains():
    names = [name for name, _ in model(num_prompt_tokens=2).named_parameters()]
    added = {name for name in names if not name.startswith("backbone.")}
    embeddings = {f"backbone.{kind}_emb_{what}.weight" for kind in ("tok", "pos") for what in ("img", "txt")}
    assert {name for name in names if is_trained(name, "full")} == set(names)
    assert {name for name in names if is_trained(name, "retrofit")} == added
    assert {name for name in names if is_trained(name, "prompt")} == added | embeddings
    assert {parameter_group(name) for name in added} == {"source", "story"}
    with pytest.raises(ValueError, match="tuning='some'"):
        is_trained("backbone.ln_f.weight", "some")


def test_every_part_of_the_retrofit_is_registered():
    """The released code keeps its cross-attention in a plain list: never trained, never saved (facts: M1)."""
    made = model(num_prompt_tokens=2)
    parameters = dict(made.named_parameters())
    for module in made.modules():
        for name, value in module._parameters.items():
            if value is not None:
                assert any(value is other for other in parameters.values()), name
    assert set(parameters) == set(made.state_dict())
    assert sum(name.startswith("source_attention.") for name in parameters) == 3 * 12
