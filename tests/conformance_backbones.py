"""Checks that every backbone passes: alone, in a retrofit, and while it decodes.

A check takes a factory of a small fresh backbone; ``tests/conformance.py`` says how to use them.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from storydalle.models.backbones.backbone import Backbone
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt, Sampled, sample

MakeBackbone = Callable[[], Backbone]
STORIES, FRAMES = 2, 3


def awake(module: nn.Module) -> None:
    """Draw weights well away from their start, norms included, so that none can be left out unseen."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.2)
        if isinstance(part, nn.LayerNorm):
            nn.init.normal_(part.weight, mean=1.0, std=0.3)
            nn.init.normal_(part.bias, std=0.3)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def differs(a: Tensor, b: Tensor) -> Tensor:
    """Per position: whether any logit changed, by far more than what rounding does."""
    return ((a - b).abs() > 1e-4).any(-1)


class Inputs:
    """Captions, frames and sources of some stories for a backbone; no caption holds padding."""

    def __init__(self, backbone: Backbone) -> None:
        generator = torch.Generator().manual_seed(1)
        self.backbone = backbone
        size, pad = (STORIES, FRAMES, backbone.text_length), backbone.pad_id
        tokens = torch.randint(1, backbone.text_vocab_size, size, generator=generator)
        self.tokens = torch.where(tokens == pad, backbone.text_vocab_size - 1, tokens) if pad is not None else tokens
        self.codes = self.drawn_codes(generator, FRAMES)
        self.source = self.drawn_codes(generator, 1)
        self.mask = torch.ones(STORIES, FRAMES, dtype=torch.bool)

    def drawn_codes(self, generator: torch.Generator, num_frames: int) -> Tensor:
        size = (STORIES, num_frames, self.backbone.image_length)
        return torch.randint(0, self.backbone.num_codes, size, generator=generator)

    @property
    def captions(self) -> Tensor:
        return self.tokens.flatten(0, 1)

    @property
    def frames(self) -> Tensor:
        return self.codes.flatten(0, 1)

    def padded(self) -> Tensor:
        """The captions with ends of different lengths cut off."""
        captions = self.captions.clone()
        for row in range(len(captions)):
            captions[row, 3 + row % 3 :] = self.backbone.pad_id
        return captions

    def other_caption(self, frame: int) -> Tensor:
        """All captions, of one frame with another first word."""
        tokens, size = self.tokens.clone(), self.backbone.text_vocab_size
        pad = -1 if self.backbone.pad_id is None else self.backbone.pad_id
        following = (tokens[:, frame, 0] + 1) % size
        tokens[:, frame, 0] = torch.where(following == pad, (following + 1) % size, following)
        return tokens

    @torch.no_grad()
    def logits(self, made: RetrofittedDALLE, **changes: Tensor) -> Tensor:
        """Image logits (story, frame, position, code)."""
        given = {"tokens": self.tokens, "codes": self.codes, "source": self.source, "mask": self.mask, **changes}
        return made(**given).image.unflatten(0, given["mask"].shape)


def woken(make: MakeBackbone) -> tuple[Backbone, Inputs]:
    torch.manual_seed(0)
    backbone = make().eval()
    awake(backbone)
    return backbone, Inputs(backbone)


def retrofitted(make: MakeBackbone, is_awake: bool = True, **options: Any) -> tuple[RetrofittedDALLE, Inputs]:
    torch.manual_seed(0)
    made = retrofit(make(), **options).eval()
    awake(made if is_awake else made.backbone)
    return made, Inputs(made.backbone)


# ----------------------------------------------------------------------------------------------- a backbone alone


def a_fresh_backbone_knows_nothing(make: MakeBackbone) -> None:
    torch.manual_seed(0)
    backbone = make().eval()
    inputs = Inputs(backbone)
    logits = backbone(inputs.captions, inputs.frames)
    image = nn.functional.cross_entropy(logits.image.flatten(0, 1), inputs.frames.flatten())
    assert abs(image.item() - math.log(backbone.num_codes)) < 0.1
    assert (logits.text is not None) == backbone.predicts_text
    if logits.text is not None:
        text = nn.functional.cross_entropy(logits.text.flatten(0, 1), logits.text_targets.flatten())
        assert abs(text.item() - math.log(backbone.text_vocab_size)) < 0.1


def a_code_is_predicted_from_the_caption_and_earlier_codes_only(make: MakeBackbone) -> None:
    backbone, inputs = woken(make)
    embedded: dict[str, Tensor] = {}

    def kept(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _inputs, out: embedded.update({name: out}) or out.retain_grad()  # type: ignore[func-returns-value]

    tables = {"tokens": backbone.word_tables[0].weight, "codes": backbone.code_table}
    for name, table in tables.items():
        (module,) = (each for each in backbone.modules() if is_embedding_of(each, table))
        module.register_forward_hook(kept(name))
    length = backbone.image_length
    for position in range(length):
        backbone(inputs.captions[:1], inputs.frames[:1]).image[0, position].sum().backward()
        reach = embedded["codes"].grad[0].abs().sum(-1) > 0  # type: ignore[index]
        num_starts = len(reach) - (length - 1)  # embedded ahead of the first code
        assert reach.tolist() == [i < position + num_starts for i in range(len(reach))]
        assert (embedded["tokens"].grad[0].abs().sum(-1) > 0).all()  # type: ignore[index]


def is_embedding_of(module: nn.Module, table: Tensor) -> bool:
    return isinstance(module, nn.Embedding) and module.weight.data_ptr() == table.data_ptr()


def the_last_code_is_read_by_nobody(make: MakeBackbone) -> None:
    backbone, inputs = woken(make)
    changed = inputs.frames.clone()
    changed[:, -1] = (changed[:, -1] + 1) % backbone.num_codes
    assert torch.equal(backbone(inputs.captions, inputs.frames).image, backbone(inputs.captions, changed).image)


@torch.no_grad()
def a_row_is_the_same_alone_and_whatever_padding_others_force_on_it(make: MakeBackbone) -> None:
    backbone, inputs = woken(make)
    captions = inputs.captions if backbone.pad_id is None else inputs.padded()
    if backbone.pad_id is not None:
        captions[1] = backbone.pad_id  # nothing but padding: legal, and the same in any batch
    together = backbone(captions, inputs.frames).image
    assert together.isfinite().all()
    for row in range(len(captions)):
        close(backbone(captions[row : row + 1], inputs.frames[row : row + 1]).image[0], together[row])


@torch.no_grad()
def decoding_with_the_cache_equals_the_full_forward(make: MakeBackbone) -> None:
    backbone, inputs = woken(make)
    tokens = inputs.captions if backbone.pad_id is None else inputs.padded()
    for num_candidates in (1, 4):
        codes = torch.randint(0, backbone.num_codes, (len(tokens) * num_candidates, backbone.image_length))
        for num_prefix in (0, 2):
            prefix = torch.randn(len(tokens), num_prefix, backbone.dim) if num_prefix else None
            copies = [None if x is None else x.repeat_interleave(num_candidates, 0) for x in (tokens, prefix)]
            full = backbone(copies[0], codes, copies[1]).image
            cache = backbone.new_cache(len(tokens), num_prefix + tokens.shape[1])
            steps = [backbone(tokens, None, prefix, cache=cache).image.repeat_interleave(num_candidates, 0)]
            cache.repeat(num_candidates)
            steps += [backbone(None, code[:, None], cache=cache).image for code in codes.T[:-1]]
            assert [step.shape[1] for step in steps] == [1] * backbone.image_length
            close(torch.cat(steps, 1), full)


def hooks_act_at_the_positions_that_predict_a_code_and_nowhere_else(make: MakeBackbone) -> None:
    backbone, inputs = woken(make)
    columns = []

    def hook(x: Tensor) -> Tensor:
        columns.append(x.shape[1])
        return torch.randn_like(x)

    plain = backbone(inputs.captions, inputs.frames)
    hooked = backbone(inputs.captions, inputs.frames, hooks=[None, hook, *[None] * (backbone.depth - 2)])
    assert columns == [backbone.image_length]
    assert differs(plain.image, hooked.image).all()
    assert plain.text is None or torch.equal(plain.text, hooked.text)


def a_caption_of_another_length_is_refused_with_both_numbers(make: MakeBackbone) -> None:
    backbone, inputs = woken(make)
    length = backbone.text_length
    with pytest.raises(ValueError, match=rf"{length - 2} tokens.*takes {length}"):
        backbone(inputs.captions[:, 2:], None)


# ----------------------------------------------------------------------------------------------- in a retrofit


def a_fresh_retrofit_leaves_the_backbone_as_it_was(make: MakeBackbone) -> None:
    for options in ({"story_depth": 0}, {}):
        made, inputs = retrofitted(make, is_awake=False, **options)
        story = made.encode_story(inputs.tokens, inputs.mask)
        backbone = made.backbone(inputs.captions, inputs.frames, None if story is None else story.flatten(0, 1)).image
        assert torch.equal(inputs.logits(made).flatten(0, 1), backbone)


def the_source_changes_every_logit_of_its_own_story_alone(make: MakeBackbone) -> None:
    for source_blocks in ("all", "third", [1]):
        made, inputs = retrofitted(make, source_blocks=source_blocks)
        source = inputs.source.clone()
        source[1] = (source[1] + 1) % made.backbone.num_codes
        changed = differs(inputs.logits(made), inputs.logits(made, source=source))
        assert changed[1].all(), "a source reaches every code of its frames, the first one too"
        assert not changed[0].any(), "a story ignores the sources of others"


def another_frames_caption_changes_every_logit_of_a_frame(make: MakeBackbone) -> None:
    made, inputs = retrofitted(make)
    for frame in range(FRAMES):
        assert differs(inputs.logits(made), inputs.logits(made, tokens=inputs.other_caption(frame))).all()


def prompt_tokens_change_every_logit(make: MakeBackbone) -> None:
    made, inputs = retrofitted(make, num_prompt_tokens=4)
    before = inputs.logits(made)
    assert made.prompt_tokens is not None
    nn.init.normal_(made.prompt_tokens.embedding.weight)
    assert differs(before, inputs.logits(made)).all()


def frames_do_not_see_each_others_codes(make: MakeBackbone) -> None:
    made, inputs = retrofitted(make)
    codes = inputs.codes.clone()
    codes[:, 1] = (codes[:, 1] + 1) % made.backbone.num_codes
    changed = differs(inputs.logits(made), inputs.logits(made, codes=codes))
    assert not changed[:, [0, 2]].any()
    assert changed[:, 1, 1:].all() and not changed[:, 1, 0].any()


def frames_that_do_not_exist_change_nothing(make: MakeBackbone) -> None:
    made, inputs = retrofitted(make)
    mask = inputs.mask.clone()
    mask[:, 2] = False
    padded = inputs.logits(made, mask=mask)[:, :2]
    assert not differs(padded, inputs.logits(made, mask=mask, tokens=inputs.other_caption(2))[:, :2]).any()
    shorter = {"tokens": inputs.tokens[:, :2], "codes": inputs.codes[:, :2], "mask": mask[:, :2]}
    close(inputs.logits(made, **shorter), padded)


def a_story_alone_equals_its_row_of_a_batch(make: MakeBackbone) -> None:
    for options in ({"num_story_tokens": 2}, {"num_story_tokens": 2, "num_prompt_tokens": 3}):
        made, inputs = retrofitted(make, **options)
        together = inputs.logits(made)
        for row in range(STORIES):
            one = {name: getattr(inputs, name)[row : row + 1] for name in ("tokens", "codes", "source", "mask")}
            close(inputs.logits(made, **one), together[row : row + 1])


def every_weight_that_acts_is_trained(make: MakeBackbone, **options: Any) -> None:
    """All that the logits depend on are parameters, and each of them has a gradient."""
    made, inputs = retrofitted(make, num_prompt_tokens=2, **options)
    logits = made(inputs.tokens, inputs.codes, inputs.source, inputs.mask).image
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), inputs.frames.flatten())
    known = {id(parameter) for parameter in made.parameters()}
    assert all(id(leaf) in known for leaf in leaves(loss)), "a weight acts that no optimizer would get"
    loss.backward()
    of_text = {id(table.weight) for table in made.backbone.word_tables[1:]}  # heads of what is not asked for here
    trained = [(name, value) for name, value in made.named_parameters() if id(value) not in of_text]
    assert [name for name, value in trained if value.grad is None or not value.grad.any()] == []


def every_weight_that_acts_is_saved(make: MakeBackbone, **options: Any) -> None:
    """A fresh network that takes the state dict is a copy of the old one."""
    made, inputs = retrofitted(make, num_prompt_tokens=2, **options)
    again = retrofit(make(), num_prompt_tokens=2, **options).eval()
    again.load_state_dict(made.state_dict())
    assert torch.equal(inputs.logits(made), inputs.logits(again))


def leaves(result: Tensor) -> Iterator[Tensor]:
    """The tensors that take part in a result and would get a gradient."""
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [before for before, _ in node.next_functions]


# ----------------------------------------------------------------------------------------------- while it decodes


def prompt(made: RetrofittedDALLE, inputs: Inputs, seed: int = 0, **changes: Tensor) -> Prompt:
    tokens, source = changes.get("tokens", inputs.tokens), changes.get("source", inputs.source)
    keys = [FrameKey(seed, story, frame) for story in range(STORIES) for frame in range(FRAMES)]
    with torch.no_grad():
        return Prompt(tokens, made.encode_story(tokens, inputs.mask), source, keys)


def decoded(made: RetrofittedDALLE, given: Prompt, code: int = 0) -> Tensor:
    """Logits of every step (position, row, code) where each step is followed by the same code."""
    steps: list[Tensor] = []
    hook = made.backbone.register_forward_hook(lambda _module, _inputs, out: steps.append(out.image[:, -1]))
    with pytest.MonkeyPatch.context() as patch:
        forced = torch.full((STORIES * FRAMES,), code)
        patch.setattr("storydalle.models.story_dalle.sampling.choose", lambda logits, uniform, sampling: forced)
        sample(made, given, window=1)
    hook.remove()
    return torch.stack(steps)


def source_and_story_act_at_the_first_and_at_the_last_step_of_decoding(make: MakeBackbone) -> None:
    made, inputs = retrofitted(make)
    given = prompt(made, inputs)
    base = decoded(made, given)
    assert len(base) == made.backbone.image_length
    source = (inputs.source + 1) % made.backbone.num_codes
    story = prompt(made, inputs, tokens=inputs.other_caption(1)).story
    for name, changed in (("source", given._replace(source=source)), ("story", given._replace(story=story))):
        moved = differs(base, decoded(made, changed))
        assert moved[0].all(), f"{name} at the first step"
        assert moved[-1].all(), f"{name} at the last step"


def greedy_codes_are_the_argmax_of_the_full_forward(make: MakeBackbone) -> None:
    for num_story_tokens in (1, 2):
        for num_prompt_tokens in (0, 3):
            made, inputs = retrofitted(make, num_story_tokens=num_story_tokens, num_prompt_tokens=num_prompt_tokens)
            drawn = sample(made, prompt(made, inputs), sampling=CodeSampling(temperature=0))
            codes = drawn.codes[:, 0].view_as(inputs.codes)
            logits = inputs.logits(made, codes=codes)
            assert torch.equal(logits.argmax(-1), codes)
            likelihood = logits.log_softmax(-1).gather(-1, codes[..., None]).sum((-1, -2)).flatten()
            torch.testing.assert_close(drawn.log_likelihood[:, 0], likelihood, atol=5e-4, rtol=1e-4)


def guidance_mixes_with_and_without_the_caption(make: MakeBackbone) -> None:
    made, inputs = retrofitted(make)
    full, empty = prompt(made, inputs), torch.full_like(inputs.tokens, made.backbone.pad_id or 0)
    bare = prompt(made, inputs, tokens=empty)
    codes = sample(made, full, sampling=CodeSampling(0, guidance=3.0), without_caption=bare).codes[:, 0]
    codes = codes.view_as(inputs.codes)
    given, without = inputs.logits(made, codes=codes), inputs.logits(made, codes=codes, tokens=empty)
    assert torch.equal((without + 3 * (given - without)).argmax(-1), codes)


def a_seed_draws_the_same_in_any_company(make: MakeBackbone) -> None:
    """In waves, for more candidates, and for a frame alone; another seed draws something else."""
    made, inputs = retrofitted(make)

    def draw(num_candidates: int, seed: int = 5, **options: Any) -> Sampled:
        return sample(made, prompt(made, inputs, seed), num_candidates, **options)

    whole, codes = prompt(made, inputs, 5), draw(3).codes
    assert torch.equal(codes, draw(3).codes) and not torch.equal(codes, draw(3, seed=6).codes)
    assert torch.equal(codes[:, :1], draw(1).codes)
    assert torch.equal(codes, draw(3, max_rows=2).codes)
    assert len({tuple(row.tolist()) for row in codes.flatten(0, 1)}) == STORIES * FRAMES * 3
    assert codes.max() < made.backbone.num_codes
    assert whole.story is not None and whole.source is not None
    for row, (story, frame) in enumerate((story, frame) for story in range(STORIES) for frame in range(FRAMES)):
        one, at = slice(story, story + 1), slice(frame, frame + 1)
        alone = Prompt(whole.tokens[one, at], whole.story[one, at], whole.source[one], [whole.keys[row]])
        assert torch.equal(sample(made, alone, 3).codes[0], codes[row])


BACKBONE_CHECKS = (
    a_fresh_backbone_knows_nothing,
    a_code_is_predicted_from_the_caption_and_earlier_codes_only,
    the_last_code_is_read_by_nobody,
    a_row_is_the_same_alone_and_whatever_padding_others_force_on_it,
    decoding_with_the_cache_equals_the_full_forward,
    hooks_act_at_the_positions_that_predict_a_code_and_nowhere_else,
    a_caption_of_another_length_is_refused_with_both_numbers,
    a_fresh_retrofit_leaves_the_backbone_as_it_was,
    the_source_changes_every_logit_of_its_own_story_alone,
    another_frames_caption_changes_every_logit_of_a_frame,
    prompt_tokens_change_every_logit,
    frames_do_not_see_each_others_codes,
    frames_that_do_not_exist_change_nothing,
    a_story_alone_equals_its_row_of_a_batch,
    every_weight_that_acts_is_trained,
    every_weight_that_acts_is_saved,
    source_and_story_act_at_the_first_and_at_the_last_step_of_decoding,
    greedy_codes_are_the_argmax_of_the_full_forward,
    guidance_mixes_with_and_without_the_caption,
    a_seed_draws_the_same_in_any_company,
)
