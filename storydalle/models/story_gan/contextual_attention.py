"""Contextual attention (Yu et al. 2018, section 4.1): each place of a map is rebuilt from the patches of another.

StoryGANc's path from the source frame to the frames drawn. Written from the equations alone.

The paper's description takes the filters from the story's map, yet normalises over the source's positions; both cannot
be true. Here the filters are the patches that are copied, as in Yu et al.: ``direction="copy_source"`` pastes the
source's patches into the story's map, which is the stated purpose, and ``"copy_story"`` is the other reading.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from storydalle.models.story_gan.existing import existing

DIRECTIONS = ("copy_source", "copy_story")
MIN_NORM = 1e-4  # of a patch; a patch of zeros has a cosine of 0 with all others


class Attended(NamedTuple):
    """A map rebuilt from patches, and how these were weighed: ``weights`` sum to 1 over the filters p."""

    copied: Float[Tensor, "b f c h w"]
    weights: Float[Tensor, "b p q"]  # q: places of all f maps, frame by frame in raster order


def contextual_attention(
    queries: Float[Tensor, "b f c h w"], filters: Float[Tensor, "b c h w"], scale: Tensor | float, kernel_size: int = 3
) -> Attended:
    """Each patch of ``queries`` as the mean of the patches of ``filters``, weighed by a softmax of scaled cosines.

    w_pq = softmax_p(scale * <f_p, q_q> / (|f_p| |q_q|)),  copied_q = sum_p w_pq f_p  (Yu et al. 2018, eq. 1)

    Patches are ``kernel_size`` wide around every pixel, with zeros beyond the borders. Pasted patches are not
    normalised; where they overlap, their mean is taken.
    """
    num_frames, height, width = queries.shape[1], *queries.shape[-2:]
    asked = patches(rearrange(queries, "b f c h w -> (b f) c h w"), kernel_size)  # (b f) d q; d = c * kernel_size^2
    asked = rearrange(asked, "(b f) d q -> b d (f q)", f=num_frames)  # all frames of a story ask the same filters
    offered = patches(filters, kernel_size)
    cosines = normalised(offered).transpose(1, 2) @ normalised(asked)  # b p (f q)
    weights = (scale * cosines.to(promoted(cosines))).softmax(1)  # over the filters p
    pasted = rearrange(offered @ weights.to(offered), "b d (f q) -> (b f) d q", f=num_frames)  # the deconvolution
    copied = overlap_mean(pasted, (height, width), kernel_size)
    return Attended(rearrange(copied, "(b f) c h w -> b f c h w", f=num_frames), weights)


def promoted(x: Tensor) -> torch.dtype:
    """The type that a softmax is computed in: at least single precision."""
    return torch.promote_types(x.dtype, torch.float)


def patches(maps: Float[Tensor, "n c h w"], kernel_size: int) -> Float[Tensor, "n d p"]:
    """The patch around each pixel, as columns in raster order."""
    return F.unfold(maps, kernel_size, padding=kernel_size // 2)


def normalised(columns: Float[Tensor, "n d p"]) -> Float[Tensor, "n d p"]:
    return F.normalize(columns, dim=1, eps=MIN_NORM)


def overlap_mean(columns: Float[Tensor, "n d p"], size: tuple[int, int], kernel_size: int) -> Float[Tensor, "n c h w"]:
    """Put patches back on a map; a pixel is the mean of all patches that cover it (fewer at the borders)."""
    summed = F.fold(columns, size, kernel_size, padding=kernel_size // 2)
    ones = torch.ones(1, 1, *size, dtype=columns.dtype, device=columns.device)
    return summed / F.fold(patches(ones, kernel_size), size, kernel_size, padding=kernel_size // 2)


def entropy(weights: Float[Tensor, "n p q"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, ""]:
    """Mean entropy of the attention in nats, -sum_p w ln w: 0 copies one patch, ln(p) blurs all of them.

    The mean is over the places of the frames that exist; ``weights`` are of whole stories, or of single frames.
    """
    by_place = torch.special.entr(weights).sum(1)  # n q
    return existing(by_place.reshape(*mask.shape, -1), mask).mean()


class ContextualAttention(nn.Module):
    """Adds to each frame's map what contextual attention copies, after a 1x1 convolution (``out``).

    The scale of the softmax is learned; it begins at ``scale`` and never exceeds ``max_scale``.
    """

    def __init__(
        self,
        dim: int,
        direction: str = "copy_source",
        kernel_size: int = 3,
        scale: float = 10.0,
        max_scale: float = 100.0,
    ) -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"direction={direction!r}: choose one of {', '.join(DIRECTIONS)}, off")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: a patch around a pixel has an odd width")
        self.direction, self.kernel_size, self.max_scale = direction, kernel_size, max_scale
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))  # the logarithm: a scale stays positive
        self.out = nn.Conv2d(dim, dim, 1)

    @property
    def scale(self) -> Float[Tensor, ""]:
        return self.log_scale.exp().clamp(max=self.max_scale)

    def forward(
        self, story: Float[Tensor, "b f c h w"], source: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b f"]
    ) -> tuple[Float[Tensor, "b f c h w"], Float[Tensor, ""]]:
        """The story's maps plus what was copied, and the attention's mean entropy in nats over existing frames."""
        num_frames = story.shape[1]
        if self.direction == "copy_source":
            attended = contextual_attention(story, source, self.scale, self.kernel_size)
        else:  # every frame's own patches, arranged like the source
            layout = repeat(source, "b c h w -> (b f) 1 c h w", f=num_frames)
            filters = rearrange(story, "b f c h w -> (b f) c h w")
            attended = contextual_attention(layout, filters, self.scale, self.kernel_size)
        mixed = self.out(attended.copied.reshape(-1, *story.shape[2:]))
        mixed = rearrange(mixed, "(b f) c h w -> b f c h w", f=num_frames)
        return story + mixed, entropy(attended.weights, mask)
