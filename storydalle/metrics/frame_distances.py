"""Scores of drawn frames that need no label: how far from the true frame, and from the source."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from storydalle.metrics.story_metric import StoryMetric


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


class PictureScores(StoryMetric):
    """Means over frames of ``FrameDistances``; a story counts as often as it has frames."""

    names = FrameDistances._fields

    def update(
        self,
        frames: Float[Tensor, "b f c h w"],
        true: Float[Tensor, "b f c h w"],
        source: Float[Tensor, "b c h w"],
        mask: Bool[Tensor, "b f"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories, frames in [-1, 1]; ``mask`` is true at frames that exist."""
        distances = torch.stack(frame_distances(frames, true, source), dim=-1) * mask[..., None]
        ratios = torch.stack([distances, mask[..., None].expand_as(distances)], dim=-1)
        self.add_stories(ratios.sum(1), ids)

    def counts(self) -> dict[str, int]:
        """How many stories were scored, and how many frames."""
        counts = super().counts()
        return {"stories": counts["stories"], "frames": int(counts["error"])}
