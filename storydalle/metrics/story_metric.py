"""The base of every score that is a function of sums over stories.

Here every score on a test set is a function of sums over stories: an accuracy is a number of correct items divided by a
number of items, a mean is a total divided by a number. One row of sums for each story is therefore enough for the
score, its interval (resampled stories are weighted rows), its paired test against another system, and several
processes.

A metric of ratios names the entries of a row, and adds rows of pairs (right, of)::

    class Copies(StoryMetric):
        names = ("copied", "copied_cast")

        def update(self, frames, source, mask, ids=None):
            copied = is_copy(frames, source) & mask  # (b, f)
            cast = has_cast(source) & mask
            rows = [[copied.sum(1), mask.sum(1)], [(copied & cast).sum(1), cast.sum(1)]]
            self.add_stories(torch.stack([torch.stack(row, dim=1) for row in rows], dim=1), ids)  # (b, 2, 2)

    copies.update(frames, source, mask, ids=["s/1", "s/2"])
    copies.compute()                                       # {"copied": 0.25, "copied_cast": 0.5}
    copies.compute_intervals(clusters={"s/1": "episode 3", "s/2": "episode 3"})
    paired_test(copies.rows_of(ids), rival.rows_of(ids), copies.scores_of_sums, "copied")

For another function of sums override ``scores_of_sums``, and ``counts`` if entries are not pairs (right, of).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from storydalle.metrics.declared import DeclaredMetric
from storydalle.metrics.resampling import Interval, StoryRows, bootstrap_intervals, story_values


def hashed_keys(items: Iterable[bytes]) -> Int[Tensor, "n 2"]:
    """The first 128 bits of each item's sha256: names as tensors, which processes can gather."""
    digests = b"".join(hashlib.sha256(item).digest()[:16] for item in items)
    return torch.from_numpy(np.frombuffer(digests, dtype="<i8").reshape(-1, 2).astype(np.int64))


def story_keys(ids: Sequence[str]) -> Int[Tensor, "b 2"]:
    return hashed_keys(name.encode() for name in ids)


def lexical_order(rows: Shaped[Tensor, "b k"]) -> Int[Tensor, " b"]:
    """Indices that sort rows by their first column, then their second, and so on."""
    columns = rows.cpu().numpy().T[::-1]
    return torch.from_numpy(np.lexsort(columns)) if len(columns) else torch.arange(len(rows))


class StoryMetric(DeclaredMetric):
    """Scores from one row of sums a story, of any shape ``(b, *k)`` that stays the same from update to update.

    Subclasses define ``names`` and ``update``, which calls ``add_stories``. Results do not depend on the order of
    stories, on batches, or on the number of processes (each needs at least one story): rows are sorted by the story's
    id or, without ids, by their content. Clusters and paired tests need ids.
    """

    names: tuple[str, ...] = ()
    """Names of the first entries of a row; with the default ``scores_of_sums``, the scores."""
    sums: list[Tensor]
    keys: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", default=[], dist_reduce_fx="cat")
        self.add_state("keys", default=[], dist_reduce_fx="cat")

    def add_stories(self, sums: Shaped[Tensor, "b ..."], ids: Sequence[str] | None = None) -> None:
        """Keep one row a story, counts as integers and other sums in double precision.

        Raises ``ValueError`` for too few, too many or repeated ids, and for ids in only some updates.
        """
        if ids is not None:
            check_ids(ids, len(sums))
        if len(self.sums) and (ids is None) == bool(len(self.keys)):
            raise ValueError("some stories came with ids and some without: give ids in every update or in none")
        self.sums.append((sums.double() if sums.is_floating_point() else sums.long()).to(self.device))
        if ids is not None:
            self.keys.append(story_keys(ids).to(self.device))

    def story_rows(self) -> Shaped[Tensor, "b ..."]:
        """One row of sums a story, in an order that does not depend on the order of updates."""
        rows, keys = self.gathered()
        order = lexical_order(rows.flatten(1) if keys is None else keys)
        return rows[order.to(rows.device)]

    def gathered(self) -> tuple[Shaped[Tensor, "b ..."], Int[Tensor, "b 2"] | None]:
        """Rows and keys in the order of updates; no keys without ids. Refuses a story that was added twice."""
        if not len(self.sums):
            raise ValueError("no story has been scored: call update first")
        rows = dim_zero_cat(self.sums)
        if not len(self.keys):
            return rows, None
        keys = dim_zero_cat(self.keys)
        repeated = len(keys) - len(torch.unique(keys, dim=0))
        if repeated:
            raise ValueError(
                f"{repeated} of {len(keys)} stories were scored before: give each story once (a sampler that pads "
                "the shares of processes repeats some)"
            )
        return rows, keys

    def rows_of(self, ids: Sequence[str]) -> StoryRows:
        """Each named story's row, in the order of ``ids``, for comparing systems story by story.

        Raises ``ValueError`` naming the first story that was not scored; other stories may have been.
        """
        with self.sync_context(self.dist_sync_fn):
            rows, keys = self.gathered()
        places = places_of(keys)
        wanted = [places.get(key) for key in key_pairs(story_keys(ids))]
        if None in wanted:
            raise ValueError(f"story {ids[wanted.index(None)]!r} has not been scored: update with it and its id first")
        return StoryRows(tuple(ids), rows[[place for place in wanted if place is not None]].cpu())

    def scores_of_sums(self, sums: Float[Tensor, "*r k 2"]) -> dict[str, Float[Tensor, "*r"]]:
        """Scores of summed rows; axes before those of a row are kept. Here: right / of, nan if ``of`` is zero."""
        return {name: sums[..., i, 0] / sums[..., i, 1] for i, name in enumerate(self.names)}

    def compute(self) -> dict[str, float]:
        """Each score over all stories; nan if there was nothing to score."""
        scores = self.scores_of_sums(self.story_rows().double().sum(0))
        return {name: value.item() for name, value in scores.items()}

    def compute_intervals(
        self,
        num_resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
        clusters: Mapping[str, str] | None = None,
    ) -> dict[str, Interval]:
        """Percentile intervals from resampling stories, or clusters of stories, with replacement.

        ``clusters`` maps each story's id to its episode or book (it may hold other stories too). A story drawn under
        several seeds is one cluster of the ids ``"<story>#<seed>"``. The interval of a single story is nan.
        """
        rows, own = self.units(clusters)
        return bootstrap_intervals(rows, self.scores_of_sums, own, num_resamples, level, seed)

    def story_values(self, clusters: Mapping[str, str] | None = None) -> dict[str, Float[Tensor, " g"]]:
        """The part of each story, or of each cluster of stories, in each score; see ``resampling.story_values``."""
        rows, own = self.units(clusters)
        return story_values(rows, self.scores_of_sums, own)

    def units(self, clusters: Mapping[str, str] | None) -> tuple[Shaped[Tensor, "b ..."], list[str] | None]:
        """The rows of all stories, and the cluster of each."""
        with self.sync_context(self.dist_sync_fn):
            rows = self.story_rows().double().cpu()
            keys = self.gathered()[1]
        return rows, None if clusters is None else clusters_of(keys, clusters)

    def counts(self) -> dict[str, int]:
        """The number of scored stories, and the number of items of each score."""
        with self.sync_context(self.dist_sync_fn):
            rows = self.story_rows()
        return {"stories": len(rows)} | dict(zip(self.names, rows[..., 1].sum(0).tolist(), strict=False))


def check_ids(ids: Sequence[str], num_stories: int) -> None:
    """Refuse ids that do not name each of a batch's stories once."""
    if len(ids) != num_stories:
        raise ValueError(f"{len(ids)} ids for {num_stories} stories: give one id a story")
    name, times = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if times > 1:
        raise ValueError(f"story {name!r} comes {times} times in one batch: give each story once")


def check_finite(
    values: Float[Tensor, "b f *k"], mask: Bool[Tensor, "b f"], ids: Sequence[str] | None, what: str
) -> None:
    """Refuse nan and infinity at frames that exist, naming the first such story and frame."""
    broken = mask & ~values[..., None].isfinite().flatten(2).all(-1)
    if broken.any():
        story, frame = broken.nonzero()[0].tolist()
        name = f"number {story + 1} of the batch" if ids is None else repr(ids[story])
        raise ValueError(
            f"{what} of story {name}, frame {frame + 1}, hold nan or infinity: fix what made them, or leave the frame "
            "out of the mask"
        )


def key_pairs(keys: Int[Tensor, "b 2"]) -> list[tuple[int, int]]:
    return [(first, second) for first, second in keys.tolist()]


def places_of(keys: Int[Tensor, "b 2"] | None) -> dict[tuple[int, int], int]:
    """The place of each story's row."""
    if keys is None:
        raise ValueError("stories were scored without ids, and can't be told apart: give ids to update")
    return {key: place for place, key in enumerate(key_pairs(keys))}


def clusters_of(keys: Int[Tensor, "b 2"] | None, clusters: Mapping[str, str]) -> list[str]:
    """The cluster of each row of ``StoryMetric.story_rows``."""
    places = places_of(keys)
    known = dict(zip(key_pairs(story_keys(list(clusters))), clusters.values(), strict=True))
    lost = places.keys() - known.keys()
    if lost:
        raise ValueError(f"{len(lost)} of {len(places)} stories are in no cluster: name the cluster of each story's id")
    return [known[key] for key in sorted(places)]
