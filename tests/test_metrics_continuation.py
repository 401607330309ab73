"""Diagnostics of continuation on pictures and features whose scores follow from how they are made."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from storydalle.metrics.consistency import Consistency
from storydalle.metrics.copy_rate import CopyRate, copied_patches
from storydalle.metrics.drift import PositionScores
from storydalle.metrics.sensitivity import Diversity, InputSensitivity, Kind, distances

KINDS: tuple[Kind, ...] = ("pixels", "features")
IDS = [f"story {i}" for i in range(12)]
OTHERS = [*range(1, len(IDS)), 0]  # another story for each


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [-1, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def textured(*shape: int, seed: int = 0, side: int = 64) -> Tensor:
    """Pictures with texture at every scale that pooling leaves: noise in squares of 4 pixels of 64."""
    squares = noise(*shape, 3, side // 4 + 1, side // 4 + 1, seed=seed)
    return squares.repeat_interleave(4, -1).repeat_interleave(4, -2)[..., 1 : side + 1, 2 : side + 2]


def all_of(frames: Tensor) -> Tensor:
    return torch.ones(frames.shape[:2], dtype=torch.bool)


def copy_rates(frames: Tensor, source: Tensor, mask: Tensor | None = None) -> tuple[float, float]:
    """The rate, and the chance level against the next story's source."""
    metric = CopyRate()
    metric.update(frames, source, source.roll(1, 0), all_of(frames) if mask is None else mask)
    found = metric.compute()
    return found["copy_rate"], found["copy_rate_chance"]


def lengths_mask(num_stories: int, num_frames: int) -> Tensor:
    lengths = torch.arange(num_stories) % num_frames + 1
    return torch.arange(num_frames) < lengths[:, None]


def assert_same_in_any_order_and_batches(make: Callable[[], Any], inputs: list[Tensor]) -> None:
    """One batch of all stories, against batches of at most five in another order."""
    whole, parts = make(), make()
    whole.update(*inputs, ids=IDS)
    order = torch.randperm(len(IDS), generator=torch.Generator().manual_seed(3))
    for part in order.split(5):
        parts.update(*(value[part] for value in inputs), ids=[IDS[i] for i in part.tolist()])
    assert parts.compute() == pytest.approx(whole.compute(), abs=1e-12), "and no nan from where the mask is false"
    assert str(parts.compute_intervals(30)) == str(whole.compute_intervals(30))


# ------------------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("side", [32, 64, 96, 100, 128, 256])
def test_copies_have_rate_one_and_another_story_is_at_chance(side: int) -> None:
    source = textured(3, side=side)
    assert copy_rates(source[:, None].repeat(1, 2, 1, 1, 1), source) == (1, 0)


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("shift", [(1, 1), (-3, 2), (5, 0), (0, -8), (7, -7)])
def test_shifted_copies_have_rate_one(side: int, shift: tuple[int, int]) -> None:
    """A textured thing on a plain ground that moves, to any pixel, is still the source's."""
    source = torch.full((2, 3, side, side), 0.3)
    thing = side // 4 + 3
    source[..., thing:-thing, thing:-thing] = textured(2, side=side)[..., thing:-thing, thing:-thing]
    moved = source.roll(shift, (-2, -1))
    assert not torch.equal(moved, source)
    assert copy_rates(moved[:, None], source)[0] == 1


@pytest.mark.parametrize("shift", [4, 13])
def test_of_a_shifted_picture_exactly_the_patches_that_the_source_shows_are_copied(shift: int) -> None:
    canvas = textured(side=128)
    source, frame = canvas[:, 40:104, 40:104], canvas[:, 40:104, 40 - shift : 104 - shift]
    found = copied_patches(frame[None], source)
    assert found.textured.all()
    left = torch.arange(7) * 8  # of each column of patches, in pixels
    assert torch.equal(found.copied[0], (left >= shift).expand(7, 7))


@pytest.mark.parametrize("make", [noise, lambda *shape, seed: textured(*shape[:2], seed=seed)])
def test_unrelated_pictures_are_at_chance(make: Callable[..., Tensor]) -> None:
    frames, source = make(3, 2, 3, 64, 64, seed=1), make(3, 1, 3, 64, 64, seed=2)[:, 0]
    rate, chance = copy_rates(frames, source)
    assert rate == chance == 0


def test_pictures_with_something_in_common_are_at_a_chance_level_above_zero() -> None:
    """All pictures share their left third: what is copied from any source is no copy of the own one."""
    frames, source = textured(8, 4, seed=1), textured(8, seed=2)
    shared = textured(seed=3)[..., :24]
    frames[..., :24] = source[..., :24] = shared
    rate, chance = copy_rates(frames, source)
    assert rate == chance == 2 / 7, "patches at 0 and 8 of the columns 0, 8, ..., 48"


def test_half_a_copy_has_the_rate_of_its_patches() -> None:
    source = textured(2)
    frames = textured(2, 1, seed=9)
    frames[..., :40, :] = source[:, None, :, :40]
    assert copy_rates(frames, source)[0] == 4 / 7, "rows of patches at 0, 8, 16, 24 of 0, ..., 48"


def test_flat_ground_does_not_count() -> None:
    """Plain pictures of one colour with one unrelated textured thing: nearly all pixels agree, nothing is copied."""
    source, frames = torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 3, 64, 64)
    source[..., 20:44, 20:44] = textured(2, seed=1)[..., :24, :24]
    frames[..., 20:44, 20:44] = textured(2, 1, seed=2)[..., :24, :24]
    assert (frames - source[:, None] == 0).float().mean() > 0.8
    assert copy_rates(frames, source)[0] == 0
    plain = torch.tensor([0.8, -0.5, 0.1])[:, None, None] + 0.05 * noise(2, 1, 3, 64, 64)
    assert math.isnan(copy_rates(plain, source)[0]), "without texture nothing can be told"


def test_a_rate_is_of_textured_patches_alone() -> None:
    source = textured(2)
    frames = torch.zeros(2, 2, 3, 64, 64)
    frames[:, 0, :, :16, :16] = source[..., :16, :16]  # one patch is a copy, those that see part of it are not
    found = copied_patches(frames[0], source[0])
    assert found.textured.sum().item() == found.textured[0, :2, :2].sum().item() == 4
    assert found.copied.sum().item() == found.copied[0, 0, 0].item() == 1
    assert copy_rates(frames, source)[0] == 1 / 4


def test_noise_that_a_tokenizer_leaves_hides_no_copy_but_another_colour_is_none() -> None:
    source = textured(3)
    assert copy_rates(source[:, None] + 0.1 * noise(3, 1, 3, 64, 64, seed=5), source)[0] == 1
    assert copy_rates(source[:, None] * 0.9, source)[0] == 1
    assert copy_rates(-source[:, None], source)[0] == 0
    assert copy_rates(source.roll(1, 1)[:, None], source)[0] == 0, "channels swapped"


def test_nearest_windows_are_those_of_a_slow_search() -> None:
    frame, source = textured(seed=1), textured(seed=2)
    frame = frame * 0.3 + source.roll((3, 5), (-2, -1)) * 0.75
    pooled = [picture.unfold(1, 2, 1).unfold(2, 2, 1).mean((-2, -1)) for picture in (frame, source)]
    searched = pooled[1].unfold(1, 15, 1).unfold(2, 15, 1)[..., ::2, ::2]  # c, 49, 49, 8, 8
    copied = torch.zeros(7, 7, dtype=torch.bool)
    for row in range(7):
        for column in range(7):
            patch = pooled[0][:, 8 * row : 8 * row + 15 : 2, 8 * column : 8 * column + 15 : 2]
            contrast = (patch - patch.mean((1, 2), keepdim=True)).square().sum()
            misses = (searched - patch[:, None, None]).square().sum((0, 3, 4))
            copied[row, column] = misses.min() < 0.2 * contrast
    assert 0 < copied.sum() < 49
    assert torch.equal(copied_patches(frame[None], source).copied[0], copied)


def test_copy_rates_leave_out_what_the_mask_does_and_depend_on_no_batch() -> None:
    source = textured(12, seed=1)
    frames = torch.where(noise(12, 3, 1, 1, 1, seed=2) > 0, source[:, None], textured(12, 3, seed=3))
    mask = lengths_mask(12, 3)
    frames = torch.where(mask[..., None, None, None], frames, math.nan)
    others = OTHERS
    copies = (frames == source[:, None]).flatten(2).all(-1)
    metric = CopyRate()
    metric.update(frames, source, source[others], mask, IDS)
    assert metric.compute()["copy_rate"] == pytest.approx(copies[mask].double().mean().item())
    assert metric.counts() == {"stories": 12, "copy_rate": 49 * 24, "copy_rate_chance": 49 * 24}
    assert_same_in_any_order_and_batches(CopyRate, [frames, source, source[others], mask])
    empty = CopyRate()
    empty.update(frames[:2], source[:2], source[2:4], torch.zeros(2, 3, dtype=torch.bool))
    assert math.isnan(empty.compute()["copy_rate"])


# ------------------------------------------------------------------------------------------------- consistency


def consistency(features: Tensor, source: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    metric = Consistency()
    mask = all_of(features) if mask is None else mask
    metric.update(features, source, features.roll(1, 0), source.roll(1, 0), mask, mask.roll(1, 0))
    return metric.compute()


def test_consistency_of_vectors_is_that_counted_by_hand() -> None:
    features = torch.tensor([[[1.0, 0], [0, 2], [3, 3]], [[0, 1], [0, 4], [0, -1]]])
    source = torch.tensor([[5.0, 0], [0, 1]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]) > 0
    half = math.sqrt(0.5)
    found = consistency(features, source, mask)
    assert found["consistency_self"] == pytest.approx(((0 + half + half) / 3 + 1) / 2)
    assert found["consistency_source"] == pytest.approx(((1 + 0 + half) / 3 + 1) / 2)
    across = (0 + 0 + 1 + 1 + half + half) / 6  # each of the first story's frames with each of the second's
    assert found["consistency_self_chance"] == pytest.approx(across)
    assert found["consistency_source_chance"] == pytest.approx(((0 + 1 + half) / 3 + 0) / 2)


def test_copies_are_fully_consistent_and_unrelated_features_are_at_chance() -> None:
    source = noise(12, 64)
    copied = consistency(source[:, None].repeat(1, 4, 1), source)
    assert copied["consistency_self"] == pytest.approx(1) == copied["consistency_source"]
    assert abs(copied["consistency_self_chance"]) < 0.2
    common = noise(64, seed=7)  # what all pictures share lifts the level, of unrelated frames too
    unrelated = consistency(common + noise(12, 4, 64, seed=1), common + source)
    assert 0.3 < unrelated["consistency_self_chance"] < 0.7
    for name in ("consistency_self", "consistency_source"):
        assert unrelated[name] == pytest.approx(unrelated[f"{name}_chance"], abs=0.05)


def test_a_story_of_one_frame_has_no_pair_but_a_source() -> None:
    features, source = noise(2, 3, 8), noise(2, 8, seed=1)
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]]) > 0
    found = consistency(features, source, mask)
    alone = consistency(features[1:], source[1:], mask[1:])
    assert found["consistency_self"] == pytest.approx(alone["consistency_self"])
    metric = Consistency()
    metric.update(features, source, features.flip(0), source.flip(0), mask, mask.flip(0))
    assert metric.counts()["consistency_self"] == 1
    assert metric.counts()["consistency_source"] == 2


def test_consistency_leaves_out_what_the_mask_does_and_depends_on_no_batch() -> None:
    source, mask = noise(12, 16), lengths_mask(12, 4)
    features = torch.where(mask[..., None], noise(12, 4, 16, seed=1), math.nan)
    others = OTHERS
    inputs = [features, source, features[others], source[others], mask, mask[others]]
    assert_same_in_any_order_and_batches(Consistency, inputs)


# ------------------------------------------------------------------------------------------------- drift


def position_scores(values: Tensor, mask: Tensor | None = None, num_frames: int = 50) -> dict[str, float]:
    metric = PositionScores("error", num_frames)
    metric.update(values, all_of(values) if mask is None else mask)
    return metric.compute()


def test_a_drift_that_is_built_in_is_found() -> None:
    values = 2 + 0.25 * torch.arange(50).float() + noise(30, 1)
    found = position_scores(values)
    assert found["error_slope"] == pytest.approx(0.25, abs=1e-6)
    assert found["error_at_50"] - found["error_at_1"] == pytest.approx(49 * 0.25, abs=1e-5)
    assert position_scores(noise(400, 10, seed=1))["error_slope"] == pytest.approx(0, abs=0.02)


def test_means_and_slope_by_position_are_those_counted_by_hand() -> None:
    values = torch.tensor([[1.0, 2, 4], [5, 1, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]) > 0
    found = position_scores(values, mask, num_frames=4)
    assert [found[f"error_at_{i}"] for i in (1, 2, 3)] == [3, 1.5, 4]
    assert math.isnan(found["error_at_4"])
    # Offsets from the middle: (-1, 0, 1) and (-1/2, 1/2).
    assert found["error_slope"] == pytest.approx((-1 + 4 - 5 / 2 + 1 / 2) / (2 + 1 / 2))


def test_long_stories_that_are_harder_throughout_are_no_drift() -> None:
    values = torch.tensor([[1.0, 1, 1, 1], [9, 9, 9, 9]])
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]) > 0
    found = position_scores(values, mask)
    assert found["error_at_4"] > found["error_at_1"]
    assert found["error_slope"] == 0


def test_position_scores_are_least_squares_within_stories() -> None:
    values, mask = noise(12, 6), lengths_mask(12, 6)
    columns = torch.cat(
        [torch.arange(6.0).expand(12, 6)[mask][:, None], torch.eye(12).repeat_interleave(6, 0)[mask.flatten()]], 1
    )
    slope = torch.linalg.lstsq(columns.double(), values[mask].double()[:, None]).solution[0].item()
    assert position_scores(values, mask)["error_slope"] == pytest.approx(slope)


def test_position_scores_have_intervals_and_depend_on_no_batch() -> None:
    values, mask = noise(12, 6), lengths_mask(12, 6)
    values = torch.where(mask, values, math.nan)
    assert_same_in_any_order_and_batches(lambda: PositionScores("error", 6), [values, mask])
    metric = PositionScores("error", 6)
    metric.update(values, mask, IDS)
    low, high = metric.compute_intervals(200)["error_at_1"]
    assert low < metric.compute()["error_at_1"] < high
    assert metric.counts() == {"stories": 12} | {f"error_at_{i}": 12 - 2 * (i - 1) for i in range(1, 7)}


def test_batches_of_other_lengths_are_taken_together() -> None:
    metric = PositionScores("error", 50)
    metric.update(torch.ones(1, 50), torch.ones(1, 50, dtype=torch.bool))
    metric.update(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert (metric.compute()["error_at_2"], metric.compute()["error_at_3"]) == (0.5, 1)
    with pytest.raises(ValueError, match="51 frames with num_frames=50"):
        metric.update(torch.ones(1, 51), torch.ones(1, 51, dtype=torch.bool))
    with pytest.raises(ValueError, match="num_frames=0"):
        PositionScores("error", 0)


# ------------------------------------------------------------------------------------------------- seeds and inputs


def diversity(drawn: Tensor, of: Kind, mask: Tensor | None = None) -> float:
    metric = Diversity(of)
    metric.update(drawn, torch.ones(drawn.shape[1:3], dtype=torch.bool) if mask is None else mask)
    return metric.compute()[f"diversity_{of}"]


def test_a_deterministic_system_has_no_diversity() -> None:
    frames, features = noise(3, 2, 3, 8, 8), noise(3, 2, 33)
    assert diversity(torch.stack([frames] * 3), "pixels") == 0
    assert diversity(torch.stack([features] * 3), "features") == 0
    assert diversity(torch.stack([features, 2 * features]), "features") == pytest.approx(0, abs=1e-12), "length is none"


def test_diversity_of_three_systems_is_that_counted_by_hand() -> None:
    black, white, grey = (torch.full((1, 2, 3, 4, 4), value) for value in (-1.0, 1.0, 0.0))
    assert diversity(torch.stack([black, white]), "pixels") == 1
    assert diversity(torch.stack([black, white, grey]), "pixels") == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    features = torch.tensor([[1.0, 0], [0, 3], [-2, 0]])[:, None, None]
    assert diversity(features, "features") == pytest.approx((1 + 2 + 1) / 3)


def test_diversity_is_the_mean_over_all_pairs_of_seeds() -> None:
    drawn, mask = noise(4, 3, 2, 3, 8, 8), lengths_mask(3, 2)
    pairs = [(a - b).abs().mean((-3, -2, -1))[mask].mean() / 2 for a, b in combinations(drawn, 2)]
    assert diversity(drawn, "pixels", mask) == pytest.approx(torch.stack(pairs).mean().item())
    assert diversity(drawn.flip(0), "pixels", mask) == pytest.approx(diversity(drawn, "pixels", mask))


def test_diversity_leaves_out_what_the_mask_does_and_depends_on_no_batch() -> None:
    mask = lengths_mask(12, 3)
    drawn = torch.where(mask[..., None, None, None], noise(2, 12, 3, 3, 4, 4), math.nan)
    whole, parts = Diversity("pixels"), Diversity("pixels")
    whole.update(drawn, mask, IDS)
    for i in (7, 3, 5, 0, 1, 2, 4, 6, 8, 11, 10, 9):
        parts.update(drawn[:, i : i + 1], mask[i : i + 1], IDS[i : i + 1])
    assert parts.compute() == pytest.approx(whole.compute(), abs=1e-12)
    assert math.isfinite(whole.compute()["diversity_pixels"])


def test_one_seed_has_no_diversity_to_measure() -> None:
    with pytest.raises(ValueError, match="diversity of 1 seed: draw each story with at least two"):
        diversity(noise(1, 2, 2, 3, 4, 4), "pixels")


def test_sensitivity_is_zero_for_who_ignores_the_input_and_the_change_for_who_does_not() -> None:
    frames, mask = noise(2, 2, 3, 8, 8), torch.tensor([[1, 1], [1, 0]]) > 0
    changed = frames.clone()
    changed[0, 1] += 0.3
    changed[1, 1] = math.nan  # not in the mask
    for other, expected in ((frames, 0), (changed, 0.15 / 3)):
        metric = InputSensitivity("blank_source", "pixels")
        metric.update(frames, other, mask)
        assert metric.compute() == {"change_blank_source_pixels": pytest.approx(expected)}
    metric = InputSensitivity("shuffled_captions", "features")
    metric.update(torch.tensor([[[1.0, 0], [1, 0]]]), torch.tensor([[[0, 1.0], [-1, 0]]]), torch.ones(1, 2) > 0)
    assert metric.compute() == {"change_shuffled_captions_features": pytest.approx((1 + 2) / 2)}


def test_sensitivity_depends_on_no_batch() -> None:
    mask = lengths_mask(12, 3)
    features = torch.where(mask[..., None], noise(12, 3, 5), math.nan)
    inputs = [features, features.flip(-1), mask]
    assert_same_in_any_order_and_batches(lambda: InputSensitivity("other_source", "features"), inputs)


def test_frames_are_no_features_and_features_no_frames() -> None:
    with pytest.raises(ValueError, match=r"features takes features \(b f d\) and was given \(2, 2, 3, 4, 4\)"):
        distances(noise(2, 2, 3, 4, 4), noise(2, 2, 3, 4, 4), "features")
    with pytest.raises(ValueError, match=r"pixels takes frames \(b f c h w\) and was given \(2, 2, 3\)"):
        distances(noise(2, 2, 3), noise(2, 2, 3), "pixels")


def test_values_that_are_no_numbers_are_named() -> None:
    features, mask = noise(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    features[1, 2, 0] = math.nan
    with pytest.raises(ValueError, match="features of story 'story 1', frame 3, hold nan"):
        InputSensitivity("blank_source", "features").update(features, features, mask, IDS[:2])
    with pytest.raises(ValueError, match="features of story number 2 of the batch, frame 3"):
        Consistency().update(features, features[:, 0], features, features[:, 0], mask, mask)
    with pytest.raises(ValueError, match="features of the source of story number 2"):
        Consistency().update(features[:, :2], features[:, 2], features[:, :2], features[:, 0], mask[:, 1:], mask[:, 1:])
    with pytest.raises(ValueError, match="values of story 'story 1', frame 3"):
        PositionScores("error", 3).update(features[..., 0], mask, IDS[:2])
    frames = noise(2, 2, 3, 64, 64)
    with pytest.raises(ValueError, match="the source of story number 1"):
        CopyRate().update(frames, frames[:, 0] / 0, frames[:, 1], all_of(frames))
