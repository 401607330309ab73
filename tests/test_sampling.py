"""Sampling: waves, keyed noise and filters; ``test_conformance.py`` compares its loop with a full forward."""

import pytest
import torch

from storydalle.mistakes import MAX_SEED
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import (
    CodeSampling,
    FrameKey,
    Sampled,
    choose,
    plan_waves,
    sample,
    uniforms,
)
from tests.conformance_backbones import Inputs, prompt, retrofitted
from tests.reference import kept_by_filters
from tests.tiny_backbones import LENGTH, tiny_dalle


def draw(made: RetrofittedDALLE, num_candidates: int = 2, seed: int = 0, **options) -> Sampled:
    return sample(made, prompt(made, Inputs(made.backbone), seed), num_candidates, **options)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
def test_waves_draw_what_one_batch_draws(rows):
    made, _ = retrofitted(tiny_dalle)
    few = draw(made, 4, max_rows=rows)
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
    (made, _), calls = retrofitted(tiny_dalle), []
    draw(made, 2, max_rows=6, progress=lambda done, total: calls.append((done, total)))
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
