"""Is it a continuation? How similar the frames of a story are to each other and to their source, by features.

If captions say everything, a system that ignores its source scores well elsewhere. No similarity is good or bad by
itself: compare it with its chance level and with the true frames. Features are one vector a frame, of any length.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from einops import reduce
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.declared import COMPARED, DIAGNOSED, Column, Extent
from storydalle.metrics.seen import Neighbour
from storydalle.metrics.story_metric import StoryMetric, check_finite
from storydalle.metrics.topics import CONTINUATION


def mean_cosine(
    first: Float[Tensor, "b f d"], second: Float[Tensor, "b g d"], pairs: Bool[Tensor, "b f g"]
) -> Float[Tensor, "b 2"]:
    """For each story the mean cosine over its pairs, and 1; two zeros for a story without a pair."""
    sides = (F.normalize(side.double(), dim=-1) for side in (first, second))
    cosines = torch.einsum("bfd,bgd->bfg", *sides)
    totals = reduce(torch.where(pairs, cosines, 0.0), "b f g -> b", "sum")
    number = reduce(pairs.long(), "b f g -> b", "sum")
    return torch.stack([totals / number.clamp(min=1), (number > 0).double()], dim=-1)


class Consistency(StoryMetric):
    """Similarity of a story's frames to each other and to their source: mean cosines x y / (|x| |y|) of features.

    ``consistency_self`` is over all pairs of a story's drawn frames, ``consistency_source`` over its drawn frames and
    its source; each story counts once. The two ``..._chance`` use another story's drawn frames and source: the cosine
    of any two pictures of this kind, which a cosine must be compared with. Higher is more similar, in [-1, 1], and not
    always better: copies of the source have 1. These are the *self* and *cross* similarity of ViStoryBench's CIDS, for
    whole frames instead of detected characters.
    """

    names = ("consistency_self", "consistency_self_chance", "consistency_source", "consistency_source_chance")
    asked_as = "consistency"
    rank = 10
    needs = ("features",)
    meets_another = True
    columns = (
        Column("consistency_self", "alike: frames", CONTINUATION),
        Column("consistency_self_chance", "chance", CONTINUATION),
        Column("consistency_source", "to source", CONTINUATION),
        Column("consistency_source_chance", "chance", CONTINUATION),
        Column("consistency_source", "alike to source", COMPARED, 2),
        Column("consistency_source", "alike to source", DIAGNOSED, 2),
    )
    legend: ClassVar = {
        CONTINUATION: "*alike*: cosine of features, among a story's frames and to its source. "
        "*Chance* is the same with another story's"
    }
    families: ClassVar = {CONTINUATION: "consistency_.*"}
    questions: ClassVar = {
        "consistency_self": "How alike a story's frames are",
        "consistency_source": "How alike they are to the source",
    }
    explanations: ClassVar = {
        "consistency_self": "How alike the frames drawn for one story are, as the mean cosine of their features. "
        "It is 1 where all frames are the same, so the value of the true frames is the one to reach.",
        "consistency_self_chance": "How alike drawn frames are to those drawn for another story. "
        "A story's own frames belong together as far as they exceed this level.",
        "consistency_source": "How alike the drawn frames are to the source frame, as the mean cosine of their "
        "features. A copied source gives 1, and a system that does not look at it stays at chance.",
        "consistency_source_chance": "How alike drawn frames are to the source of another story. "
        "What is drawn from the source lies above this level.",
    }

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """True if there is another episode or book, for the chance level."""
        return len(set(extent.cluster_of_frame)) > 1

    def judge_beside(self, name: str, frames: Float[Tensor, "f c h w"], own: Neighbour, other: Neighbour) -> None:
        assert own.features is not None and other.features is not None
        assert own.source_features is not None and other.source_features is not None
        self.update(
            own.features[None],
            own.source_features[None],
            other.features[None],
            other.source_features[None],
            torch.ones(1, len(frames), dtype=torch.bool),
            torch.ones(1, len(other.features), dtype=torch.bool),
            [name],
        )

    def update(
        self,
        features: Float[Tensor, "b f d"],
        source: Float[Tensor, "b d"],
        other_features: Float[Tensor, "b g d"],
        other_source: Float[Tensor, "b d"],
        mask: Bool[Tensor, "b f"],
        other_mask: Bool[Tensor, "b g"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories: features of drawn frames and sources, and those of another story for each."""
        exists = torch.ones_like(mask[:, :1])
        for values, at, what in (
            (features, mask, "features"),
            (other_features, other_mask, "the other story's features"),
            (source[:, None], exists, "features of the source"),
            (other_source[:, None], exists, "features of the other story's source"),
        ):
            check_finite(values, at, ids, what)
        both = mask[:, :, None] & mask[:, None]
        rows = [
            mean_cosine(features, features, both.triu(1)),
            mean_cosine(features, other_features, mask[:, :, None] & other_mask[:, None]),
            mean_cosine(features, source[:, None], mask[:, :, None]),
            mean_cosine(features, other_source[:, None], mask[:, :, None]),
        ]
        self.add_stories(torch.stack(rows, dim=1), ids)
