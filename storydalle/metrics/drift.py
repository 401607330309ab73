"""Are later frames of a story worse? Any quantity of a frame, by its position."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.declared import Setting
from storydalle.metrics.frame_distances import frame_distances
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.story_metric import StoryMetric, check_finite
from storydalle.metrics.topics import PICTURES


class PositionScores(StoryMetric):
    """Any quantity of a frame by its position in the story, for stories of up to ``num_frames`` frames: its drift.

    ``<name>_at_<i>`` is the mean over the stories with an i-th frame (nan without any), in the quantity's own units.
    ``<name>_slope`` is the change from one frame to the next: the least-squares slope within stories, sum (i - mean i)
    y_i / sum (i - mean i)^2 over frames i of all stories. So stories that are harder from their first frame on are no
    drift.
    """

    asked_as = "drift"
    rank = 8
    families: ClassVar = {PICTURES: "error_.*"}
    curves: ClassVar = {"error_at_": "Error by frame"}
    explanations: ClassVar = {
        "<score>_at_<i>": "The mean of a score over the i-th frames of all stories. "
        "A curve that falls (or rises, where lower is better) says that later frames are worse: drift.",
        "<score>_slope": "How much a score changes from one frame of a story to the next. "
        "It is 0 without drift, and its sign says whether later frames score higher or lower.",
    }

    def __init__(self, name: str, num_frames: int = 50) -> None:
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames}: give the number of frames of the longest story")
        self.num_frames = num_frames
        self.names = (*(f"{name}_at_{i}" for i in range(1, num_frames + 1)), f"{name}_slope")

    @classmethod
    def made(cls, setting: Setting) -> "PositionScores":
        """The drift of the distance to the true frame."""
        return cls("error", setting.num_frames)

    def judge(self, drawn: Seen, truth: Truth) -> None:
        error = frame_distances(drawn.frames, truth.frames.frames, truth.batch.source).error
        self.update(error, truth.batch.mask, truth.batch.ids)

    def update(self, values: Float[Tensor, "b f"], mask: Bool[Tensor, "b f"], ids: Sequence[str] | None = None) -> None:
        """Add stories, a value a frame; ``mask`` is true at frames that exist and have one.

        Raises ``ValueError`` for more frames than ``num_frames``, and for values under the mask that are not finite.
        """
        num_frames = values.shape[1]
        if num_frames > self.num_frames:
            raise ValueError(f"a story of {num_frames} frames with num_frames={self.num_frames}: raise num_frames")
        check_finite(values, mask, ids, "values")
        values = torch.where(mask, values, 0.0).double()
        positions = torch.arange(num_frames, device=values.device).double()
        middles = (positions * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        offsets = (positions - middles) * mask
        slope = torch.stack([(offsets * values).sum(1), offsets.square().sum(1)], dim=-1)
        by_position = F.pad(torch.stack([values, mask.double()], dim=-1), (0, 0, 0, self.num_frames - num_frames))
        self.add_stories(torch.cat([by_position, slope[:, None]], dim=1), ids)

    def counts(self) -> dict[str, int]:
        """How many stories were scored, and how many frames each position's mean is of."""
        return {name: int(number) for name, number in super().counts().items() if name != self.names[-1]}
