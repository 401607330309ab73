"""The kernel distance between two sets of pictures, by the features of a network: KID, and the same on other features.

The real and drawn pictures of a benchmark come from the same stories, so they are not independent: a drawn frame is
near the true frame of its own story. That pushes the estimate below zero, and further the more a system copies. So,
where stories are named, each term of the estimate uses pairs from two different stories: the real pictures of one half
of the stories against the drawn pictures of the other half, both ways.
"""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from storydalle.metrics.declared import Column, Extent, Setting
from storydalle.metrics.frechet import FeatureMetric
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.story_metric import hashed_keys, lexical_order, story_keys
from storydalle.metrics.topics import PICTURES

SIDES = ("real", "drawn")
LARGEST_SUBSET, SMALLEST_SUBSET = 1000, 20


class KernelResult(NamedTuple):
    """A kernel distance, and its standard deviation over subsets."""

    mean: float
    deviation: float


class Samples(NamedTuple):
    """Features of some samples, and the number of each one's story; without stories each sample has its own number."""

    features: Float[Tensor, "n d"]
    stories: Int[Tensor, " n"]

    def at(self, chosen: Bool[Tensor, " n"] | Int[Tensor, " m"]) -> "Samples":
        return Samples(self.features[chosen], self.stories[chosen])

    def drawn(self, size: int, generator: torch.Generator) -> "Samples":
        """``size`` random samples, in double precision."""
        chosen = torch.randperm(len(self.features), generator=generator)[:size].to(self.features.device)
        return Samples(self.features[chosen].double(), self.stories[chosen])


class KernelDistance(FeatureMetric):
    """The kernel distance between real and drawn samples: KID on Inception's pool3 (Binkowski et al. 2018, section 4).

    The squared maximum mean discrepancy with the kernel ``k(x, y) = (x y / d + 1)^3``. It is unbiased: 0 on average for
    equal distributions (a single value may be below), for sets of any size; lower is better. ``compute`` gives the mean
    over ``num_subsets`` random subsets of ``subset_size`` a side, and the deviation over them, which describes subsets
    of that size and is not the error of the mean.

    ``stories`` tells which samples are not independent: those of one story (or of one episode or book, whose stories
    share frames), on either side. The two sides then come from different stories: the stories are split into halves by
    the hash of their names (``in_second_half``), and the mean of both ways is given; within a side, no two samples of
    one story are compared. ``compute`` raises ``ValueError`` if a half has fewer samples than a subset, or if a subset
    could be from a single story.

    Of each side at most ``max_samples`` are kept, those with the lowest hashes: memory is limited, and the order,
    batches and processes make no difference. The hash is of the sample's id if ``ids`` are given, else of its features.
    Prefer ids: the features of a picture may differ in the last bits when it is in another batch.
    """

    asked_as = "kernel"
    rank = 3
    inception_name, short_name = "kid", "kd"
    columns = (Column("kid", "KID", PICTURES), Column("*_kd", "*-KD", PICTURES))
    families: ClassVar = {PICTURES: "(kid|.*_kd)(_deviation)?"}

    def __init__(
        self,
        dim: int,
        num_subsets: int = 100,
        subset_size: int = LARGEST_SUBSET,
        max_samples: int = 10_000,
        seed: int = 0,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__(dim, network)
        if num_subsets < 1 or not 2 <= subset_size <= max_samples:
            raise ValueError(
                f"num_subsets={num_subsets}, subset_size={subset_size}, max_samples={max_samples}: give at least one "
                "subset of two samples, and keep as many as a subset has"
            )
        self.num_subsets, self.subset_size, self.max_samples, self.seed = num_subsets, subset_size, max_samples, seed
        for side in SIDES:
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
            for what in ("features", "keys", "stories"):
                self.add_state(f"{side}_{what}", default=[], dist_reduce_fx="cat")

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """True if there is a possible subset size."""
        return largest_subset(extent.cluster_of_frame) is not None

    @classmethod
    def recorded(cls, extent: Extent) -> dict[str, int]:
        size = largest_subset(extent.cluster_of_frame)
        assert size is not None, "is_enough has said so"
        return {"subset_size": size}

    @classmethod
    def made(cls, setting: Setting) -> "KernelDistance":
        return cls(setting.feature_dim, subset_size=setting.subset_size or 2, seed=setting.seed)

    def judge(self, drawn: Seen, truth: Truth) -> None:
        for seen, is_real in ((truth.frames, True), (drawn, False)):
            self.update(seen.features[truth.batch.mask], is_real, truth.frame_ids, truth.frame_clusters)

    def scores(self, label: str | None) -> dict[str, float]:
        name, found = self.full_name(label), self.compute()
        return {name: found.mean, f"{name}_deviation": found.deviation}

    def update(
        self,
        inputs: Shaped[Tensor, "n ..."],
        real: bool,
        ids: Sequence[str] | None = None,
        stories: Sequence[str] | None = None,
    ) -> None:
        """Add real or drawn samples: features ``(n, d)`` or, with a network, its inputs.

        ``ids`` name the samples, ``stories`` the story of each: for all samples of both sides, or for none.
        """
        features = self.features_of(inputs).float()
        for names, what in ((ids, "ids"), (stories, "stories")):
            if names is not None and len(names) != len(features):
                raise ValueError(f"{len(names)} {what} for {len(features)} samples: give one a sample")
        keys = feature_keys(features) if ids is None else story_keys(ids)
        side = "real" if real else "drawn"
        if getattr(self, f"{side}_count") and bool(len(getattr(self, f"{side}_stories"))) != (stories is not None):
            raise ValueError("some samples have stories and some have none: name the story of each sample, or of none")
        self.keep(side, features, keys, None if stories is None else story_keys(stories))
        setattr(self, f"{side}_count", getattr(self, f"{side}_count") + len(features))

    def keep(
        self, side: str, features: Float[Tensor, "n d"], keys: Int[Tensor, "n 2"], stories: Int[Tensor, "n 2"] | None
    ) -> None:
        """Add samples to a side; when they become too many, those with the lowest hashes are kept."""
        parts = {"features": features, "keys": keys} | ({} if stories is None else {"stories": stories})
        for what, rows in parts.items():
            getattr(self, f"{side}_{what}").append(rows.to(self.device))
        if sum(map(len, getattr(self, f"{side}_features"))) > 2 * self.max_samples:
            for what, rows in self.lowest(side).items():
                getattr(self, f"{side}_{what}")[:] = [rows]

    def lowest(self, side: str) -> dict[str, Tensor]:
        """The samples of a side that are kept, in the order of their hashes: features, keys and, if named, stories."""
        rows = {what: getattr(self, f"{side}_{what}") for what in ("features", "keys", "stories")}
        joined = {what: dim_zero_cat(parts) for what, parts in rows.items() if len(parts)}
        order = lexical_order(joined["keys"])[: self.max_samples]
        return {what: part[order.to(part.device)] for what, part in joined.items()}

    def compute(self) -> KernelResult:
        for side in SIDES:
            self.check(int(getattr(self, f"{side}_count")), f"{side} samples")
        pairs = self.pairs()
        generator = torch.Generator().manual_seed(self.seed)
        values = [
            torch.stack(
                [squared_discrepancy(*(side.drawn(self.subset_size, generator) for side in pair)) for pair in pairs]
            ).mean()
            for _ in range(self.num_subsets)
        ]
        over_subsets = torch.stack(values)  # num_subsets; each the mean of both pairs of halves
        return KernelResult(over_subsets.mean().item(), over_subsets.std().item() if len(values) > 1 else torch.nan)

    def pairs(self) -> list[tuple[Samples, Samples]]:
        """Real and drawn samples that are compared: all of them or, where stories are named, of different halves."""
        kept = [self.lowest(side) for side in SIDES]
        named = ["stories" in rows for rows in kept]
        if any(named) != all(named):
            raise ValueError("the samples of only one side have stories: name the stories of both sides, or of neither")
        if not all(named):
            real, drawn = (Samples(each["features"], torch.arange(len(each["features"]))) for each in kept)
            return [(real, drawn)]
        # Sorted by hash: the number of a story tells its half, and is the same on both sides.
        keys, numbers = torch.unique(torch.cat([each["stories"] for each in kept]), dim=0, return_inverse=True)
        own = numbers.split([len(each["stories"]) for each in kept])
        sides = [Samples(each["features"], stories) for each, stories in zip(kept, own, strict=True)]
        halves = [
            [side.at(in_second_half(side.stories, len(keys)) == half) for half in (False, True)] for side in sides
        ]
        for name, of_side in zip(SIDES, halves, strict=True):
            for half in of_side:
                self.check(len(half.stories), f"{name} samples in a half of the {len(keys)} stories")
                self.check_largest(half.stories)
        (real, other_real), (drawn, other_drawn) = halves
        return [(real, other_drawn), (other_real, drawn)]

    def check(self, count: int, what: str) -> None:
        if count < self.subset_size:
            raise ValueError(
                f"{count} {what}, and subsets of {self.subset_size}: score more, or set a smaller "
                "subset_size (numbers of different subset sizes have different deviations)"
            )

    def check_largest(self, stories: Int[Tensor, " n"]) -> None:
        largest = int(torch.bincount(stories).max())
        if largest >= self.subset_size:
            raise ValueError(
                f"a story of {largest} samples, and subsets of {self.subset_size}: a subset could be of one story, and "
                "nothing is compared within one; score more stories, or set a larger subset_size"
            )

    def counts(self) -> dict[str, int]:
        """The numbers of real and drawn samples; of each side at most ``max_samples`` are compared."""
        with self.sync_context(self.dist_sync_fn):
            return {side: int(getattr(self, f"{side}_count")) for side in SIDES}


def in_second_half(stories: Int[Tensor, " n"], num_stories: int) -> Bool[Tensor, " n"]:
    """Marks samples from the second half of the stories; stories are numbered by the hashes of their names."""
    return stories >= num_stories // 2


def largest_subset(stories: Sequence[str]) -> int | None:
    """The subset size for samples of these stories, one name a sample: half of the smaller half, at most 1000.

    None if there is no such size: with fewer than four stories, or if a half is too small for subsets of
    ``SMALLEST_SUBSET`` samples, or has a story as large as a subset.
    """
    counts = Counter(stories)
    names = list(counts)
    keys = story_keys(names)
    ordered = [names[i] for i in lexical_order(keys).tolist()]
    middle = len(ordered) // 2
    halves = [[counts[name] for name in part] for part in (ordered[:middle], ordered[middle:])]
    size = min(LARGEST_SUBSET, min(map(sum, halves)) // 2)
    return size if len(ordered) >= 4 and size >= SMALLEST_SUBSET and max(map(max, halves)) < size else None


def feature_keys(features: Float[Tensor, "n d"]) -> Int[Tensor, "n 2"]:
    """Hashes of the rows' bytes: equal for equal features, wherever they are."""
    return hashed_keys(row.tobytes() for row in features.cpu().numpy())


def squared_discrepancy(x: Samples, y: Samples) -> Float[Tensor, ""]:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, lemma 6).

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    Within a side, only samples of different stories are compared. The stories of x are taken to differ from those of y.
    """
    own = sum(mean_between(each.features, each.stories) for each in (x, y))
    return own - 2 * polynomial_kernel(x.features, y.features).mean()


def mean_between(x: Float[Tensor, "n d"], stories: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """The mean of the kernel over pairs of samples from different stories."""
    apart = stories[:, None] != stories  # n n, with a diagonal of False
    return (polynomial_kernel(x, x) * apart).sum() / apart.sum()


def polynomial_kernel(x: Float[Tensor, "m d"], y: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
    return (x @ y.T / x.shape[1] + 1) ** 3  # Binkowski et al. 2018, eq. 4
