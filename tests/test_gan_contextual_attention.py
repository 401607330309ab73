"""Contextual attention against a naive double loop, and what it must do by hand-made cases."""

import math

import pytest
import torch
from torch import Tensor

from storydalle.models.story_gan.contextual_attention import (
    ContextualAttention,
    contextual_attention,
    entropy,
    overlap_mean,
)

KERNEL = 3


def patch(image: Tensor, y: int, x: int) -> Tensor:
    """The 3 x 3 patch around a pixel, zeros beyond the border."""
    channels, height, width = image.shape
    found = torch.zeros(channels, KERNEL, KERNEL, dtype=image.dtype)
    for i in range(KERNEL):
        for j in range(KERNEL):
            row, column = y + i - 1, x + j - 1
            if 0 <= row < height and 0 <= column < width:
                found[:, i, j] = image[:, row, column]
    return found


def naive(query: Tensor, source: Tensor, scale: float) -> Tensor:
    """Yu et al.'s layer for one map, a place at a time."""
    _, height, width = query.shape
    places = [(y, x) for y in range(source.shape[1]) for x in range(source.shape[2])]
    filters = [patch(source, *place) for place in places]
    total, times = torch.zeros_like(query), torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            asked = patch(query, y, x)
            cosines = [float((asked * f).sum() / (asked.norm() * f.norm())) for f in filters]
            powers = [math.exp(scale * cosine) for cosine in cosines]
            pasted = sum(power / sum(powers) * f for power, f in zip(powers, filters, strict=True))
            for i in range(KERNEL):
                for j in range(KERNEL):
                    row, column = y + i - 1, x + j - 1
                    if 0 <= row < height and 0 <= column < width:
                        total[:, row, column] += pasted[:, i, j]
                        times[row, column] += 1
    return total / times


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_contextual_attention_equals_a_naive_double_loop() -> None:
    queries, sources = maps(2, 3, 4, 5, 4), maps(2, 4, 5, 4, seed=1)
    found = contextual_attention(queries, sources, 10.0).copied
    for story in range(2):
        for frame in range(3):
            expected = naive(queries[story, frame], sources[story], 10.0)
            assert torch.allclose(found[story, frame], expected, rtol=0, atol=1e-10)


def test_weights_sum_to_one_over_the_source() -> None:
    queries, source = maps(1, 2, 3, 4, 4), maps(1, 3, 2, 3)  # 16 places ask, twice, and 6 answer
    attended = contextual_attention(queries[..., :2, :3], source, 5.0)
    assert attended.weights.shape == (1, 6, 12)
    assert torch.allclose(attended.weights.sum(1), torch.ones(1, 12, dtype=torch.double))
    assert not torch.allclose(attended.weights.sum(2), torch.full((1, 6), 2.0, dtype=torch.double))


@pytest.mark.parametrize(("scale", "error"), [(50.0, 1e-6), (10.0, 1e-1)])
def test_a_sharp_map_attending_to_itself_is_itself(scale: float, error: float) -> None:
    source = maps(1, 16, 5, 6)
    copied = contextual_attention(source[:, None], source, scale).copied[:, 0]
    assert (copied - source).norm() / source.norm() < error


def test_a_patch_is_pasted_where_the_query_looks_like_it() -> None:
    source = torch.zeros(1, 4, 8, 8, dtype=torch.double)
    source[0, :, 1:4, 1:4] = maps(4, 3, 3)
    query = torch.zeros_like(source)
    query[0, :, 4:7, 5:8] = source[0, :, 1:4, 1:4]  # moved by (3, 4)
    copied = contextual_attention(query[:, None], source, 100.0).copied[0, 0]
    assert torch.allclose(copied[:, 5, 6], source[0, :, 2, 2], atol=1e-6)
    assert copied[:, 0, 0].norm() < 0.3 * source[0, :, 2, 2].norm()


def test_a_constant_source_is_constant_up_to_its_borders() -> None:
    ones = torch.ones(1, 2 * KERNEL**2, 20, dtype=torch.double)
    assert torch.equal(overlap_mean(ones, (4, 5), KERNEL), torch.ones(1, 2, 4, 5, dtype=torch.double))


def test_a_story_attends_to_its_own_source_alone() -> None:
    queries, sources = maps(2, 2, 3, 4, 4), maps(2, 3, 4, 4, seed=1)
    before = contextual_attention(queries, sources, 10.0).copied
    sources[1] += 1
    after = contextual_attention(queries, sources, 10.0).copied
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_entropy_is_zero_for_one_patch_and_log_of_their_number_for_all() -> None:
    one = torch.zeros(1, 8, 3)
    one[:, 2] = 1
    exists = torch.ones(1, 1, dtype=torch.bool)
    assert entropy(one, exists) == 0
    assert entropy(torch.full((1, 8, 3), 1 / 8), exists).item() == pytest.approx(math.log(8), rel=1e-6)


def test_the_directions_copy_from_where_they_say() -> None:
    story, source = maps(1, 2, 3, 4, 4).float(), maps(1, 3, 4, 4, seed=1).float()
    copied = {}
    for direction in ("copy_source", "copy_story"):
        layer = ContextualAttention(3, direction, scale=90.0)
        torch.nn.init.dirac_(layer.out.weight)
        torch.nn.init.zeros_(layer.out.bias)
        copied[direction] = layer(story, source, torch.ones(1, 2, dtype=torch.bool))[0] - story
    expected = contextual_attention(story, source, 90.0).copied
    assert torch.allclose(copied["copy_source"], expected, atol=1e-5)
    for frame in range(2):
        pasted = naive(source[0].double(), story[0, frame].double(), 90.0)
        assert torch.allclose(copied["copy_story"][0, frame].double(), pasted, atol=1e-4)


def test_the_scale_is_learned_and_capped() -> None:
    layer = ContextualAttention(3)
    assert layer.scale.item() == pytest.approx(10.0)
    story, source = maps(1, 1, 3, 4, 4).float(), maps(1, 3, 4, 4, seed=1).float()
    layer(story, source, torch.ones(1, 1, dtype=torch.bool))[0].square().sum().backward()
    assert layer.log_scale.grad is not None and layer.log_scale.grad != 0
    torch.nn.init.constant_(layer.log_scale, 9.0)
    assert layer.scale.item() == 100.0


def test_unknown_directions_and_even_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="copy_source, copy_story, off"):
        ContextualAttention(3, "sideways")
    with pytest.raises(ValueError, match="kernel_size=2"):
        ContextualAttention(3, kernel_size=2)
