"""Sampling: the loop equals a full forward, the noise is keyed by place, and every option does what it says."""

import pytest
import torch

from storydalle.mistakes import MAX_SEED
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import (
    CodeSampling,
    FrameKey,
    Prompt,
    Sampled,
    cache_bytes,
    choose,
    plan_waves,
    sample,
    uniforms,
)
from tests.reference import kept_by_filters
from tests.test_retrofit import FRAMES, LENGTH, STORIES, Inputs, model


def prompt(made: RetrofittedDALLE, inputs: Inputs, seed: int = 0) -> Prompt:
    keys = [FrameKey(seed, story, frame) for story in range(STORIES) for frame in range(FRAMES)]
    with torch.no_grad():
        return Prompt(inputs.tokens, made.encode_story(inputs.tokens, inputs.mask), inputs.source, keys)


def draw(made: RetrofittedDALLE, num_candidates: int = 2, seed: int = 0, **options) -> Sampled:
    return sample(made, prompt(made, Inputs(), seed), num_candidates, **options)


@pytest.mark.parametrize("num_story_tokens", [1, 2])
@pytest.mark.parametrize("num_prompt_tokens", [0, 3])
def test_greedy_codes_are_the_argmax_of_the_full_forward(num_story_tokens, num_prompt_tokens):
    made = model(num_story_tokens=num_story_tokens, num_prompt_tokens=num_prompt_tokens)
    inputs = Inputs()
    drawn = sample(made, prompt(made, inputs), sampling=CodeSampling(temperature=0))
    codes = drawn.codes[:, 0].view(STORIES, FRAMES, LENGTH)
    logits = inputs.logits(made, codes=codes)
    assert torch.equal(logits.argmax(-1), codes)
    likelihood = logits.log_softmax(-1).gather(-1, codes[..., None]).sum((-1, -2)).flatten()
    torch.testing.assert_close(drawn.log_likelihood[:, 0], likelihood, atol=1e-4, rtol=1e-4)


def test_source_and_story_act_at_the_first_and_at_the_last_step_of_decoding():
    made, inputs = model(), Inputs()
    steps: list[torch.Tensor] = []
    handle = made.backbone.head_img.register_forward_hook(lambda _m, _i, out: steps.append(out[:, -1]))
    runs = {}
    tokens = inputs.tokens.clone()
    tokens[:, 1, 0] = tokens[:, 1, 0] % 39 + 1
    base = prompt(made, inputs)
    other_story = made.encode_story(tokens, inputs.mask)
    forced = torch.zeros(STORIES * FRAMES, 1, LENGTH, dtype=torch.long)
    for name, changed in (
        ("base", base),
        ("source", base._replace(source=(inputs.source + 1) % 30)),
        ("story", base._replace(story=other_story)),
    ):
        steps.clear()
        with pytest.MonkeyPatch.context() as patch:  # the same codes in every run: only the conditions differ
            patch.setattr(
                "storydalle.models.story_dalle.sampling.choose", lambda logits, uniform, sampling: forced[:, 0, 0]
            )
            sample(made, changed)
        runs[name] = torch.stack(list(steps))
    handle.remove()
    for name in ("source", "story"):
        moved = ((runs[name] - runs["base"]).abs() > 1e-4).any(-1)
        assert moved.shape[0] == LENGTH
        assert moved[0].all(), name
        assert moved[-1].all(), name


def test_the_same_seed_draws_the_same_and_another_seed_does_not():
    made = model()
    assert torch.equal(draw(made, seed=5).codes, draw(made, seed=5).codes)
    assert not torch.equal(draw(made, seed=5).codes, draw(made, seed=6).codes)


def test_a_candidate_is_the_same_however_many_are_drawn():
    made = model()
    assert torch.equal(draw(made, 1).codes[:, 0], draw(made, 5).codes[:, 0])


def test_candidates_frames_and_stories_differ():
    made = model()
    codes = draw(made, 3).codes
    assert len({tuple(row.tolist()) for row in codes.flatten(0, 1)}) == STORIES * FRAMES * 3


def test_a_frame_is_the_same_picture_whatever_it_is_batched_with():
    made, inputs = model(), Inputs()
    whole = prompt(made, inputs)
    together = sample(made, whole, 2).codes
    for story in range(STORIES):
        for frame in range(FRAMES):
            one, at = slice(story, story + 1), slice(frame, frame + 1)
            row = story * FRAMES + frame
            alone = Prompt(whole.tokens[one, at], whole.story[one, at], whole.source[one], [whole.keys[row]])
            assert torch.equal(sample(made, alone, 2).codes[0], together[row])


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
def test_waves_draw_what_one_batch_draws(rows):
    made = model()
    few = draw(made, 4, max_bytes=rows * cache_bytes(made, 1))
    many = draw(made, 4)
    assert torch.equal(few.codes, many.codes)
    torch.testing.assert_close(few.log_likelihood, many.log_likelihood, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("max_rows", [1, 2, 3, 4, 7, 24, 1000])
def test_waves_cover_the_request_once_and_fit(max_rows):
    seen = []
    for wave in plan_waves(2, 3, 4, max_rows):
        box = [(s, f, k) for s in wave.stories for f in wave.frames for k in wave.candidates]
        assert len(box) <= max_rows
        seen += box
    assert sorted(seen) == [(s, f, k) for s in range(2) for f in range(3) for k in range(4)]


def test_progress_runs_to_the_end_over_all_waves():
    made, calls = model(), []
    draw(made, 2, max_bytes=6 * cache_bytes(made, 1), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, 2 * LENGTH) for i in range(2 * LENGTH)]


def test_uniform_numbers_are_keyed_by_every_part_of_their_place():
    base = uniforms([FrameKey(1, 2, 3)], range(2), 4)
    assert base.shape == (1, 2, 4)
    assert len(base.unique()) == 8
    for key in (FrameKey(0, 2, 3), FrameKey(1, 0, 3), FrameKey(1, 2, 0)):
        assert not torch.isclose(uniforms([key], range(2), 4), base).any()
    assert torch.equal(uniforms([FrameKey(1, 2, 3)], range(1, 2), 4)[:, 0], base[:, 1])


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused_by_name(seed):
    with pytest.raises(ValueError, match=f"seed={seed}"):
        uniforms([FrameKey(seed, 0, 0)], range(1), 1)


@pytest.mark.parametrize("top_k", [None, 1, 3, 8, 100])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_filters_keep_what_the_slow_reference_keeps(temperature, top_k, top_p):
    logits = torch.randn(1, 8, generator=torch.Generator().manual_seed(3)) * 2
    uniform = torch.linspace(0, 1, 2001)[:-1]
    settings = CodeSampling(temperature, top_k, top_p)
    drawn = set(choose(logits.expand(len(uniform), -1), uniform, settings).tolist())
    kept = kept_by_filters(logits[0], temperature, top_k, top_p)
    if top_k is None and top_p is None:  # the rarest codes may lie between two grid points
        assert drawn <= kept
    else:
        shares = (logits[0] / temperature).softmax(0)
        assert drawn <= kept
        assert {code for code in kept if shares[code] > 1e-3} <= drawn


def test_codes_are_drawn_with_the_probabilities_of_the_model():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    drawn = choose(logits.expand(len(uniform), -1), uniform, CodeSampling())
    torch.testing.assert_close(drawn.bincount(minlength=4) / 20_000, logits[0].softmax(0), atol=1e-3, rtol=0)


def test_a_code_without_probability_is_never_chosen():
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")]])
    for uniform in (0.0, 0.5, 1.0 - 1e-12):
        assert choose(logits, torch.tensor([uniform], dtype=torch.double), CodeSampling()).item() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"guidance": -1},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CodeSampling(**wrong)


def test_guidance_mixes_with_and_without_the_caption():
    made, inputs = model(), Inputs()
    full = prompt(made, inputs)
    empty = torch.zeros_like(inputs.tokens)
    bare = full._replace(tokens=empty, story=made.encode_story(empty, inputs.mask))
    codes = sample(made, full, sampling=CodeSampling(0, guidance=3.0), without_caption=bare).codes[:, 0]
    codes = codes.view(STORIES, FRAMES, LENGTH)
    given, without = inputs.logits(made, codes=codes), inputs.logits(made, codes=codes, tokens=empty)
    assert torch.equal((without + 3 * (given - without)).argmax(-1), codes)
    with pytest.raises(ValueError, match="guidance"):
        sample(made, full, sampling=CodeSampling(guidance=3.0))
