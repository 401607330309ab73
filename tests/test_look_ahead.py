"""Several codes a step: the codes of the plain loop, in fewer steps where guesses are right."""

import math

import pytest
import torch
from torch import Tensor

from storydalle.models.packing import LARGE
from storydalle.models.story_dalle.look_ahead import draw_ahead, window_for
from storydalle.models.story_dalle.sampling import CodeSampling, sample
from tests.test_packing import drawing_model, story_prompt

ROWS, LENGTH, CODES = 3, 20, 7


class Chain:
    """A model whose next code follows from the last one and a number of its place, and that counts its steps."""

    def __init__(self) -> None:
        self.shifts = torch.randint(0, CODES, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
        self.first = torch.zeros(ROWS, dtype=torch.long)
        self.steps, self.known = 0, list[int]()

    def __call__(self, codes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        self.steps += 1
        assert places.max() <= LENGTH - 2, "the last code is never read"
        following = (codes + self.shifts.gather(1, places + 1)) % CODES
        return following, 1.0 + (places + 1).float()

    def codes(self) -> Tensor:
        """Drawn one by one."""
        found = [self.first]
        for place in range(1, LENGTH):
            found.append((found[-1] + self.shifts[:, place]) % CODES)
        return torch.stack(found, 1)


@pytest.mark.parametrize("most", [1, 2, 4, 8, 30])
@pytest.mark.parametrize("share_right", [0.0, 0.5, 1.0])
def test_all_codes_are_those_that_are_drawn_one_by_one(most: int, share_right: float) -> None:
    chain = Chain()
    expected = chain.codes()
    is_right = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1)) < share_right
    guesses = expected.where(is_right, (expected + 1) % CODES)
    codes, nats = draw_ahead(chain, chain.first, guesses, most, chain.known.append)
    assert torch.equal(codes, expected)
    assert nats.tolist() == [sum(1 + place for place in range(1, LENGTH))] * ROWS, "each code's nats count once"
    assert chain.known == sorted(chain.known) and chain.known[-1] == LENGTH and len(chain.known) == chain.steps
    if share_right == 1 and most in (4, 8):
        assert chain.steps == math.ceil((LENGTH - 1) / most)
    assert chain.steps <= LENGTH - 1


def test_a_step_tries_fewer_codes_where_guesses_are_wrong() -> None:
    chain, tried = Chain(), list[int]()

    def draw(codes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        tried.append(codes.shape[1])
        # What follows a wrong guess is as wrong: the sum of all shifts is off by as much.
        return chain(codes, places)

    draw_ahead(draw, chain.first, (chain.codes() + 1) % CODES, 8, chain.known.append)
    assert tried[0] == 8 and tried[-1] == 1 and tried == sorted(tried, reverse=True)
    assert chain.steps > LENGTH / 2


@pytest.mark.parametrize("kind", ["dalle", "mega"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("with_source", [True, False])
@pytest.mark.parametrize("sampling", [CodeSampling(0.0), CodeSampling(0.3), CodeSampling(top_k=8, top_p=0.9)], ids=str)
def test_a_model_draws_the_same_codes_with_every_window(
    sampling: CodeSampling, with_source: bool, guidance: float, kind: str
) -> None:
    model = drawing_model(kind)
    prompt = story_prompt(model)
    if not with_source:
        prompt = prompt._replace(source=None)
    bare = prompt._replace(tokens=torch.zeros_like(prompt.tokens))
    sampling = CodeSampling(sampling.temperature, sampling.top_k, sampling.top_p, guidance)
    whole = sample(model, prompt, sampling=sampling, without_caption=bare, window=1)
    for window in (3, 8):
        counted = list[int]()
        ahead = sample(
            model,
            prompt,
            sampling=sampling,
            without_caption=bare,
            window=window,
            progress=lambda done, steps, counted=counted: counted.append(done),
        )
        assert torch.equal(ahead.codes, whole.codes)
        torch.testing.assert_close(ahead.log_likelihood, whole.log_likelihood, atol=1e-4, rtol=1e-4)
        assert counted[0] == 1 and counted[-1] == model.backbone.image_length


@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_a_training_in_bf16_draws_several_codes_a_step_too(kind: str) -> None:
    model = drawing_model(kind)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = sample(model, story_prompt(model), window=4)
    assert drawn.log_likelihood.isfinite().all() and drawn.codes.max() < model.backbone.num_codes


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_codes_read_anew_in_their_places_equal_the_full_forward(kind: str) -> None:
    """Each row at places of its own, first with other codes, which leave nothing behind."""
    model = drawing_model(kind)
    backbone, tokens = model.backbone, story_prompt(model).tokens.flatten(0, 1)
    rows, length = len(tokens), backbone.image_length
    codes = torch.randint(backbone.num_codes, (rows, length))
    full, cache = backbone(tokens, codes).image, backbone.new_cache(rows, tokens.shape[1])
    backbone(tokens, None, cache=cache)
    places = torch.arange(3).expand(rows, -1)
    for _ in range(length):
        cache.place(places)
        wrong = backbone(None, (codes.gather(1, places) + 1) % backbone.num_codes, cache=cache).image
        right = backbone(None, codes.gather(1, places), cache=cache).image
        expected = full.gather(1, (places + 1)[..., None].expand_as(right))
        torch.testing.assert_close(right, expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(wrong, expected, atol=1e-3)
        places = (places + torch.arange(rows)[:, None] % 3).clamp(max=length - 2)  # some rows run ahead


def test_the_source_is_the_first_guess() -> None:
    """Where the frame is the source, a few steps draw all of it."""
    model = drawing_model()
    prompt = story_prompt(model)
    greedy = CodeSampling(0.0)
    prompt = prompt._replace(tokens=prompt.tokens[:1, :1], story=prompt.story[:1, :1], keys=prompt.keys[:1])
    model.source_attention.clear()  # so that the codes do not depend on the source, which is a guess alone

    def num_steps(source: Tensor) -> int:
        counted = list[int]()
        given = prompt._replace(source=source)
        sample(model, given, 1, greedy, window=8, progress=lambda done, _: counted.append(done))
        return len(counted)

    same = sample(model, prompt._replace(source=None), 1, greedy).codes
    assert num_steps(same) == 1 + math.ceil((model.backbone.image_length - 1) / 8) < num_steps(prompt.source[:1])


def test_a_window_is_wide_for_few_rows_of_small_weights_on_a_cpu_alone() -> None:
    model = drawing_model()
    assert [window_for(model, rows, 1) for rows in (1, 4, 8, 16, 20, 100)] == [8, 8, 4, 2, 1, 1]
    assert window_for(model, 4, num_candidates=2) == 1
    model.backbone.dim = math.isqrt(LARGE)
    assert window_for(model, 1, 1) == 1
