"""Metrics that keep a row a story: ratios by hand, rows found by id, and the same whatever the batches are."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from storydalle.metrics.frame_distances import PictureScores
from storydalle.metrics.resampling import bootstrap_intervals
from storydalle.metrics.story_metric import StoryMetric
from tests.test_metrics_resampling import mean, seeded


class Hits(StoryMetric):
    """Hits of tries, and of tries in the first half."""

    names = ("hits", "early")

    def update(self, hits: Tensor, tries: Tensor, ids: Sequence[str] | None = None) -> None:
        early = slice(None, hits.shape[1] // 2)
        pairs = [(hits & tries, tries), ((hits & tries)[:, early], tries[:, early])]
        self.add_stories(torch.stack([torch.stack([a.sum(1), b.sum(1)], 1) for a, b in pairs], 1), ids)


def random_hits(num_stories: int, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    hits, tries = torch.rand(2, num_stories, 4, generator=seeded(seed)) < 0.6
    return hits, tries, [f"book/{i}" for i in range(num_stories)]


def scored(hits: Tensor, tries: Tensor, ids: Sequence[str] | None) -> Hits:
    metric = Hits()
    metric.update(hits, tries, ids)
    return metric


def gather_with(here: Metric, there: Metric) -> None:
    """Let one metric gather its states with another's, as if they were two processes."""
    states = itertools.cycle(
        torch.cat(state or [torch.tensor([])]) if isinstance(state, list) else state.clone()
        for state in there.metric_state.values()
    )
    here.distributed_available_fn = lambda: True
    here.dist_sync_fn = lambda value, group=None: [value, next(states)]


def test_ratios_of_sums_and_their_counts_are_those_counted_by_hand() -> None:
    hits = torch.tensor([[True, False, True, True], [False, False, True, False]])
    tries = torch.tensor([[True, True, True, False], [False, True, True, True]])
    metric = scored(hits, tries, None)
    assert metric.compute() == {"hits": 3 / 6, "early": 1 / 3}
    assert metric.counts() == {"stories": 2, "hits": 6, "early": 3}


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_results_do_not_depend_on_batches_or_their_order(with_ids: bool, batch_size: int) -> None:
    hits, tries, ids = random_hits(13)
    whole, parts = scored(hits, tries, ids if with_ids else None), Hits()
    for rows in torch.randperm(13, generator=seeded(5)).split(batch_size):
        parts.update(hits[rows], tries[rows], [ids[i] for i in rows] if with_ids else None)
    assert torch.equal(parts.story_rows(), whole.story_rows())
    assert parts.compute() == whole.compute() and parts.compute_intervals(50) == whole.compute_intervals(50)


def test_rows_are_sorted_by_id_and_found_by_it() -> None:
    hits, tries, ids = random_hits(9)
    metric = scored(hits, tries, ids)
    other = scored(~hits, tries, ids)
    order = [3, 0, 8]
    found = metric.rows_of([ids[i] for i in order])
    assert found.ids == ("book/3", "book/0", "book/8")
    assert found.rows[:, 0, 0].tolist() == (hits & tries).sum(1)[order].tolist()
    together = metric.story_rows() + other.story_rows()
    assert torch.equal(together[:, 0, 0] * 2, together[:, 0, 1]), "row i is the same story in both"
    with pytest.raises(ValueError, match="'book/77' has not been scored"):
        metric.rows_of(["book/1", "book/77"])


def test_clusters_follow_their_stories() -> None:
    hits, tries, ids = random_hits(12)
    clusters = {name: f"episode {i % 4}" for i, name in enumerate(ids)} | {"book/99": "episode 1"}
    rows = torch.stack([(hits & tries).sum(1), tries.sum(1)], 1)
    expected = bootstrap_intervals(rows, mean, [clusters[name] for name in ids])["mean"]
    assert scored(hits, tries, ids).compute_intervals(clusters=clusters)["hits"] == pytest.approx(expected)
    assert scored(hits, tries, ids).compute_intervals()["hits"] != pytest.approx(expected)


def test_stories_without_a_name_or_a_cluster_are_refused() -> None:
    hits, tries, ids = random_hits(4)
    with pytest.raises(ValueError, match="3 of 4 stories are in no cluster"):
        scored(hits, tries, ids).compute_intervals(clusters={ids[0]: "a"})
    with pytest.raises(ValueError, match="without ids"):
        scored(hits, tries, None).compute_intervals(clusters=dict.fromkeys(ids, "a"))
    with pytest.raises(ValueError, match="without ids"):
        scored(hits, tries, None).rows_of(ids)


def test_ids_that_do_not_fit_are_refused() -> None:
    hits, tries, ids = random_hits(4)
    with pytest.raises(ValueError, match="3 ids for 4 stories"):
        scored(hits, tries, ids[:3])
    with pytest.raises(ValueError, match="'book/1' comes 2 times"):
        scored(hits, tries, [*ids[:3], "book/1"])
    for first, second in ((ids, None), (None, ids)):
        metric = scored(hits, tries, first)
        with pytest.raises(ValueError, match="some without"):
            metric.update(hits, tries, second)
    twice = scored(hits, tries, ids)
    twice.update(hits[:1], tries[:1], ids[:1])
    with pytest.raises(ValueError, match="1 of 5 stories were scored before"):
        twice.compute()
    with pytest.raises(ValueError, match="call update first"):
        Hits().compute_intervals()


@pytest.mark.parametrize("with_ids", [True, False])
def test_processes_gather_to_the_whole(with_ids: bool) -> None:
    hits, tries, ids = random_hits(10)
    names = ids if with_ids else None
    whole = scored(hits, tries, names)
    here, there = (scored(hits[rows], tries[rows], names and names[rows]) for rows in (slice(3, 10), slice(0, 3)))
    gather_with(here, there)
    assert here.compute() == whole.compute() != there.compute()
    assert here.compute_intervals(50) == whole.compute_intervals(50) and here.counts() == whole.counts()
    if with_ids:
        assert torch.equal(here.rows_of(ids).rows, whole.rows_of(ids).rows)


def test_halves_merge_to_the_whole_and_a_reset_forgets() -> None:
    hits, tries, ids = random_hits(10)
    whole = scored(hits, tries, ids)
    first, second = scored(hits[:4], tries[:4], ids[:4]), scored(hits[4:], tries[4:], ids[4:])
    first.merge_state(second)
    assert first.compute() == whole.compute() and torch.equal(first.story_rows(), whole.story_rows())
    first.reset()
    first.update(hits[:4], tries[:4])
    assert first.counts()["stories"] == 4


def test_picture_scores_are_intervals_over_stories_in_any_order() -> None:
    frames, true = torch.rand(2, 8, 3, 3, 4, 4, generator=seeded(0)) * 2 - 1
    source, mask = true[:, 0].flip(0), torch.rand(8, 3, generator=seeded(1)) < 0.7
    ids = [str(i) for i in range(8)]
    whole, parts = PictureScores(), PictureScores()
    whole.update(frames, true, source, mask, ids)
    for rows in torch.randperm(8, generator=seeded(2)).split(3):
        parts.update(frames[rows], true[rows], source[rows], mask[rows], [ids[i] for i in rows])
    assert whole.compute() == pytest.approx(parts.compute(), abs=1e-9)
    error = (frames - true).abs().mean((2, 3, 4))[mask] / 2
    assert whole.compute()["error"] == pytest.approx(error.mean().item(), abs=1e-6)
    for name, (low, high) in whole.compute_intervals(200).items():
        assert (low, high) == pytest.approx(parts.compute_intervals(200)[name], abs=1e-9)
        assert low <= whole.compute()[name] <= high
