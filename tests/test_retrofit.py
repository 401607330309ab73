"""The retrofit's options, each by what it does; ``test_conformance.py`` holds it to what all of them promise."""

import pytest
import torch

from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import is_trained, parameter_group, retrofit
from tests.conformance_backbones import FRAMES, Inputs, differs, retrofitted
from tests.tiny_backbones import tiny_dalle


def test_the_released_start_disturbs_the_backbone_from_the_first_step_on():
    made, inputs = retrofitted(tiny_dalle, is_awake=False, story_depth=0, source_start="random")
    backbone = made.backbone(inputs.tokens.flatten(0, 1), inputs.codes.flatten(0, 1)).image
    assert differs(inputs.logits(made).flatten(0, 1), backbone).all()
    with pytest.raises(ValueError, match="source_start='zero': choose identity or random"):
        retrofitted(tiny_dalle, source_start="zero")[0]


def test_zeroing_is_of_one_factor_only_so_the_source_attention_learns():
    made, inputs = retrofitted(tiny_dalle, is_awake=False)
    made(inputs.tokens, inputs.codes, inputs.source, inputs.mask).image.square().mean().backward()
    assert all(attention.proj.weight.grad.abs().sum() > 0 for attention in made.source_attention.values())


def test_the_source_does_not_touch_the_text():
    made, inputs = retrofitted(tiny_dalle)
    first = made(inputs.tokens, inputs.codes, inputs.source, inputs.mask).text
    second = made(inputs.tokens, inputs.codes, (inputs.source + 1) % 30, inputs.mask).text
    assert torch.equal(first, second)


def test_a_causal_story_encoder_does_not_see_later_captions():
    made, inputs = retrofitted(tiny_dalle, causal_story=True)
    tokens = inputs.tokens.clone()
    tokens[:, 1, 0] = tokens[:, 1, 0] % 39 + 1
    changed = differs(inputs.logits(made), inputs.logits(made, tokens=tokens))
    assert changed.all(-1).all(0).tolist() == [False, True, True]
    assert not changed[:, 0].any()


def test_the_order_of_captions_matters_with_positions_and_not_without():
    inputs = Inputs(tiny_dalle())
    order = torch.tensor([1, 0, 2])
    for positions in (True, False):
        made, _ = retrofitted(tiny_dalle, story_positions=positions)
        straight = made.encode_story(inputs.tokens, inputs.mask)
        swapped = made.encode_story(inputs.tokens[:, order], inputs.mask)[:, order]
        moved = (straight - swapped).abs().max()
        assert moved > 0.01 if positions else moved < 1e-4


def test_a_source_switched_off_is_the_same_as_none():
    made, inputs = retrofitted(tiny_dalle)
    with torch.no_grad():
        args = inputs.tokens, inputs.codes
        off = made(*args, inputs.source, inputs.mask, has_source=torch.tensor([False, True])).image
        none = made(*args, None, inputs.mask).image
    torch.testing.assert_close(off[:FRAMES], none[:FRAMES], atol=5e-5, rtol=1e-4)
    assert differs(off[FRAMES:], none[FRAMES:]).all()


def test_a_story_encoder_that_reads_the_source_tells_it_in_every_frame():
    made, inputs = retrofitted(tiny_dalle, source_blocks="none", story_reads_source=True)
    plain, _ = retrofitted(tiny_dalle, source_blocks="none")
    other = (inputs.source + 1) % 30

    def story(model, source, has_source=None):
        return model.encode_story(inputs.tokens, inputs.mask, None, source, has_source)

    first = story(made, inputs.source)
    assert differs(first, story(made, other)).all()
    assert torch.equal(story(plain, inputs.source), story(plain, other))
    order = torch.randperm(inputs.source.shape[-1], generator=torch.Generator().manual_seed(0))
    assert differs(first, story(made, inputs.source[..., order])).all()  # it matters where a code stands
    assert differs(inputs.logits(made), inputs.logits(made, source=other)).all()
    off = story(made, inputs.source, torch.tensor([False, True]))
    torch.testing.assert_close(off[:1], story(made, None)[:1])
    torch.testing.assert_close(off[1:], first[1:])


def test_filling_of_captions_changes_no_story_vector():
    made, inputs = retrofitted(tiny_dalle, story_reads_source=True)
    tokens = inputs.tokens.clone()
    tokens[:, 0, 2:], tokens[:, 1, 1:], tokens[0, 2] = 0, 0, 0  # of several lengths, one empty
    both = made.encode_story(tokens, inputs.mask, None, inputs.source)
    for row in range(2):
        alone = made.encode_story(tokens[row, None], inputs.mask[row, None], None, inputs.source[row, None])
        torch.testing.assert_close(both[row, None], alone)
    filled = torch.cat([tokens, tokens.new_zeros(*tokens.shape[:2], 3)], -1)
    torch.testing.assert_close(both, made.encode_story(filled, inputs.mask, None, inputs.source))


def test_a_context_of_two_frames_is_read_whole():
    made, inputs = retrofitted(tiny_dalle)
    two = torch.cat([inputs.source, (inputs.source + 3) % 30], 1)
    first = inputs.logits(made, source=two)
    for which in range(2):
        changed = two.clone()
        changed[:, which] = (changed[:, which] + 1) % 30
        assert differs(first, inputs.logits(made, source=changed)).all()


@pytest.mark.parametrize(("source_blocks", "blocks"), [("all", "012"), ("third", "2"), ("none", ""), ([0, 2], "02")])
def test_source_attention_sits_in_the_chosen_blocks(source_blocks, blocks):
    assert list(retrofitted(tiny_dalle, source_blocks=source_blocks)[0].source_attention) == list(blocks)


def test_the_released_choice_of_blocks_is_every_third():
    backbone = DALLE(8, 8, 4, 4, dim=4, depth=42, num_heads=1)
    assert [int(i) for i in retrofit(backbone, "third").source_attention] == list(range(2, 42, 3))
    lower, upper = ([int(i) for i in retrofit(backbone, half).source_attention] for half in ("lower", "upper"))
    assert lower + upper == list(range(42)) and len(lower) == len(upper)


@pytest.mark.parametrize("source_blocks", ["every", [3]])
def test_blocks_that_do_not_exist_are_refused(source_blocks):
    with pytest.raises(ValueError, match="source_blocks"):
        retrofitted(tiny_dalle, source_blocks=source_blocks)[0]


def test_the_predicate_of_tuning_names_what_trains():
    names = [name for name, _ in retrofitted(tiny_dalle, num_prompt_tokens=2)[0].named_parameters()]
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
    made, _ = retrofitted(tiny_dalle, num_prompt_tokens=2)
    parameters = dict(made.named_parameters())
    for module in made.modules():
        for name, value in module._parameters.items():
            if value is not None:
                assert any(value is other for other in parameters.values()), name
    assert set(parameters) == set(made.state_dict())
    assert sum(name.startswith("source_attention.") for name in parameters) == 3 * 12


@pytest.mark.parametrize("reads_source", [False, True])
def test_with_a_reach_a_long_story_is_read_as_a_short_one(reads_source: bool) -> None:
    """With two blocks a caption hears of those up to twice the reach away, and not of its own number."""
    made, _ = retrofitted(tiny_dalle, story_reach=2, story_depth=2, story_reads_source=reads_source)
    torch.nn.init.normal_(made.story_encoder.distances)
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, 40, (1, 50, 7), generator=generator)
    source = torch.randint(0, 30, (1, 1, 9), generator=generator)

    def read(tokens: torch.Tensor) -> torch.Tensor:
        return made.encode_story(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), None, source)

    with torch.no_grad():
        whole = read(tokens)
        if not reads_source:  # the source reads the captions beside it, and others read the source
            torch.testing.assert_close(read(tokens[:, 20:30])[:, 4:6], whole[:, 24:26], atol=1e-4, rtol=1e-4)
        other = tokens.clone()
        other[:, 20] = tokens[:, 20] % 39 + 1
        moved = (read(other) - whole).abs().amax((0, 2, 3)) > 1e-4
        assert moved.nonzero().flatten().tolist() == list(range(16, 25))
        swapped = tokens.clone()
        swapped[:, [21, 22]] = tokens[:, [22, 21]]
        assert ((read(swapped) - whole)[:, 20].abs() > 1e-3).any(), "near captions are told apart by their distance"


def test_a_reach_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="story_reach=0: give 1 or more"):
        retrofitted(tiny_dalle, story_reach=0)
