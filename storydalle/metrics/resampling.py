"""The uncertainty of a score: intervals, paired tests of two systems, and corrections for a table of tests.

Every score is a function of sums over stories, so a resample is one weight a story: ``scores_of_sums`` takes weighted
sums ``(r, *k)`` of the stories' rows ``(b, *k)`` and returns one value a resample for each score. Resampled are
independent units: stories or, if several stories are from one episode or book, whole clusters of them. (Stories of one
episode share characters and places; if each counted as independent, intervals would be too narrow.)
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

ScoresOfSums = Callable[[Tensor], Mapping[str, Tensor]]
MAX_WEIGHTS = 2**22
"""Weights in memory at a time: with draws and sums about 150 MB, for any number of stories and resamples."""


class Interval(NamedTuple):
    """Ends of a percentile interval."""

    low: float
    high: float


class StoryRows(NamedTuple):
    """One system's rows of sums, with the ids of their stories."""

    ids: tuple[str, ...]
    rows: Shaped[Tensor, "b ..."]


class PairedTest(NamedTuple):
    """How much higher the first of two systems scores on the same stories, and how likely that is by chance.

    ``interval`` is that of the difference. Both p-values are two-sided: one for a difference of zero under resampling
    of stories, one for systems that are exchangeable in each story. All are nan if a score is undefined.
    """

    difference: float
    interval: Interval
    p_bootstrap: float
    p_permutation: float


def bootstrap_intervals(
    rows: Shaped[Tensor, "b ..."],
    scores_of_sums: ScoresOfSums,
    clusters: Sequence[str] | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals (Efron 1979) from resampling rows, or whole clusters of rows, with replacement.

    Resamples with an undefined score (nan) are left out of its interval. A single row or cluster says nothing about
    others: its intervals are nan. ``clusters`` names the cluster of each row. As in every bootstrap, intervals of few
    rows are too narrow: with fewer than about 30 rows or clusters the true uncertainty is larger.
    """
    units = cluster_sums(rows, clusters)
    check_resampling(num_resamples, level)
    parts = [scores_of_sums(sums) for (sums,) in resampled_sums([units], num_resamples, seed)]
    scores = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: percentile_interval(values, level, len(units)) for name, values in scores.items()}


def story_values(
    rows: Shaped[Tensor, "b ..."], scores_of_sums: ScoresOfSums, clusters: Sequence[str] | None = None
) -> dict[str, Float[Tensor, " g"]]:
    """The part of each story (cluster) in each score: normalized jackknife pseudo-values, whose mean is the score.

    p_i = n score - (n - 1) score_without_i, and then all shifted alike (Hillis et al. 2005, see ``estimates``). For a
    mean of stories they are the stories' own values. A score that is undefined without some story has none.
    """
    units = cluster_sums(rows, clusters)
    n, total = len(units), units.sum(0)
    without, whole = scores_of_sums(total - units), scores_of_sums(total[None])
    found: dict[str, Tensor] = {}
    for name, score in whole.items():
        values = n * score - (n - 1) * without[name]
        if n > 1 and values.isfinite().all():
            found[name] = values + (score - values.mean())
    return found


def paired_test(
    rows_a: StoryRows,
    rows_b: StoryRows,
    scores_of_sums: ScoresOfSums,
    name: str,
    clusters: Mapping[str, str] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> PairedTest:
    """``paired_tests`` of one score."""
    tests = paired_tests(rows_a, rows_b, scores_of_sums, clusters, num_resamples, seed)
    if name not in tests:
        raise ValueError(f"no score {name!r}: choose one of {', '.join(tests)}")
    return tests[name]


def paired_tests(
    rows_a: StoryRows,
    rows_b: StoryRows,
    scores_of_sums: ScoresOfSums,
    clusters: Mapping[str, str] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, PairedTest]:
    """Test for each score if systems a and b differ on the same stories.

    Stories are matched by id, in any order; ``clusters`` maps ids to episodes or books, which are then resampled as a
    whole. The permutation test swaps the two systems' rows of a story (cluster) at random, and counts how often the
    difference is at least as large as the observed one; it is valid for any number of stories, but with few it can't
    reach a small p (six: 2/64). p-values are (c + 1) / (n + 1) for c of n resamples, never 0 (Phipson and Smyth 2010).

    Raises ``ValueError`` if the systems were scored on different stories, naming the first missing one, for stories
    without a cluster, and for fewer than two stories or clusters.
    """
    check_resampling(num_resamples, level)
    ids, first, second = matched(rows_a, rows_b)
    of_each = None if clusters is None else [cluster_of(name, clusters) for name in ids]
    a, b = cluster_sums(first, of_each), cluster_sums(second, of_each)
    if len(a) < 2:
        raise ValueError(f"a paired test on {len(a)} story or cluster: give at least two, they are what is compared")
    seen = differences(scores_of_sums, a.sum(0)[None], b.sum(0)[None])
    drawn = joined(differences(scores_of_sums, *sums) for sums in resampled_sums([a, b], num_resamples, seed))
    swapped = joined(differences(scores_of_sums, *sums) for sums in swapped_sums(a, b, num_resamples, seed))
    return {
        name: PairedTest(
            value.item(),
            percentile_interval(drawn[name], level, len(a)),
            p_of_resamples(drawn[name]) if value.isfinite() else math.nan,
            p_of_permutations(swapped[name], value),
        )
        for name, value in seen.items()
    }


def check_resampling(num_resamples: int, level: float) -> None:
    if num_resamples < 1:
        raise ValueError(f"num_resamples={num_resamples}: draw at least one resample, better a thousand")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: choose a level between 0 and 1, such as 0.95")


def cluster_sums(rows: Shaped[Tensor, "b ..."], clusters: Sequence[str] | None) -> Float[Tensor, "g ..."]:
    """Rows in double precision, summed over each cluster, in the order of the clusters' names."""
    rows = rows.double().cpu()
    if not len(rows):
        raise ValueError("no story to resample: score some first")
    if clusters is None:
        return rows
    if len(clusters) != len(rows):
        raise ValueError(f"{len(clusters)} clusters for {len(rows)} stories: name the cluster of each story")
    places = {name: place for place, name in enumerate(sorted(set(clusters)))}
    place = torch.tensor([places[name] for name in clusters])
    return torch.zeros(len(places), *rows.shape[1:], dtype=torch.double).index_add_(0, place, rows)


def resampled_sums(units: Sequence[Tensor], num_resamples: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Sums ``(r, *k)`` of resampled rows of each of the given ``(b, *k)``, the same rows of all, part by part."""
    generator = torch.Generator().manual_seed(seed)
    num_units = len(units[0])
    for num in chunks(num_resamples, num_units):
        drawn = torch.randint(num_units, (num, num_units), generator=generator)
        times = torch.zeros(num, num_units, dtype=torch.double)
        times.scatter_add_(1, drawn, torch.ones((), dtype=torch.double).expand_as(times))
        yield tuple(torch.tensordot(times, rows, 1) for rows in units)


def swapped_sums(
    a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."], num_resamples: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sums ``(r, *k)`` of two systems whose rows of a story are swapped at random, part by part."""
    generator = torch.Generator().manual_seed(seed)
    for num in chunks(num_resamples, len(a)):
        swaps = torch.randint(2, (num, len(a)), generator=generator).double()
        moved = torch.tensordot(swaps, b - a, 1)
        yield a.sum(0) + moved, b.sum(0) - moved


def chunks(num_resamples: int, num_units: int) -> Iterator[int]:
    """Numbers of resamples to compute at a time; the division does not change the draws."""
    size = max(1, MAX_WEIGHTS // num_units)
    for start in range(0, num_resamples, size):
        yield min(size, num_resamples - start)


def percentile_interval(values: Float[Tensor, " r"], level: float, num_units: int) -> Interval:
    if num_units < 2:
        return Interval(math.nan, math.nan)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
    low, high = values.nanquantile(tails).tolist()
    return Interval(low, high)


def differences(scores_of_sums: ScoresOfSums, sums_a: Tensor, sums_b: Tensor) -> dict[str, Tensor]:
    scores_b = scores_of_sums(sums_b)
    return {name: values - scores_b[name] for name, values in scores_of_sums(sums_a).items()}


def joined(parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    parts_list = list(parts)
    return {name: torch.cat([part[name] for part in parts_list]) for name in parts_list[0]}


def p_of_resamples(drawn: Float[Tensor, " r"]) -> float:
    """Twice the share of resampled differences on the other side of zero."""
    drawn = drawn[drawn.isfinite()]
    lowest = min((drawn <= 0).sum().item(), (drawn >= 0).sum().item())
    return min(1.0, 2 * (lowest + 1) / (len(drawn) + 1))


def p_of_permutations(swapped: Float[Tensor, " r"], seen: Float[Tensor, "1"]) -> float:
    """The share of swapped differences that are at least as large as the one seen, up to rounding."""
    if not seen.isfinite():
        return math.nan
    swapped = swapped[swapped.isfinite()].abs()
    large = (swapped >= seen.abs() * (1 - 1e-9) - 1e-12).sum().item()
    return (large + 1) / (len(swapped) + 1)


def matched(a: StoryRows, b: StoryRows) -> tuple[list[str], Tensor, Tensor]:
    """The ids in order, and each system's rows in that order."""
    for one, other, whose in ((a, b, "second"), (b, a, "first")):
        missing = sorted(set(one.ids) - set(other.ids))
        if missing:
            raise ValueError(
                f"story {missing[0]!r} is missing from the {whose} system ({len(missing)} missing in all): "
                "a paired test needs both systems on the same stories"
            )
    ids = sorted(a.ids)
    return ids, in_order(a, ids), in_order(b, ids)


def in_order(system: StoryRows, ids: Sequence[str]) -> Shaped[Tensor, "b ..."]:
    places = {name: place for place, name in enumerate(system.ids)}
    if len(places) != len(system.rows) or len(system.ids) != len(system.rows):
        raise ValueError(f"{len(system.rows)} rows of {len(places)} stories: give each story once, with its id")
    return system.rows[[places[name] for name in ids]]


def cluster_of(name: str, clusters: Mapping[str, str]) -> str:
    if name not in clusters:
        raise ValueError(f"story {name!r} is in no cluster: name the cluster of each story's id")
    return clusters[name]
