"""Fréchet distances between two sets of pictures, by the features of a network: FID, and the same on other features.

The name of a distance depends on the features: FID and KID are of Inception's pool3 only; on other features they are
called after these (CLIP-FD, toon-FD). All are 0 for equal distributions and have no upper limit; lower is better.

Metrics take features ``(n, d)`` or, with a ``network``, whatever it maps to features; a network's weights are frozen.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from storydalle.files.weights import write_tensors
from storydalle.metrics.declared import Column, DeclaredMetric, Extent, Setting
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.topics import PICTURES

STATISTICS_FORMAT = "storydalle feature statistics 1"
NUM_PROJECTIONS = 64


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Sums over samples, from which their mean and covariance follow; the sums of two parts add up to those of the
    whole.

    Plain sums in double precision can be merged in any order, running means cannot. The covariance loses some digits to
    cancellation, a factor of (mean / deviation)^2 of the 16; for features of a network ten are left.
    """

    count: int
    sum: Float[Tensor, " d"]
    outer: Float[Tensor, "d d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> "FeatureStatistics":
        features = checked_features(features, features.shape[1]).double()
        return cls(len(features), features.sum(0), features.T @ features)

    def __add__(self, other: "FeatureStatistics") -> "FeatureStatistics":
        if self.dim != other.dim:
            raise ValueError(f"statistics of {self.dim}-d and of {other.dim}-d features: merge those of one network")
        return FeatureStatistics(self.count + other.count, self.sum + other.sum, self.outer + other.outer)

    @property
    def dim(self) -> int:
        return len(self.sum)

    def mean(self) -> Float[Tensor, " d"]:
        return self.sum / self.count

    def covariance(self) -> Float[Tensor, "d d"]:
        """(sum x x^T - n m m^T) / (n - 1): unbiased, as in the FID's reference code."""
        mean = self.mean()
        return (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)

    def to(self, device: torch.device) -> "FeatureStatistics":
        return FeatureStatistics(self.count, self.sum.to(device), self.outer.to(device))


def checked_features(features: Tensor, dim: int) -> Float[Tensor, "n d"]:
    """Return the features; ValueError for another shape, and for rows with nan or infinite values."""
    if features.ndim != 2 or features.shape[1] != dim:
        raise ValueError(f"features of shape {tuple(features.shape)}: give (n, {dim}), one row a sample")
    broken = len(features) - int(features.isfinite().all(1).sum())
    if broken:
        raise ValueError(
            f"{broken} of {len(features)} feature rows hold nan or infinite values: look at those pictures, and at "
            "the network's precision"
        )
    return features


def frechet_distance(real: FeatureStatistics, drawn: FeatureStatistics) -> float:
    """The squared Fréchet distance of two Gaussians (Heusel et al. 2017, eq. 6), in double precision.

    |m_A - m_B|^2 + tr(A + B - 2 (A B)^(1/2)) for means m and covariances A, B. tr (A B)^(1/2) is the sum of the
    singular values of A^(1/2) B^(1/2), with the roots of A and B from their eigenvalues: no complex numbers arise, and
    eigenvalues near zero, of which FID has hundreds, keep their digits. Raises ``ValueError`` if a side has too few
    samples for a covariance of full rank.
    """
    if real.dim != drawn.dim:
        raise ValueError(f"real features are {real.dim}-d and drawn ones {drawn.dim}-d: use one network for both")
    for side, statistics in (("real", real), ("drawn", drawn)):
        if statistics.count < statistics.dim + 1:
            raise ValueError(
                f"{statistics.count} {side} samples of {statistics.dim}-d features: a Fréchet distance needs at least "
                f"{statistics.dim + 1} on each side. Score more, or use the kernel distance (KID), which is unbiased "
                "for any number of samples"
            )
    drawn = drawn.to(real.sum.device)
    first, second = real.covariance(), drawn.covariance()
    overlap = torch.linalg.svdvals(root_factor(first).T @ root_factor(second)).sum()  # tr (A B)^(1/2)
    distance = (real.mean() - drawn.mean()).square().sum() + first.trace() + second.trace() - 2 * overlap
    return max(0.0, distance.item())  # below zero by rounding alone


def root_factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A factor F with F F^T the covariance: its eigenvectors times the roots of their eigenvalues."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()  # rounding can make a zero negative


def save_statistics(
    path: Path | str, statistics: FeatureStatistics, *, protocol_hash: str, network_sha256: str
) -> None:
    """Write a reference set's statistics, with the protocol and network that they belong to."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format": STATISTICS_FORMAT, "protocol_hash": protocol_hash, "network_sha256": network_sha256}
    tensors = {"sum": statistics.sum, "outer": statistics.outer}
    write_tensors(path, tensors, header | {"count": str(statistics.count)})


def load_statistics(path: Path | str, *, protocol_hash: str, network_sha256: str) -> FeatureStatistics:
    """Read statistics of a reference set; ``ValueError`` if they are damaged or of another protocol or network."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} can't be read ({error}): delete it, then it is made again") from error
    if header.get("format") != STATISTICS_FORMAT or tensors.keys() != {"sum", "outer"}:
        raise ValueError(f"{path} holds no feature statistics of this version: delete it, then it is made again")
    for name, wanted in (("protocol_hash", protocol_hash), ("network_sha256", network_sha256)):
        if header.get(name) != wanted:
            raise ValueError(
                f"{path} was made with {name} {header.get(name)}, but this evaluation has {wanted}: their numbers "
                "can't be compared. Delete the file, or give the folder of this protocol"
            )
    return FeatureStatistics(int(header["count"]), tensors["sum"], tensors["outer"])


class FeatureMetric(DeclaredMetric):
    """A metric of features ``(n, feature_dim)``, or of inputs that ``network`` maps to features."""

    higher_is_better = False
    needs = ("features",)
    takes_many = True
    legend: ClassVar = {
        PICTURES: "*FD* and *KD*: Fréchet and kernel distance to the true frames, on the features that their name says"
    }
    inception_name: ClassVar[str] = ""
    """The distance's name on Inception's features."""
    short_name: ClassVar[str] = ""
    """Its name after the label of another network."""

    def __init__(self, feature_dim: int, network: nn.Module | None = None) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.network = None if network is None else network.requires_grad_(False)

    @classmethod
    def full_name(cls, label: str | None) -> str:
        """``fid`` and ``kid`` on Inception's features; on others the network's label comes first, as in ``toon_fd``."""
        return cls.inception_name if label is None else f"{label}_{cls.short_name}"

    def scores(self, label: str | None) -> dict[str, float]:
        return {self.full_name(label): float(self.compute())}

    def judge(self, drawn: Seen, truth: Truth) -> None:
        for seen, is_real in ((truth.frames, True), (drawn, False)):
            self.update(seen.features[truth.batch.mask], is_real)

    def features_of(self, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
        inputs = inputs.to(self.device)
        # A module that holds this metric may have put it, and the network with it, in training mode.
        features = inputs if self.network is None else self.network.eval()(inputs)
        return checked_features(features, self.feature_dim)


class FrechetDistance(FeatureMetric):
    """The Fréchet distance between real and drawn samples: FID on Inception's pool3 (Heusel et al. 2017).

    0 for equal means and covariances, lower is better. Few samples bias it upwards: state the number of samples, and
    compare only distances of equal numbers. ``reference`` replaces the real samples by their statistics. The memory is
    that of two covariances, whatever the number of samples.
    """

    asked_as = "frechet"
    rank = 2
    inception_name, short_name = "fid", "fd"
    columns = (Column("fid", "FID", PICTURES), Column("*_fd", "*-FD", PICTURES))
    families: ClassVar = {PICTURES: "fid|.*_fd"}

    def __init__(self, dim: int, reference: FeatureStatistics | None = None, network: nn.Module | None = None) -> None:
        super().__init__(dim, network)
        if reference is not None and reference.dim != dim:
            raise ValueError(f"reference statistics of {reference.dim}-d features, and dim={dim}: use one network")
        self.reference = reference
        for side in ("real", "drawn"):
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
            self.add_state(f"{side}_sum", torch.zeros(dim, dtype=torch.double), dist_reduce_fx="sum")
            self.add_state(f"{side}_outer", torch.zeros(dim, dim, dtype=torch.double), dist_reduce_fx="sum")

    @classmethod
    def made(cls, setting: Setting) -> "FrechetDistance":
        return cls(setting.feature_dim)

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """True if the covariance has full rank."""
        return len(extent.cluster_of_frame) > extent.feature_dim

    def update(self, inputs: Shaped[Tensor, "n ..."], real: bool) -> None:
        """Add real or drawn samples: features ``(n, d)`` or, with a network, its inputs."""
        self.add(self.features_of(inputs), real)

    def add(self, features: Float[Tensor, "n d"], real: bool) -> None:
        if real and self.reference is not None:
            raise ValueError("real samples beside reference statistics: give one of the two")
        added = FeatureStatistics.of(features)
        side = "real" if real else "drawn"
        for name, value in (("count", added.count), ("sum", added.sum), ("outer", added.outer)):
            setattr(self, f"{side}_{name}", getattr(self, f"{side}_{name}") + value)

    def own_statistics(self, real: bool) -> FeatureStatistics:
        """Statistics of this process's samples, and of all processes' while their states are gathered."""
        if real and self.reference is not None:
            return self.reference.to(self.device)
        count, *sums = (getattr(self, f"{'real' if real else 'drawn'}_{name}") for name in ("count", "sum", "outer"))
        return FeatureStatistics(int(count), *sums)

    def statistics(self, real: bool) -> FeatureStatistics:
        """Statistics of all processes' samples, to be saved as a reference."""
        with self.sync_context(self.dist_sync_fn):
            return self.own_statistics(real)

    def compute(self) -> float:
        return frechet_distance(self.own_statistics(real=True), self.own_statistics(real=False))

    def counts(self) -> dict[str, int]:
        """The numbers of real and drawn samples."""
        with self.sync_context(self.dist_sync_fn):
            return {side: self.own_statistics(real=side == "real").count for side in ("real", "drawn")}


def story_features(features: Float[Tensor, "b f d"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b e"]:
    """A story's content and change: [mean_i x_i, sqrt(mean_i (x_i+1 - x_i)^2)] of its frames' features x; ``e = 2 d``.

    Raises ``ValueError`` for a story without two frames in a row.
    """
    neighbours = mask[:, 1:] & mask[:, :-1]  # b (f - 1)
    short = int((neighbours.sum(1) == 0).sum())
    if short:
        raise ValueError(f"{short} of {len(mask)} stories have no two frames in a row: leave them out")
    steps = (features[:, 1:] - features[:, :-1]).square() * neighbours[..., None]  # b (f - 1) d
    change = (steps.sum(1) / neighbours.sum(1, keepdim=True)).sqrt()
    mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.cat([mean, change], dim=1)


def random_projection(dim: int, num_projections: int, seed: int) -> Float[Tensor, "d p"]:
    """Orthogonal directions drawn at random, scaled so that distances keep their expectation."""
    drawn = torch.randn(dim, num_projections, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    directions, triangle = torch.linalg.qr(drawn)  # d p with orthonormal columns
    # QR leaves the signs open; a positive diagonal makes the directions a function of the seed alone.
    return directions * triangle.diagonal().sign() * (dim / num_projections) ** 0.5


class FrechetStoryDistance(FrechetDistance):
    """A Fréchet distance over stories: do they vary, and change from frame to frame, as much as real ones?

    A distance over frames can't see which frames belong together. Here each story is one sample, its
    ``story_features``. Frames shuffled between stories, a look that changes within a story, and repeated frames all
    raise it. A story told backwards does not. 0 is best; compare numbers only for the same network, the same number of
    frames, and equal numbers of stories.

    Differs from CP-CSV's FSD (Song et al. 2020), which takes features of a video network, R(2+1)D, trained on clips of
    actions. The frames of a story are separate scenes without motion for such a network to see; here any features of
    frames serve, also those of the other metrics. The two numbers can't be compared.

    A covariance needs more stories than dimensions, and test sets have some hundreds. Features wider than
    ``num_projections`` are therefore first projected on that many random directions; the distance then has
    ``2 num_projections`` dimensions. The directions are drawn from a seed, which is part of the protocol; nothing is
    fitted, so stories can still come in parts.
    """

    asked_as = "frechet_story"
    rank = 4
    inception_name, short_name = "fsd", "fsd"
    columns = (Column("fsd", "story FD", PICTURES), Column("*_fsd", "* story FD", PICTURES))
    families: ClassVar = {PICTURES: "fsd|.*_fsd"}
    projection: Tensor | None

    def __init__(
        self,
        dim: int,
        num_projections: int = NUM_PROJECTIONS,
        seed: int = 0,
        reference: FeatureStatistics | None = None,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__(2 * min(dim, num_projections), reference, network)
        self.feature_dim = dim
        projection = random_projection(dim, num_projections, seed) if dim > num_projections else None
        self.register_buffer("projection", projection, persistent=False)

    @classmethod
    def made(cls, setting: Setting) -> "FrechetStoryDistance":
        return cls(setting.feature_dim, seed=setting.seed)

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """True if the covariance of the projected features has full rank."""
        return extent.num_stories > 2 * min(extent.feature_dim, NUM_PROJECTIONS)

    def judge(self, drawn: Seen, truth: Truth) -> None:
        for seen, is_real in ((truth.frames, True), (drawn, False)):
            self.update(seen.features, is_real, truth.batch.mask)

    def update(self, inputs: Shaped[Tensor, "b f ..."], real: bool, mask: Bool[Tensor, "b f"] | None = None) -> None:
        """Add stories: frame features ``(b, f, d)`` or, with a network, frames; ``mask`` is true at those that exist.

        The caller decides if the source is the first frame; that is part of the protocol.
        """
        mask = torch.ones(inputs.shape[:2], dtype=torch.bool) if mask is None else mask
        mask = mask.to(self.device)
        found = self.features_of(inputs.to(self.device)[mask]).double()
        if self.projection is not None:
            found = found @ self.projection
        features = found.new_zeros(*mask.shape, found.shape[1])
        features[mask] = found
        self.add(story_features(features, mask), real)
