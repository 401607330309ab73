"""Fréchet distances against closed forms, the non-symmetric matrix root and slow loops."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from storydalle.metrics.frechet import (
    FeatureStatistics,
    FrechetDistance,
    FrechetStoryDistance,
    frechet_distance,
    load_statistics,
    random_projection,
    save_statistics,
    story_features,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(num: int, dim: int, seed: int) -> Tensor:
    return torch.randn(num, dim, dtype=torch.double, generator=seeded(seed))


def correlated(num: int, dim: int, seed: int) -> Tensor:
    """Features with a full covariance of eigenvalues from large to tiny."""
    return normal(num, dim, seed) * torch.logspace(0, -3, dim, dtype=torch.double) @ normal(dim, dim, seed + 100)


def exactly(mean: Tensor, covariance: Tensor, num: int = 1000) -> FeatureStatistics:
    """Statistics of samples that have just this mean and covariance."""
    return FeatureStatistics(num, num * mean, (num - 1) * covariance + num * torch.outer(mean, mean))


def distance(real: Tensor, drawn: Tensor) -> float:
    metric = FrechetDistance(real.shape[1])
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    return metric.compute()


# Statistics


def test_statistics_are_numpys_mean_and_covariance() -> None:
    features = correlated(50, 6, 0)
    found = FeatureStatistics.of(features)
    torch.testing.assert_close(found.mean(), features.mean(0))
    torch.testing.assert_close(found.covariance(), features.T.cov())
    assert (found.count, found.dim) == (50, 6)


def test_large_means_and_small_deviations_keep_their_digits() -> None:
    """Single-precision features of mean 100 and deviation 0.1: single-precision sums would have no digit left."""
    features = (100 + 0.1 * normal(5000, 8, 0)).float()
    found = sum((FeatureStatistics.of(part) for part in features.split(64)[1:]), FeatureStatistics.of(features[:64]))
    centered = features.double() - features.double().mean(0)
    torch.testing.assert_close(found.covariance(), centered.T @ centered / 4999, rtol=1e-7, atol=1e-10)
    assert distance(features[::2], features[1::2]) == pytest.approx(
        distance(centered[::2] + 1, centered[1::2] + 1), rel=1e-5
    )


def test_statistics_merge_in_any_order() -> None:
    features = correlated(60, 5, 0)
    whole = FeatureStatistics.of(features)
    parts = [FeatureStatistics.of(part) for part in features.split([1, 20, 39])]
    for a, b, c in itertools.permutations(parts):
        for merged in ((a + b) + c, a + (b + c)):
            assert merged.count == 60
            torch.testing.assert_close(merged.mean(), whole.mean(), rtol=1e-12, atol=0)
            torch.testing.assert_close(merged.covariance(), whole.covariance(), rtol=1e-9, atol=1e-13)
    with pytest.raises(ValueError, match="5-d and of 4-d"):
        whole + FeatureStatistics.of(features[:, :4])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_features_are_refused_with_their_number(bad: float) -> None:
    features = normal(10, 4, 0)
    features[2, 1] = features[2, 3] = features[7, 0] = bad
    with pytest.raises(ValueError, match="2 of 10 feature rows hold nan"):
        FrechetDistance(4).update(features, real=True)
    with pytest.raises(ValueError, match=r"\(10, 4\): give \(n, 3\)"):
        FrechetDistance(3).update(features, real=True)


# Fréchet distance


def test_equal_sets_are_at_distance_zero() -> None:
    features = correlated(200, 32, 0)
    assert distance(features, features[torch.randperm(200, generator=seeded(1))]) == pytest.approx(0, abs=1e-9)


def test_equal_sets_of_dead_features_are_at_distance_zero() -> None:
    features = correlated(200, 32, 0)
    features[:, 10:] = 0
    assert distance(features, features) == pytest.approx(0, abs=1e-9)


def test_the_distance_of_two_gaussians_is_the_closed_form() -> None:
    """Diagonal covariances: squared differences of means and of deviations add up."""
    mean, deviation = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    other_mean, other = torch.tensor([0.0, 0.0, 0.0]).double(), torch.tensor([2.0, 2.0, 0.5]).double()
    found = frechet_distance(exactly(mean, deviation.square().diag()), exactly(other_mean, other.square().diag()))
    assert found == pytest.approx(1 + 4 + 0.25 + 1 + 0 + 6.25)


def test_the_distance_of_turned_gaussians_is_the_closed_form() -> None:
    """In two dimensions the trace of a root is ``sqrt(tr M + 2 sqrt(det M))``, with M the covariances' product."""
    first, second = (torch.tensor(rows).double() for rows in ([[2.0, 1.0], [1.0, 3.0]], [[1.0, -0.5], [-0.5, 4.0]]))
    product = first @ second
    expected = (first + second).trace() - 2 * (product.trace() + 2 * product.det().sqrt()).sqrt()
    zero = torch.zeros(2).double()
    assert frechet_distance(exactly(zero, first), exactly(zero, second)) == pytest.approx(expected.item())


def root_trace(product: Tensor) -> float:
    """Trace of the root of a product of covariances, by its own eigenvalues; the root is checked by its square."""
    values, vectors = torch.linalg.eig(product)
    root = vectors @ values.sqrt().diag() @ torch.linalg.inv(vectors)
    torch.testing.assert_close((root @ root).real, product, rtol=1e-6, atol=1e-8)
    return root.real.trace().item()


def test_the_distance_is_that_of_the_products_matrix_root() -> None:
    real, drawn = correlated(300, 24, 0), correlated(400, 24, 1) + 0.3
    first, second = real.T.cov(), drawn.T.cov()
    difference = (real.mean(0) - drawn.mean(0)).square().sum() + first.trace() + second.trace()
    assert distance(real, drawn) == pytest.approx(difference.item() - 2 * root_trace(first @ second), abs=1e-6)


def test_the_distance_is_symmetric_and_grows_with_what_is_wrong() -> None:
    real = correlated(300, 8, 0)
    noise = normal(300, 8, 9)
    distances = [distance(real, real + scale * noise) for scale in (0.1, 0.3, 1.0)]
    assert distances == sorted(distances) and distances[0] > 0
    assert distance(real + noise, real) == pytest.approx(distances[-1])


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_distance_does_not_depend_on_batches_or_their_order(batch_size: int) -> None:
    real, drawn = correlated(100, 16, 0), correlated(90, 16, 1)
    metric = FrechetDistance(16)
    for part in drawn.flip(0).split(batch_size):
        metric.update(part, real=False)
    for rows in torch.randperm(100, generator=seeded(2)).split(batch_size):
        metric.update(real[rows], real=True)
    assert metric.compute() == pytest.approx(distance(real, drawn), abs=1e-9)
    assert metric.counts() == {"real": 100, "drawn": 90}


def test_halves_merge_to_the_whole() -> None:
    real, drawn = correlated(80, 8, 0), correlated(80, 8, 1)
    first, second = FrechetDistance(8), FrechetDistance(8)
    first.update(real[:10], real=True)
    first.update(drawn[:50], real=False)
    second.update(real[10:], real=True)
    second.update(drawn[50:], real=False)
    first.merge_state(second)
    assert first.compute() == pytest.approx(distance(real, drawn), abs=1e-9)


def test_too_few_samples_are_refused_and_the_kernel_distance_offered() -> None:
    enough, few = normal(9, 8, 0), normal(8, 8, 1)
    assert distance(enough, enough + 1) == pytest.approx(8)
    with pytest.raises(ValueError, match=r"8 drawn samples of 8-d features.*at least 9.*KID"):
        distance(enough, few)
    with pytest.raises(ValueError, match="8 real samples"):
        distance(few, enough)


def test_a_network_sees_pictures_and_never_trains() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4)).double()
    pictures = torch.rand(40, 3, 2, 2, dtype=torch.double, generator=seeded(0))
    metric = FrechetDistance(4, network=network)
    metric.train()
    metric.update(pictures[:20], real=True)
    metric.update(pictures[20:], real=False)
    features = network.eval()(pictures)
    assert metric.compute() == pytest.approx(distance(features[:20], features[20:]))
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert network[2].num_batches_tracked == 0


# Reference statistics


def test_reference_statistics_stand_for_the_real_samples(tmp_path: Path) -> None:
    real, drawn = correlated(50, 6, 0), correlated(50, 6, 1)
    made = FrechetDistance(6)
    made.update(real, real=True)
    save_statistics(tmp_path / "a" / "real.st", made.statistics(real=True), protocol_hash="p", network_sha256="n")
    loaded = load_statistics(tmp_path / "a" / "real.st", protocol_hash="p", network_sha256="n")
    metric = FrechetDistance(6, reference=loaded)
    metric.update(drawn, real=False)
    assert metric.compute() == distance(real, drawn)
    assert metric.counts() == {"real": 50, "drawn": 50}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["real.st"]
    metric.reset()
    metric.update(drawn, real=False)
    assert metric.compute() == distance(real, drawn), "a reset forgets samples and keeps the reference"
    with pytest.raises(ValueError, match="one of the two"):
        metric.update(real, real=True)
    with pytest.raises(ValueError, match="6-d features, and dim=5"):
        FrechetDistance(5, reference=loaded)


def test_statistics_of_another_protocol_or_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "real.st"
    save_statistics(path, FeatureStatistics.of(normal(9, 3, 0)), protocol_hash="p", network_sha256="n")
    with pytest.raises(ValueError, match="protocol_hash p, but this evaluation has q"):
        load_statistics(path, protocol_hash="q", network_sha256="n")
    with pytest.raises(ValueError, match="network_sha256 n, but this evaluation has m"):
        load_statistics(path, protocol_hash="p", network_sha256="m")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "real.st"
    save_statistics(path, FeatureStatistics.of(normal(9, 3, 0)), protocol_hash="p", network_sha256="n")
    tensors = load_file(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="can't be read"):
        load_statistics(path, protocol_hash="p", network_sha256="n")
    save_file(tensors, path, metadata={"protocol_hash": "p", "network_sha256": "n", "count": "9"})
    with pytest.raises(ValueError, match="no feature statistics of this version"):
        load_statistics(path, protocol_hash="p", network_sha256="n")


# Stories


def moods(num_stories: int, seed: int, wander: float = 0.2, dim: int = 5, num_frames: int = 4) -> Tensor:
    """Stories of one mood each, from which frames differ a little."""
    mood = normal(num_stories, dim, seed)[:, None]
    return mood + wander * normal(num_stories * num_frames, dim, seed + 1).reshape(num_stories, num_frames, dim)


def story_distance(real: Tensor, drawn: Tensor, **options: int) -> float:
    metric = FrechetStoryDistance(real.shape[-1], **options)
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    return metric.compute()


def test_a_storys_features_are_mean_and_step_counted_by_hand() -> None:
    frames = torch.tensor([[[1.0, 0.0], [4.0, 0.0], [4.0, 6.0], [99.0, 99.0]]])
    mask = torch.tensor([[True, True, True, False]])
    expected = torch.tensor([[3.0, 2.0, math.sqrt(9 / 2), math.sqrt(36 / 2)]])
    torch.testing.assert_close(story_features(frames, mask), expected)
    with pytest.raises(ValueError, match="1 of 1 stories have no two frames in a row"):
        story_features(frames, torch.tensor([[True, False, True, False]]))


def test_the_story_distance_sees_frames_shuffled_between_stories_and_the_frame_distance_does_not() -> None:
    real, drawn = moods(400, 0), moods(400, 10)
    flat = drawn.reshape(1600, 5)
    shuffled = flat[torch.randperm(1600, generator=seeded(3))]
    frames = [distance(real.reshape(1600, 5), each) for each in (flat, shuffled)]
    stories = [story_distance(real, each.reshape(400, 4, 5)) for each in (flat, shuffled)]
    assert frames[1] == pytest.approx(frames[0], abs=1e-9)
    assert stories[1] > 20 * stories[0]


def test_the_story_distance_sees_a_frame_repeated_and_a_look_that_wanders() -> None:
    real = moods(400, 0)
    good, repeated, wandering = moods(400, 10), moods(400, 10)[:, :1].expand(-1, 4, -1), moods(400, 10, wander=0.6)
    best = story_distance(real, good)
    assert story_distance(real, repeated) > 3 * best and story_distance(real, wandering) > 3 * best
    assert story_distance(real, real) == pytest.approx(0, abs=1e-9)


def test_frames_under_no_mask_count_for_nothing() -> None:
    real, drawn = moods(30, 0), moods(30, 10)
    mask = torch.ones(30, 4, dtype=torch.bool)
    mask[::2, 2:] = False
    distances = []
    for padding in (0.0, math.nan):
        metric = FrechetStoryDistance(5)
        metric.update(real, real=True)
        metric.update(torch.where(mask[..., None], drawn, padding), real=False, mask=mask)
        distances.append(metric.compute())
    assert distances[0] == distances[1] != story_distance(real, drawn)


def test_wide_features_are_projected_so_that_some_hundred_stories_do() -> None:
    real, drawn = moods(40, 0, dim=300), moods(40, 10, dim=300)
    found = story_distance(real, drawn, num_projections=8)
    by_hand = random_projection(300, 8, 0)
    assert found == pytest.approx(story_distance(real @ by_hand, drawn @ by_hand))
    assert found != pytest.approx(story_distance(real, drawn, num_projections=8, seed=1))
    with pytest.raises(ValueError, match="40 real samples of 128-d features"):
        story_distance(real, drawn)


def test_projections_are_orthogonal_and_keep_distances_on_average() -> None:
    projection = random_projection(200, 20, 0)
    torch.testing.assert_close(projection.T @ projection, 10 * torch.eye(20).double())
    points = normal(500, 200, 1)
    assert ((points @ projection).square().sum() / points.square().sum()).item() == pytest.approx(1, abs=0.05)


def test_a_network_sees_the_frames_of_stories() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()
    frames = torch.rand(40, 3, 3, 2, 2, dtype=torch.double, generator=seeded(0))
    metric = FrechetStoryDistance(4, network=network)
    metric.update(frames[:20], real=True)
    metric.update(frames[20:], real=False)
    features = network(frames.reshape(120, 12)).reshape(40, 3, 4)
    assert metric.compute() == pytest.approx(story_distance(features[:20], features[20:]))
