"""How much frames change with the source, with the captions, and with only the seed."""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Literal

import torch
from einops import reduce
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.declared import DIAGNOSED, Column
from storydalle.metrics.story_metric import StoryMetric, check_finite
from storydalle.metrics.topics import CONTINUATION

Kind = Literal["pixels", "features"]


def distances(first: Float[Tensor, "b f *k"], second: Float[Tensor, "b f *k"], of: Kind) -> Float[Tensor, "b f"]:
    """mean |x - y| / 2 of frames ``(b f c h w)``, in [0, 1]; 1 - cosine of features ``(b f d)``.

    Both are exactly 0 for equal inputs. Raises ``ValueError`` for features with ``of="pixels"``, or the other way
    round.
    """
    if first.ndim != (5 if of == "pixels" else 3):
        wanted = "frames (b f c h w)" if of == "pixels" else "features (b f d)"
        raise ValueError(f"a distance of {of} takes {wanted} and was given {tuple(first.shape)}")
    if of == "pixels":
        return reduce((first - second).abs().double(), "b f c h w -> b f", "mean") / 2
    apart = F.normalize(first.double(), dim=-1) - F.normalize(second.double(), dim=-1)
    return apart.square().sum(-1) / 2


def frame_sums(values: Float[Tensor, "b f"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b 1 2"]:
    """The sum over each story's frames, and their number."""
    kept = torch.where(mask, values, 0.0).sum(1)
    return torch.stack([kept, mask.sum(1).double()], dim=-1)[:, None]


class Diversity(StoryMetric):
    """How different are the frames that several seeds draw for one caption?

    ``diversity_pixels``: mean absolute difference over all pairs of seeds, in [0, 1], 1 between black and white;
    ``diversity_features``: 1 - cosine, in [0, 2]. 0 for a system that always draws the same. Higher is more varied,
    which is good only if every variant is correct. As in BicycleGAN (Zhu et al. 2017), the mean distance of pairs of
    samples for one input, with pixels or any features instead of LPIPS.
    """

    families: ClassVar = {CONTINUATION: "diversity_.*"}
    explanations: ClassVar = {
        "diversity_pixels": "How much the pictures differ, per pixel, that several seeds draw for the same input. "
        "It is 0 for a system that always draws the same picture, and 1 between black and white.",
        "diversity_features": "How much a network sees the pictures differ that several seeds draw for the same input. "
        "It is 0 for a system that always draws the same picture.",
    }

    def __init__(self, of: Kind) -> None:
        super().__init__()
        self.of: Kind = of
        self.names = (f"diversity_{of}",)

    def update(
        self,
        drawn: Float[Tensor, "s b f c h w"] | Float[Tensor, "s b f d"],
        mask: Bool[Tensor, "b f"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories drawn under at least two seeds: frames in [-1, 1] or their features, by ``of``."""
        if len(drawn) < 2:
            raise ValueError(f"diversity of {len(drawn)} seed: draw each story with at least two")
        for one in drawn:
            check_finite(one, mask, ids, self.of)
        pairs = list(combinations(drawn, 2))
        total = torch.zeros(mask.shape, dtype=torch.double, device=mask.device)
        for first, second in pairs:
            total += distances(first, second, self.of)
        self.add_stories(frame_sums(total / len(pairs), mask), ids)


class InputSensitivity(StoryMetric):
    """How much do frames change when one input is replaced: the source, or the captions?

    ``change_<name>_pixels`` is the mean absolute difference to the frames drawn with the true inputs, in [0, 1];
    ``change_<name>_features`` is 1 - cosine, in [0, 2]. 0 for a system that ignores the input. Draw both with the same
    seeds, and compare with ``Diversity``: a change that is not larger is only the change of another draw.
    """

    columns = (
        Column("change_pixels", "change: pixels", DIAGNOSED, 3),
        Column("change_features", "change: features", DIAGNOSED, 3),
    )
    families: ClassVar = {CONTINUATION: "change_.*"}
    explanations: ClassVar = {
        "change_other_source_pixels": "How much the pictures change, per pixel, when the source is that of another "
        "story. A system that ignores its source stays at 0, and less than the diversity across seeds is no reaction.",
        "change_other_source_features": "How much a network sees the pictures change when the source is another "
        "story's. A system that ignores its source stays at 0.",
        "change_blank_source_pixels": "How much the pictures change, per pixel, when the source is blank. "
        "It says how much is drawn from the source at all, be it characters, colours or only the style.",
        "change_blank_source_features": "How much a network sees the pictures change when the source is blank. "
        "It says how much is drawn from the source at all.",
        "change_shuffled_captions_pixels": "How much the pictures change, per pixel, when captions are shuffled. "
        "A system that repeats its source whatever the captions say stays near 0.",
        "change_shuffled_captions_features": "How much a network sees the pictures change when captions are shuffled. "
        "A system that repeats its source whatever the captions say stays near 0.",
    }

    def __init__(self, name: str, of: Kind) -> None:
        """``name`` says what was replaced, such as ``other_source``, ``blank_source`` or ``shuffled_captions``."""
        super().__init__()
        self.of: Kind = of
        self.names = (f"change_{name}_{of}",)

    def update(
        self,
        true_inputs: Float[Tensor, "b f c h w"] | Float[Tensor, "b f d"],
        other_inputs: Float[Tensor, "b f c h w"] | Float[Tensor, "b f d"],
        mask: Bool[Tensor, "b f"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories: what was drawn with the true inputs and with one replaced, as frames in [-1, 1] or features."""
        for values in (true_inputs, other_inputs):
            check_finite(values, mask, ids, self.of)
        self.add_stories(frame_sums(distances(true_inputs, other_inputs, self.of), mask), ids)
