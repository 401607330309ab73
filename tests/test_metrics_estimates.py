"""Means and differences over seeds and stories: counted by hand, and against simulations."""

import math

import numpy as np
import pytest
import torch

from storydalle.metrics.estimates import Sample, difference_of, mean_of
from storydalle.metrics.resampling import story_values
from storydalle.metrics.student_t import quantile, two_sided_p
from tests.test_metrics_resampling import mean, rows_of

TABLE = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 7.0]])  # of two seeds and three stories


def of(table: np.ndarray) -> Sample:
    return Sample(table.mean(1), table)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1.0, 12.706205), (2.0, 4.302653), (2.5, 3.574655), (15.0, 2.131450), (499.0, 1.964729)]
)
def test_students_quantiles_are_those_of_its_tables(degrees: float, expected: float) -> None:
    assert quantile(degrees) == pytest.approx(expected, abs=1e-6)
    assert two_sided_p(expected, degrees) == pytest.approx(0.05, abs=1e-6)
    assert two_sided_p(-expected, degrees) == two_sided_p(expected, degrees)


def test_a_student_of_one_degree_is_cauchys_distribution() -> None:
    for t in (0.0, 0.3, 1.0, 40.0):
        assert two_sided_p(t, 1.0) == pytest.approx(1 - 2 * math.atan(t) / math.pi, abs=1e-12)


def test_a_mean_over_seeds_and_stories_is_that_counted_by_hand() -> None:
    found = mean_of(of(TABLE))
    # Means 1 and 4 of the seeds, 1, 2 and 4.5 of the stories; residuals are twice (0.5, 0.5, -1) with either sign.
    ms_seed, ms_error = 3 * 4.5, 2 * (0.25 + 0.25 + 1) / 2
    terms = [(13 / 4 / 3, 2), (ms_seed / 6, 1), (-ms_error / 6, 2)]
    variance = sum(term for term, _ in terms)
    degrees = variance**2 / sum(term**2 / own for term, own in terms)
    assert found.mean == 2.5 and found.error == pytest.approx(math.sqrt(variance))
    assert found.degrees == pytest.approx(degrees)
    assert found.ends() == pytest.approx((2.5 - (half := quantile(degrees) * math.sqrt(variance)), 2.5 + half))
    assert found.covers_seeds and found.covers_stories


def test_seeds_that_differ_by_less_than_chance_add_nothing() -> None:
    found = mean_of(of(np.array([[0.0, 2.0, 4.0], [2.0, 2.0, 2.0]])))
    assert found.error == pytest.approx(math.sqrt(1 / 3)) and found.degrees == 2  # the stories' means are 1, 2, 3


def test_a_difference_is_paired_by_story() -> None:
    one, other = of(np.array([[3.0, 5.0, 9.0, 2.0]])), of(np.array([[2.0, 3.0, 8.0, 0.0]]))
    found = difference_of(one, other)
    # Differences 1, 2, 1, 2: the paired test of a textbook, t = 1.5 / sqrt(1/3 / 4) = 5.196 with 3 degrees.
    assert found.mean == 1.5 and found.error == pytest.approx(math.sqrt(1 / 12)) and found.degrees == 3
    assert found.p == pytest.approx(0.01385, abs=1e-5)
    assert not found.covers_seeds and found.covers_stories


def test_without_values_of_stories_seeds_alone_count() -> None:
    one, other = Sample(np.array([1.0, 3.0])), Sample(np.array([0.0, 0.0, 3.0]))
    assert mean_of(one).ends() == pytest.approx((2 - 12.706205, 2 + 12.706205), abs=1e-5)
    welch = difference_of(one, other)
    assert welch.error == pytest.approx(math.sqrt(2 / 2 + 3 / 3)) and welch.degrees == pytest.approx(4 / (1 + 1 / 2))
    alone = mean_of(Sample(np.array([0.5])))
    assert alone.ends() is None and math.isnan(alone.p)
    assert difference_of(of(TABLE), of(TABLE[:, :2])).covers_stories is False, "other stories are no pairs"


def test_equal_systems_do_not_differ() -> None:
    same = difference_of(of(TABLE[:1]), of(TABLE[:1]))
    assert (same.mean, same.error, same.p, same.ends()) == (0, 0, 1, (0, 0))


@pytest.mark.parametrize("spread", [(0.0, 1.0, 0.3), (0.3, 0.3, 1.0), (1.0, 0.5, 0.5)])
def test_intervals_hold_the_true_mean_as_often_as_they_say(spread: tuple[float, float, float]) -> None:
    """Over 1000 tables the share is within four standard deviations (0.7 %) of 95 %, or above."""
    generator, (seed, story, error) = np.random.default_rng(0), spread
    held = []
    for _ in range(1000):
        draw = generator.standard_normal
        table = seed * draw((4, 1)) + story * draw((1, 30)) + error * draw((4, 30))
        low, high = mean_of(of(table)).ends() or (math.nan, math.nan)
        held.append(low < 0 < high)
    assert np.mean(held) > 0.92


def test_values_of_stories_are_the_stories_own_for_a_mean_and_sum_up_to_any_score() -> None:
    values = torch.tensor([0.1, 0.9, 0.4, 0.4], dtype=torch.double)
    found = story_values(rows_of(values), mean)["mean"]
    assert found.tolist() == pytest.approx(values.tolist())
    pairs = torch.tensor([[1.0, 2.0], [3.0, 3.0], [0.0, 4.0]])
    of_ratio = story_values(pairs, mean)["mean"]
    # 4/9 in all; without the first 3/7, without the second 1/6, without the third 4/5.
    raw = [3 * 4 / 9 - 2 * part for part in (3 / 7, 1 / 6, 4 / 5)]
    assert of_ratio.tolist() == pytest.approx([each + 4 / 9 - sum(raw) / 3 for each in raw])
    assert story_values(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), mean) == {}, "undefined without the first"
    clustered = story_values(pairs, mean, ["b", "a", "b"])["mean"]
    assert clustered.tolist() == pytest.approx(
        story_values(torch.tensor([[3.0, 3.0], [1.0, 6.0]]), mean)["mean"].tolist()
    )
