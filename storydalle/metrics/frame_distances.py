"""Scores of drawn frames that need no labels: the distance to the true frame and to the source."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from storydalle.metrics.declared import COMPARED, DIAGNOSED, Column, Ranking
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.story_metric import StoryMetric
from storydalle.metrics.topics import PICTURES


class FrameDistances(NamedTuple):
    """Of each frame; distances are mean absolute differences, 0 for equal pictures, 1 between black and white."""

    error: Float[Tensor, "b f"]  # to the true frame
    change: Float[Tensor, "b f"]  # to the source
    copied: Float[Tensor, "b f"]  # 1 where the frame is nearer to the source than to the true frame


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
    asked_as = "pixels"
    rank = 7
    lower_is_better = ("error",)
    columns = (
        Column("error", "error", PICTURES),
        Column("change", "change", PICTURES),
        Column("copied", "nearer to source", PICTURES),
        Column("error", "error", COMPARED, 3),
        Column("error", "error", DIAGNOSED, 1),
    )
    legend: ClassVar = {
        PICTURES: "*error*: mean absolute difference to the true frame, *change*: to the source, of 1 between "
        "black and white; *nearer to source*: share of frames nearer to the source than to the true frame"
    }
    families: ClassVar = {PICTURES: "error|change|copied"}
    ranking = Ranking(("error",), "its distance to the true frames", sign=-1)

    def judge(self, drawn: Seen, truth: Truth) -> None:
        batch = truth.batch
        self.update(drawn.frames, batch.frames, batch.source, batch.mask, batch.ids)

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
