"""The kernel distance against slow loops: unbiased, for samples apart and for samples of the same stories."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from storydalle.metrics.frechet import FrechetDistance
from storydalle.metrics.kernel_distance import KernelDistance, Samples, largest_subset, squared_discrepancy
from tests.test_metrics_frechet import normal, seeded
from tests.test_metrics_story_rows import gather_with


def discrepancy(x: Tensor, y: Tensor) -> Tensor:
    return squared_discrepancy(*(Samples(side, torch.arange(len(side))) for side in (x, y)))


def kernel_distance(real: Tensor, drawn: Tensor, **options: int) -> tuple[float, float]:
    metric = KernelDistance(real.shape[1], **options)
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    return metric.compute()


def test_the_discrepancy_is_that_of_loops_over_pairs() -> None:
    x, y = normal(5, 3, 0), normal(4, 3, 1) + 0.5

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    own_x = sum(kernel(a, b) for a, b in itertools.permutations(x, 2)) / 20
    own_y = sum(kernel(a, b) for a, b in itertools.permutations(y, 2)) / 12
    cross = sum(kernel(a, b) for a, b in itertools.product(x, y)) / 20
    assert discrepancy(x, y).item() == pytest.approx(own_x + own_y - 2 * cross)


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average() -> None:
    values = torch.tensor(
        [
            kernel_distance(normal(60, 6, seed), normal(60, 6, 5000 + seed), num_subsets=4, subset_size=20)[0]
            for seed in range(200)
        ]
    )
    error = (values.std() / math.sqrt(200)).item()
    assert abs(values.mean().item()) < 3 * error
    assert (values < 0).float().mean() > 0.3, "no value is clipped"
    assert error < 0.02 < kernel_distance(normal(60, 6, 0), normal(60, 6, 1) + 0.5, subset_size=20)[0]


def test_a_single_subset_of_all_samples_is_the_discrepancy() -> None:
    x, y = normal(30, 4, 0), normal(30, 4, 1) + 0.2
    found, deviation = kernel_distance(x, y, num_subsets=1, subset_size=30)
    assert found == pytest.approx(discrepancy(x, y).item(), rel=1e-5) and math.isnan(deviation)


def test_the_deviation_is_that_over_subsets_and_repeats_with_its_seed() -> None:
    x, y = normal(2000, 4, 0), normal(2000, 4, 1) + 0.2
    options = {"num_subsets": 40, "subset_size": 50}
    first = kernel_distance(x, y, **options)
    fresh = torch.stack([discrepancy(normal(50, 4, seed), normal(50, 4, 99 + seed) + 0.2) for seed in range(90)])
    assert first[1] == pytest.approx(fresh.std().item(), rel=0.35)
    assert first == kernel_distance(x, y, **options, seed=0) != kernel_distance(x, y, **options, seed=1)


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("batch_size", [1, 9, 64])
def test_the_kernel_distance_does_not_depend_on_batches_or_their_order(batch_size: int, with_ids: bool) -> None:
    """More samples than are kept, so that the choice of those kept doesn't depend on the order either."""
    real, drawn = normal(64, 4, 0), normal(64, 4, 1) + 0.3
    ids = [f"story/{i}" for i in range(64)]
    options = {"num_subsets": 5, "subset_size": 10, "max_samples": 16}
    whole, parts = KernelDistance(4, **options), KernelDistance(4, **options)
    whole.update(real, real=True, ids=ids if with_ids else None)
    whole.update(drawn, real=False, ids=ids if with_ids else None)
    for rows in torch.randperm(64, generator=seeded(3)).split(batch_size):
        names = [ids[i] for i in rows] if with_ids else None
        parts.update(drawn[rows], real=False, ids=names)
        parts.update(real[rows], real=True, ids=names)
        assert sum(map(len, parts.real_features)) <= 2 * 16
    assert parts.compute() == whole.compute()
    assert parts.counts() == whole.counts() == {"real": 64, "drawn": 64}


def test_ids_keep_the_choice_when_the_last_bits_of_features_change() -> None:
    real, drawn = normal(64, 4, 0), normal(64, 4, 1) + 0.3
    options = {"num_subsets": 5, "subset_size": 10, "max_samples": 16}

    def found(noise: float, ids: list[str] | None) -> float:
        metric = KernelDistance(4, **options)
        metric.update(real + noise, real=True, ids=ids)
        metric.update(drawn - noise, real=False, ids=ids)
        return metric.compute().mean

    names = [str(i) for i in range(64)]
    assert found(1e-6, names) == pytest.approx(found(0, names), abs=1e-4)
    assert found(1e-6, None) != pytest.approx(found(0, None), abs=1e-3)


def test_kept_samples_are_a_fair_choice() -> None:
    """Those kept of numbered samples have the middle number of all."""
    metric = KernelDistance(1, subset_size=2, max_samples=2000)
    metric.update(torch.arange(20_000.0)[:, None], real=True)
    kept = metric.lowest("real")["features"]
    assert len(torch.unique(kept)) == 2000
    assert kept.mean().item() == pytest.approx(10_000, abs=4 * 20_000 / math.sqrt(12 * 2000))


def test_processes_gather_to_the_whole() -> None:
    real, drawn = normal(50, 4, 0), normal(50, 4, 1) + 0.3
    options = {"num_subsets": 5, "subset_size": 10, "max_samples": 16}
    for make in (lambda: FrechetDistance(4), lambda: KernelDistance(4, **options)):
        whole, here, there = make(), make(), make()
        for metric, rows in ((whole, slice(50)), (here, slice(0, 20)), (there, slice(20, 50))):
            metric.update(real[rows], real=True)
            metric.update(drawn[rows], real=False)
        gather_with(here, there)
        assert here.compute() == pytest.approx(whole.compute(), abs=1e-9)
        assert here.counts() == whole.counts() == {"real": 50, "drawn": 50}


def test_a_merge_of_kernel_distances_is_the_whole() -> None:
    real, drawn = normal(50, 4, 0), normal(50, 4, 1) + 0.3
    options = {"num_subsets": 5, "subset_size": 10, "max_samples": 16}
    first, second = KernelDistance(4, **options), KernelDistance(4, **options)
    for metric, rows in ((first, slice(0, 20)), (second, slice(20, 50))):
        metric.update(real[rows], real=True)
        metric.update(drawn[rows], real=False)
    first.merge_state(second)
    assert first.compute() == kernel_distance(real, drawn, **options)


def test_fewer_samples_than_a_subset_are_refused() -> None:
    with pytest.raises(ValueError, match="30 real samples, and subsets of 1000"):
        kernel_distance(normal(30, 4, 0), normal(1500, 4, 1))
    with pytest.raises(ValueError, match="30 drawn samples, and subsets of 40"):
        kernel_distance(normal(50, 4, 0), normal(30, 4, 1), subset_size=40)
    with pytest.raises(ValueError, match="subset_size=50, max_samples=20"):
        KernelDistance(4, subset_size=50, max_samples=20)
    with pytest.raises(ValueError, match="3 ids for 4 samples"):
        KernelDistance(4).update(normal(4, 4, 0), real=True, ids=["a", "b", "c"])


# Real and drawn samples of the same stories

STORIES, FRAMES = 60, 4
NAMES = [f"story/{i}" for i in range(STORIES) for _ in range(FRAMES)]


def of_stories(seed: int, dim: int = 8) -> Tensor:
    """Frames of stories: those of one story share most of what they show."""
    shared = normal(STORIES, dim, seed).repeat_interleave(FRAMES, 0)
    return shared + 0.5 * normal(STORIES * FRAMES, dim, 10_000 + seed)


def scored(real: Tensor, drawn: Tensor, names: list[str] | None = None) -> float:
    metric = KernelDistance(real.shape[1], num_subsets=3, subset_size=50)
    for features, is_real in ((real, True), (drawn, False)):
        metric.update(features, is_real, [f"{i}" for i in range(len(features))], NAMES if names is None else names)
    return metric.compute().mean


def mean_and_error(values: list[float]) -> tuple[float, float]:
    found = torch.tensor(values, dtype=torch.double)
    return found.mean().item(), (found.std() / math.sqrt(len(found))).item()


def test_the_true_frames_themselves_and_independent_ones_are_both_at_zero_on_average() -> None:
    """So whoever copies the true frames has no better a score than whoever draws as varied ones."""
    copies = mean_and_error([scored(of_stories(seed), of_stories(seed)) for seed in range(100)])
    honest = mean_and_error([scored(of_stories(seed), of_stories(500 + seed)) for seed in range(100)])
    for mean, error in (copies, honest):
        assert abs(mean) < 4 * error and error < 0.1
    assert abs(copies[0] - honest[0]) < 4 * math.hypot(copies[1], honest[1])
    assert scored(of_stories(0), of_stories(0) + 1) > 10 * honest[1], "another distribution is still told"


def test_a_frame_is_compared_with_frames_of_other_stories_alone() -> None:
    real, drawn = of_stories(0), of_stories(1)
    names = ["a", "a", "b", "b", "c", "c", "d", "d"]

    def pairs(features: Tensor) -> list[tuple[Samples, Samples]]:
        metric = KernelDistance(8, subset_size=4)
        metric.update(features, True, stories=names)
        metric.update(drawn[:8], False, stories=names)
        return metric.pairs()

    found = pairs(real[:8])
    assert len(found) == 2
    for one, other in found:
        assert len(one.stories) == len(other.stories) == 4
        assert not set(one.stories.tolist()) & set(other.stories.tolist())
        own = [
            float((a @ b / 8 + 1) ** 3)
            for each in (one, other)
            for (a, i), (b, j) in itertools.permutations(
                zip(each.features.double(), each.stories.tolist(), strict=True), 2
            )
            if i != j
        ]
        cross = [float((a @ b / 8 + 1) ** 3) for a in one.features.double() for b in other.features.double()]
        by_hand = 2 * sum(own) / len(own) - 2 * sum(cross) / len(cross)
        doubled = [Samples(each.features.double(), each.stories) for each in (one, other)]
        assert squared_discrepancy(*doubled).item() == pytest.approx(by_hand, rel=1e-9)
    (first, first_drawn), (second, second_drawn) = found
    assert set(first.stories.tolist()) == set(second_drawn.stories.tolist())
    assert set(second.stories.tolist()) == set(first_drawn.stories.tolist())


def test_halves_do_not_depend_on_batches_or_their_order() -> None:
    real, drawn = of_stories(0), of_stories(1) + 0.3
    whole = scored(real, drawn)
    metric = KernelDistance(8, num_subsets=3, subset_size=50)
    for rows in torch.randperm(len(NAMES), generator=seeded(0)).split(17):
        ids, names = [f"{i}" for i in rows], [NAMES[i] for i in rows]
        metric.update(drawn[rows], False, ids, names)
        metric.update(real[rows], True, ids, names)
    assert metric.compute().mean == whole


def test_a_half_that_is_too_small_is_refused_in_words() -> None:
    real = of_stories(0)
    with pytest.raises(ValueError, match="48 real samples in a half of the 2 stories, and subsets of 50"):
        scored(real[:240], real[:240], ["a"] * 48 + ["b"] * 192)
    with pytest.raises(ValueError, match="a story of 60 samples, and subsets of 50: a subset could be of one story"):
        scored(real, real, [name for name in "abcd" for _ in range(60)])
    with pytest.raises(ValueError, match="0 real samples in a half of the 1 stories"):
        scored(real, real, ["a"] * 240)
    metric = KernelDistance(8, subset_size=4)
    with pytest.raises(ValueError, match="3 stories for 4 samples"):
        metric.update(real[:4], True, stories=["a", "b", "c"])
    metric.update(real[:8], True, stories=NAMES[:8])
    with pytest.raises(ValueError, match="name the story of each sample, or of none"):
        metric.update(real[:8], True)
    metric.update(real[:8], False)
    with pytest.raises(ValueError, match="samples of only one side have stories"):
        metric.compute()


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ([4] * 500, 500),
        ([4] * 5000, 1000),
        ([4] * 20, 20),
        ([4] * 19, None),
        ([100] * 3, None),
        ([100] * 4, None),
        ([100] * 6, 150),
        ([], None),
    ],
)
def test_a_subset_is_half_of_the_smaller_half_or_there_is_none(sizes: list[int], found: int | None) -> None:
    assert largest_subset([f"s/{i}" for i, size in enumerate(sizes) for _ in range(size)]) == found
