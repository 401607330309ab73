"""Differentiable augmentation (Zhao et al. 2020) of what the discriminators see, the same for all frames of a story."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from storydalle.models import ranks

POLICIES = ("color", "translation", "cutout")


class Augmentation:
    """The random numbers of one step: true and drawn stories change in the same way, and so do all frames of a story.

    Pictures are in [-1, 1]; row i of the numbers belongs to story i.
    """

    def __init__(self, policies: Sequence[str], num_stories: int, generator: torch.Generator) -> None:
        for policy in policies:
            if policy not in POLICIES:
                raise ValueError(f"augmentation {policy!r}: choose from {', '.join(POLICIES)}")
        self.policies = tuple(policies)
        self.draws = ranks.drawn(torch.rand, num_stories, 7, generator=generator)  # colour 3, shift 2, hole 2

    def __call__(self, frames: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b f c h w"]:
        draws = self.draws.to(frames.device)
        for policy in self.policies:
            frames = {"color": color, "translation": translation, "cutout": cutout}[policy](frames, draws)
        return frames


def color(frames: Float[Tensor, "b f c h w"], draws: Float[Tensor, "b n"]) -> Float[Tensor, "b f c h w"]:
    """Brightness changes by up to 0.5 either way, saturation by a factor of 0 to 2, contrast of 0.5 to 1.5."""
    brightness, saturation, contrast = (rearrange(draws[:, i], "b -> b 1 1 1 1") for i in range(3))
    frames = frames + brightness - 0.5
    grey = frames.mean(2, keepdim=True)  # b f 1 h w
    frames = (frames - grey) * 2 * saturation + grey
    mean = frames.mean((2, 3, 4), keepdim=True)  # of each frame
    return (frames - mean) * (contrast + 0.5) + mean


def translation(frames: Float[Tensor, "b f c h w"], draws: Float[Tensor, "b n"]) -> Float[Tensor, "b f c h w"]:
    """Shift by up to an eighth of the side; black fills the gap."""
    side = frames.shape[-1]
    reach = side // 8
    padded = F.pad(frames.flatten(0, 1), (reach, reach, reach, reach), value=-1.0).unflatten(0, frames.shape[:2])
    offsets = (draws[:, 3:5] * (2 * reach + 1)).long().tolist()  # b 2, each from 0 to 2 * reach
    return torch.stack([story[..., y : y + side, x : x + side] for story, (y, x) in zip(padded, offsets, strict=True)])


def cutout(frames: Float[Tensor, "b f c h w"], draws: Float[Tensor, "b n"]) -> Float[Tensor, "b f c h w"]:
    """Paint a square of half the side grey; it may reach over the border."""
    side = frames.shape[-1]
    place = torch.arange(side, device=frames.device)
    inside = [(place - rearrange(draws[:, i] * side, "b -> b 1")).abs() < side / 4 for i in (5, 6)]
    hole = rearrange(inside[0], "b h -> b 1 1 h 1") & rearrange(inside[1], "b w -> b 1 1 1 w")
    return frames.masked_fill(hole, 0.0)
