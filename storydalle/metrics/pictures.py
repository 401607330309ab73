"""Scores of drawn frames that need no label: how far from the true frame, and from the source."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from storydalle.metrics.toon import Interval


class FrameDistances(NamedTuple):
    """Of each frame, (b, f); distances are mean absolute differences, 0 for equal pictures, 1 for black and white."""

    error: Tensor  # to the true frame
    change: Tensor  # to the source
    copied: Tensor  # 1 where the frame is nearer to the source than to the true frame


def frame_distances(
    frames: Float[Tensor, "b f c h w"], true: Float[Tensor, "b f c h w"], source: Float[Tensor, "b c h w"]
) -> FrameDistances:
    """Distances of frames in [-1, 1]."""
    error = (frames - true).abs().mean((-3, -2, -1)) / 2
    change = (frames - source[:, None]).abs().mean((-3, -2, -1)) / 2
    return FrameDistances(error, change, (change < error).float())


class PictureScores(Metric):
    """Means over frames of ``FrameDistances``; a story counts as often as it has frames."""

    full_state_update = False
    higher_is_better = None
    names = FrameDistances._fields
    sums: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", default=[], dist_reduce_fx="cat")

    def update(
        self,
        frames: Float[Tensor, "b f c h w"],
        true: Float[Tensor, "b f c h w"],
        source: Float[Tensor, "b c h w"],
        mask: Bool[Tensor, "b f"],
    ) -> None:
        """Add stories, frames in [-1, 1]; ``mask`` is true at frames that exist."""
        distances = torch.stack([*frame_distances(frames, true, source), torch.ones_like(mask, dtype=torch.float)], -1)
        self.sums.append((distances * mask[..., None]).sum(1).double())

    def story_sums(self) -> Float[Tensor, "n k"]:
        """Of each story the sums over its frames, and their number."""
        if not isinstance(self.sums, Tensor) and not self.sums:
            raise ValueError("no story has been scored: call update first")
        return dim_zero_cat(self.sums)

    def compute(self) -> dict[str, float]:
        *sums, number = self.story_sums().sum(0).tolist()
        return {name: total / number for name, total in zip(self.names, sums, strict=True)}

    def compute_intervals(self, num_resamples: int = 1000, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Percentile intervals from resampling stories with replacement."""
        rows = self.story_sums().cpu()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.stack([torch.randint(len(rows), (len(rows),), generator=generator) for _ in range(num_resamples)])
        sums = rows[drawn].sum(1)
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
        ends = (sums[:, :-1] / sums[:, -1:]).quantile(tails, dim=0).T.tolist()
        return {name: Interval(*pair) for name, pair in zip(self.names, ends, strict=True)}

    def counts(self) -> dict[str, int]:
        rows = self.story_sums()
        return {"stories": len(rows), "frames": int(rows[:, -1].sum())}
