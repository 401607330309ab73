"""Means over seeds and stories, and differences of them, with intervals and p-values.

Every system is trained with several seeds, and all draw the same stories: seeds are a random factor within a system,
and stories are crossed with them. So the value of story i under seed s is

    y_si = mu + seed_s + story_i + error_si,      Var(mean) = V_seed / S + V_story / B + V_error / (S B)

for S seeds and B stories. The method is that of Dorfman, Berbaum and Metz (Investigative Radiology 27, 1992: readers
are our seeds, cases our stories) in the form of Hillis, Obuchowski, Schartz and Berbaum (Statistics in Medicine 24,
2005). A story's value is its normalized jackknife pseudo-value (``resampling.story_values``), so the method holds for
every score that is a function of sums over stories, and the mean of the values is the score itself. With the mean
squares of the table of values,

    MS_seed = B sum_s (y_s. - y..)^2 / (S - 1),     MS_error = sum_si (y_si - y_s. - y_.i + y..)^2 / ((S - 1)(B - 1)),

    Var(mean) = Var_i(y_.i) / B + max(0, MS_seed - MS_error) / (S B).

A difference of two systems is that of their means: in the first term stories are paired (y_.i - z_.i), and each system
adds the second term of its own seeds. Degrees of freedom are those of Satterthwaite (Biometrics Bulletin 2, 1946): for
a sum of terms T_k of d_k degrees each, (sum T_k)^2 / sum (T_k^2 / d_k). Where no values of stories were kept, the
variance of the seeds' scores alone counts, Var_s(y_s) / S: Student's t for one system, Welch's for two.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from storydalle.metrics import student_t

Test = TypeVar("Test", bound=Hashable)


class Sample(NamedTuple):
    """One score of one system: for each seed and, where they were kept, for each story under each seed."""

    values: Float[np.ndarray, " s"]
    stories: Float[np.ndarray, "s b"] | None = None


class Term(NamedTuple):
    """A part of a variance, estimated from so many degrees of freedom; one that is subtracted is negative."""

    variance: float
    degrees: float


class Estimate(NamedTuple):
    """A mean or a difference, its standard error (nan if nothing tells it), and what this error covers."""

    mean: float
    error: float
    degrees: float
    covers_seeds: bool
    covers_stories: bool

    def ends(self, level: float = 0.95) -> tuple[float, float] | None:
        """The interval of Student's t; None without an error."""
        if math.isnan(self.error):
            return None
        half = student_t.quantile(self.degrees, level) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided, for a mean of zero; nan without an error."""
        if not self.error:
            return float(self.mean == 0)
        return math.nan if math.isnan(self.error) else student_t.two_sided_p(self.mean / self.error, self.degrees)


def mean_of(system: Sample) -> Estimate:
    return estimate([system])


def difference_of(first: Sample, second: Sample) -> Estimate:
    return estimate([first, second])


def estimate(systems: Sequence[Sample]) -> Estimate:
    """The mean of one system, or the first one's minus the second one's."""
    mean = systems[0].values.mean() - sum(each.values.mean() for each in systems[1:])
    shared = {each.stories.shape[1] for each in systems if each.stories is not None}
    has_stories = all(each.stories is not None for each in systems) and len(shared) == 1 and min(shared) > 1
    terms = list(story_terms([each.stories for each in systems if each.stories is not None])) if has_stories else []
    for each in systems:
        terms += seed_terms(each if has_stories else Sample(each.values))
    variance, degrees = total(terms)
    covers_seeds = all(len(each.values) > 1 for each in systems)
    return Estimate(float(mean), math.sqrt(variance), degrees, covers_seeds, has_stories)


def story_terms(tables: Sequence[Float[np.ndarray, "_ b"]]) -> Iterator[Term]:
    values = tables[0].mean(0) - sum(table.mean(0) for table in tables[1:])
    yield Term(float(values.var(ddof=1)) / len(values), len(values) - 1)


def seed_terms(system: Sample) -> Iterator[Term]:
    s = len(system.values)
    if s < 2:
        return
    if system.stories is None:
        yield Term(float(system.values.var(ddof=1)) / s, s - 1)
        return
    table, b = system.stories, system.stories.shape[1]
    of_seeds, of_stories = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    ms_seed = b * float(of_seeds.var(ddof=1))
    ms_error = float(((table - of_seeds - of_stories + table.mean()) ** 2).sum()) / ((s - 1) * (b - 1))
    if ms_seed > ms_error:
        yield Term(ms_seed / (s * b), s - 1)
        yield Term(-ms_error / (s * b), (s - 1) * (b - 1))


def total(terms: Sequence[Term]) -> tuple[float, float]:
    """The sum of the terms and its degrees of freedom; nan without any."""
    if not terms:
        return math.nan, math.nan
    variance, doubt = sum(each.variance for each in terms), sum(each.variance**2 / each.degrees for each in terms)
    return variance, variance**2 / doubt if doubt else math.inf


def holm(p_values: Mapping[Test, float]) -> dict[Test, float]:
    """Adjusted p-values of a table of tests (Holm 1979): all below alpha are correct with probability 1 - alpha.

    p'_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)) for the m sorted p-values. A nan stays nan and does not count as a
    test. Raises ``ValueError`` for a value outside [0, 1].
    """
    for name, value in p_values.items():
        if value < 0 or value > 1:
            raise ValueError(f"p-value {value} of {name!r} is not in [0, 1]")
    tested = sorted(
        (name for name, value in p_values.items() if not math.isnan(value)), key=lambda name: p_values[name]
    )
    adjusted, highest = dict(p_values), 0.0
    for rank, name in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p_values[name]))
        adjusted[name] = highest
    return adjusted
