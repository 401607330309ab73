"""Intervals and paired tests: against loops, simulations and counts by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from storydalle.metrics import resampling
from storydalle.metrics.estimates import holm
from storydalle.metrics.resampling import (
    Interval,
    StoryRows,
    bootstrap_intervals,
    paired_test,
    paired_tests,
)
from tests.shifted import fixed


def mean(sums: Tensor) -> dict[str, Tensor]:
    """Rows are (total, number)."""
    return {"mean": sums[..., 0] / sums[..., 1]}


def rows_of(values: Tensor) -> Tensor:
    """One value a story."""
    return torch.stack([values, torch.ones_like(values)], dim=-1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def system(values: Tensor, prefix: str = "s") -> StoryRows:
    return StoryRows(tuple(f"{prefix}{i:03}" for i in range(len(values))), rows_of(values))


# Intervals


def test_intervals_are_those_of_a_loop_over_drawn_stories() -> None:
    values = torch.rand(23, dtype=torch.double, generator=seeded(0))
    drawn = torch.randint(23, (150, 23), generator=fixed(7))  # as the package draws
    scores = [np.mean([values[i].item() for i in row]) for row in drawn]
    expected = np.quantile(scores, [0.05, 0.95])
    found = bootstrap_intervals(rows_of(values), mean, num_resamples=150, level=0.9, seed=7)["mean"]
    assert found == pytest.approx(tuple(expected), abs=1e-12)


def test_intervals_of_clusters_are_those_of_a_loop_over_drawn_clusters() -> None:
    values = torch.rand(10, dtype=torch.double, generator=seeded(0))
    clusters = list("cabacbabca")
    members = {name: [v.item() for v, c in zip(values, clusters, strict=True) if c == name] for name in "abc"}
    drawn = torch.randint(3, (200, 3), generator=fixed(1))
    scores = [np.mean([value for i in row for value in members["abc"[i]]]) for row in drawn]
    found = bootstrap_intervals(rows_of(values), mean, clusters, num_resamples=200, seed=1)["mean"]
    assert found == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=1e-12)


def coverage(intervals: Sequence[Interval], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_a_95_percent_interval_covers_the_truth_in_92_to_98_of_100_sets() -> None:
    """Shares of unequal stories: a ratio of two random sums, as all our scores are."""
    intervals = []
    for seed in range(600):
        draw = seeded(seed)
        tries = 1 + torch.randint(5, (80,), generator=draw)
        hits = torch.binomial(tries.float(), torch.full((80,), 0.3), generator=draw)
        rows = torch.stack([hits, tries], dim=-1)
        intervals.append(bootstrap_intervals(rows, mean, num_resamples=300, seed=seed)["mean"])
    assert 0.92 <= coverage(intervals, 0.3) <= 0.98


def test_stories_of_one_episode_need_the_clustered_interval() -> None:
    """Ten stories an episode whose mood they share: stories as news cover far too seldom, episodes as they should."""
    clustered, naive = [], []
    clusters = [f"episode {i // 10}" for i in range(600)]
    for seed in range(300):
        draw = seeded(seed)
        mood = torch.randn(60, generator=draw).repeat_interleave(10)
        rows = rows_of(mood + torch.randn(600, generator=draw))
        clustered.append(bootstrap_intervals(rows, mean, clusters, num_resamples=200, seed=seed)["mean"])
        naive.append(bootstrap_intervals(rows, mean, num_resamples=200, seed=seed)["mean"])
    assert 0.92 <= coverage(clustered, 0) <= 0.98
    assert coverage(naive, 0) < 0.75


def test_a_story_drawn_under_five_seeds_is_no_five_stories() -> None:
    values = torch.rand(40, dtype=torch.double, generator=seeded(0))
    once = bootstrap_intervals(rows_of(values), mean)["mean"]
    five = rows_of(values.repeat_interleave(5))
    assert bootstrap_intervals(five, mean, [f"{i // 5:03}" for i in range(200)])["mean"] == pytest.approx(once)
    low, high = bootstrap_intervals(five, mean)["mean"]
    assert high - low < 0.6 * (once.high - once.low), "counted as news, they would look surer"


def test_resampling_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(torch.rand(30, dtype=torch.double, generator=seeded(0)))
    whole = bootstrap_intervals(rows, mean, num_resamples=101)
    a, b = system(rows[:, 0]), system(rows[:, 0].flip(0))
    whole_test = paired_test(a, b, mean, "mean", num_resamples=101)
    monkeypatch.setattr(resampling, "MAX_WEIGHTS", 70)
    assert bootstrap_intervals(rows, mean, num_resamples=101)["mean"] == pytest.approx(whole["mean"], abs=1e-12)
    part_test = paired_test(a, b, mean, "mean", num_resamples=101)
    assert part_test.interval == pytest.approx(whole_test.interval, abs=1e-12)
    assert part_test[2:] == whole_test[2:]


def test_weights_that_are_held_do_not_grow_with_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = []
    original = torch.tensordot
    monkeypatch.setattr(torch, "tensordot", lambda a, b, n: (largest.append(a.numel()), original(a, b, n))[1])
    bootstrap_intervals(rows_of(torch.rand(10_000)), mean, num_resamples=1000)
    assert max(largest) <= resampling.MAX_WEIGHTS and len(largest) == 3


def test_resamples_without_an_item_are_left_out() -> None:
    rows = torch.zeros(6, 2, dtype=torch.double)
    rows[0] = torch.tensor([3.0, 4.0])
    assert bootstrap_intervals(rows, mean)["mean"] == (0.75, 0.75), "some resamples miss the only story with items"
    assert all(map(math.isnan, bootstrap_intervals(torch.zeros(6, 2), mean)["mean"]))


def test_one_story_or_cluster_has_no_interval() -> None:
    assert all(map(math.isnan, bootstrap_intervals(rows_of(torch.ones(1)), mean)["mean"]))
    assert all(map(math.isnan, bootstrap_intervals(rows_of(torch.rand(3)), mean, ["a"] * 3)["mean"]))


def test_settings_that_cannot_be_resampled_are_refused_by_name() -> None:
    rows = rows_of(torch.rand(3))
    with pytest.raises(ValueError, match="2 clusters for 3 stories"):
        bootstrap_intervals(rows, mean, ["a", "b"])
    with pytest.raises(ValueError, match=r"level=95\.0"):
        bootstrap_intervals(rows, mean, level=95.0)
    with pytest.raises(ValueError, match="num_resamples=0"):
        bootstrap_intervals(rows, mean, num_resamples=0)
    with pytest.raises(ValueError, match="no story"):
        bootstrap_intervals(rows[:0], mean)


# Paired tests


def test_permutation_p_is_that_of_all_swaps() -> None:
    """Five stories have 32 swaps; only all or none gives a difference as large as the one seen."""
    a, b = torch.tensor([0.9, 0.8, 0.7, 0.9, 0.6]), torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5])
    found = paired_test(system(a), system(b), mean, "mean", num_resamples=20_000)
    assert found.difference == pytest.approx(0.28)
    assert found.p_permutation == pytest.approx(2 / 32, abs=0.006)
    assert found.interval.low > 0 and found.p_bootstrap == pytest.approx(2 / 20_001), "every resample is above zero"


def test_a_permutation_swaps_rows_and_not_scores() -> None:
    """A ratio of sums: swapped by hand for two stories of unequal weight, of four swaps two are as extreme."""
    a = StoryRows(("x", "y"), torch.tensor([[8.0, 10.0], [1.0, 2.0]]))
    b = StoryRows(("x", "y"), torch.tensor([[2.0, 10.0], [2.0, 2.0]]))
    # None: 9/12 - 4/12 = 5/12. x: 3/12 - 10/12 = -7/12. y: 10/12 - 3/12 = 7/12. Both: -5/12.
    found = paired_test(a, b, mean, "mean", num_resamples=2000)
    assert found.difference == pytest.approx(5 / 12) and found.p_permutation == 1
    other = StoryRows(("x", "y"), torch.tensor([[2.0, 10.0], [0.0, 2.0]]))
    # None: 9/12 - 2/12 = 7/12. x: 3/12 - 8/12 = -5/12. y: 8/12 - 3/12 = 5/12. Both: -7/12.
    assert paired_test(a, other, mean, "mean", num_resamples=4000).p_permutation == pytest.approx(1 / 2, abs=0.03)


def test_no_p_value_is_zero() -> None:
    """A hundred stories, all won by far: no resample comes near, and the one seen still counts."""
    found = paired_test(system(torch.full((100,), 5.0)), system(torch.rand(100)), mean, "mean", num_resamples=99)
    assert found.p_permutation == 1 / 100 and found.p_bootstrap == 2 / 100


def test_equal_systems_are_not_told_apart() -> None:
    values = torch.rand(40, generator=seeded(0))
    found = paired_test(system(values), system(values), mean, "mean", num_resamples=200)
    assert found == (0, (0, 0), 1, 1)


def test_a_paired_test_sees_what_two_intervals_can_not() -> None:
    """Stories differ much, the systems little: the intervals overlap, and the pairs tell."""
    easy = torch.rand(100, generator=seeded(0))
    better = easy + 0.02 + 0.02 * torch.randn(100, generator=seeded(1))
    first, second = (bootstrap_intervals(rows_of(values), mean)["mean"] for values in (better, easy))
    found = paired_test(system(better), system(easy), mean, "mean")
    assert first.low < second.high
    assert max(found.p_bootstrap, found.p_permutation) < 0.01 and found.interval.low > 0
    turned = paired_test(system(easy), system(better), mean, "mean")
    assert turned.difference == -found.difference and turned.p_permutation == pytest.approx(found.p_permutation)


def false_positives(num_trials: int, episode_size: int, clustered: bool) -> tuple[float, float]:
    """How often systems that differ by chance alone, the same chance within an episode, come out below 0.05."""
    p_values = []
    for seed in range(num_trials):
        draw = seeded(seed)
        luck = torch.randn(2, 40, generator=draw).repeat_interleave(episode_size, dim=1)
        a, b = torch.rand(40 * episode_size, generator=draw) + luck + torch.randn(luck.shape, generator=draw) / 2
        episodes = {f"s{i:03}": str(i // episode_size) for i in range(len(a))} if clustered else None
        found = paired_test(system(a), system(b), mean, "mean", episodes, num_resamples=200, seed=seed)
        p_values.append([found.p_bootstrap, found.p_permutation])
    bootstrap, permutation = (np.array(p_values) < 0.05).mean(0)
    return float(bootstrap), float(permutation)


def test_false_positives_are_as_rare_as_promised() -> None:
    bootstrap, permutation = false_positives(500, 1, clustered=False)
    assert 0.025 <= permutation <= 0.07
    assert 0.025 <= bootstrap <= 0.085, "percentile intervals of 40 stories are somewhat too narrow"


def test_false_positives_of_episodes_are_rare_only_if_told() -> None:
    assert max(false_positives(150, 8, clustered=True)) <= 0.1
    assert min(false_positives(150, 8, clustered=False)) > 0.25


def test_stories_are_matched_by_id_in_any_order() -> None:
    a, b = (system(torch.rand(30, generator=seeded(seed))) for seed in (0, 1))
    order = torch.randperm(30, generator=seeded(2)).tolist()
    shuffled = StoryRows(tuple(b.ids[i] for i in order), b.rows[order])
    assert paired_test(a, shuffled, mean, "mean") == paired_test(a, b, mean, "mean")


def test_different_stories_are_refused_and_the_first_missing_is_named() -> None:
    a, b = system(torch.rand(5)), system(torch.rand(5))
    short = StoryRows(b.ids[:2] + b.ids[4:], b.rows[[0, 1, 4]])
    with pytest.raises(ValueError, match=r"'s002' is missing from the second system \(2 missing"):
        paired_test(a, short, mean, "mean")
    with pytest.raises(ValueError, match="'s002' is missing from the first system"):
        paired_test(short, b, mean, "mean")
    with pytest.raises(ValueError, match="each story once"):
        paired_test(a, StoryRows((*b.ids, "s000"), torch.rand(6, 2)), mean, "mean")
    with pytest.raises(ValueError, match="'s003' is in no cluster"):
        paired_test(a, b, mean, "mean", {name: "e" for name in a.ids if name != "s003"})
    with pytest.raises(ValueError, match="at least two"):
        paired_test(a, b, mean, "mean", dict.fromkeys(a.ids, "e"))
    with pytest.raises(ValueError, match="no score 'median': choose one of mean"):
        paired_test(a, b, mean, "median")


def test_an_undefined_score_has_no_p_value() -> None:
    nothing = StoryRows(("x", "y"), torch.zeros(2, 2))
    found = paired_tests(nothing, nothing, mean)["mean"]
    assert all(map(math.isnan, (found.difference, *found.interval, found.p_bootstrap, found.p_permutation)))


def test_holms_correction_is_that_counted_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert list(found) == list("abcd")
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1, "b": 1}
    assert holm({}) == {}


def test_holm_counts_no_undefined_test_and_refuses_what_is_no_probability() -> None:
    found = holm({"a": 0.02, "b": math.nan, "c": 0.5})
    assert (found["a"], found["c"]) == (0.04, 0.5) and math.isnan(found["b"])
    with pytest.raises(ValueError, match=r"1.5 of 'a'"):
        holm({"a": 1.5})


def test_holm_keeps_the_chance_of_any_false_alarm() -> None:
    p_values = torch.rand(2000, 10, generator=seeded(0)).tolist()
    alarms = [min(holm(dict(zip("abcdefghij", row, strict=True))).values()) < 0.05 for row in p_values]
    assert np.mean(alarms) == pytest.approx(1 - 0.995**10, abs=0.015)
