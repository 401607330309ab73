"""StoryGANc's generator: a small map from a frame's state, to which patches of the source are added; then it grows."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from storydalle.configured import Configured, NetworkSettings
from storydalle.models.ranks import SharedBatchNorm2d
from storydalle.models.story_gan.contextual_attention import ContextualAttention
from storydalle.models.story_gan.existing import existing, placed

START = 4  # side of the first map


class Generated(NamedTuple):
    """Frames in [-1, 1], and the mean entropy of the contextual attention in nats."""

    frames: Float[Tensor, "b f c h w"]
    entropy: Float[Tensor, ""]


class UpBlock(nn.Sequential):
    """Doubles the side."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(dim_in, dim_out, 3, padding=1, bias=False),
            SharedBatchNorm2d(dim_out),
            nn.ReLU(inplace=True),
        )


class SourceEncoder(nn.Sequential):
    """The source frame as a map with the channels and side of the story's maps; trained with the generator."""

    def __init__(self, dim: int, num_halvings: int) -> None:
        dims = [3, *(max(dim >> (num_halvings - 1 - i), 8) for i in range(num_halvings - 1)), dim]
        blocks: list[nn.Module] = []
        for dim_in, dim_out in pairwise(dims):
            blocks += [
                nn.Conv2d(dim_in, dim_out, 4, stride=2, padding=1, bias=False),
                SharedBatchNorm2d(dim_out),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        super().__init__(*blocks, nn.Conv2d(dim, dim, 3, padding=1))


@dataclass(frozen=True)
class GeneratorSettings(NetworkSettings):
    """The first map has ``dim`` channels on 4 x 4; each up-block halves them (not below 16) and doubles the side. At a
    side of ``attention_side`` contextual attention adds what it copies of the source; with ``direction="off"`` it is
    left out, and the source is not read.

    Differs from the paper's description with ``has_places``: a learned map of places is added to both maps before they
    are matched. Without it, a patch of the story's map cannot find the source's patch at the same place, and the
    network has to memorise every background.
    """

    dim: int = 1024
    attention_side: int = 16
    direction: str = "copy_source"
    has_places: bool = False

    def num_doublings(self, resolution: int) -> tuple[int, int]:
        """Up-blocks before contextual attention and after it; ValueError for sides that doubling does not reach."""
        for name, side, least in (("resolution", resolution, 16), ("attention_side", self.attention_side, START)):
            if side < least or side & (side - 1):
                raise ValueError(f"{name}={side}: the maps double from {START}; choose a power of two from {least} on")
        if self.attention_side >= resolution:
            raise ValueError(f"attention_side={self.attention_side} must be below resolution={resolution}")
        return int(math.log2(self.attention_side // START)), int(math.log2(resolution // self.attention_side))


class Generator(Configured, nn.Module):
    """Draws frames of ``resolution`` pixels from their states and the source frame."""

    settings: GeneratorSettings

    def __init__(self, state_dim: int, *values: object, resolution: int = 64, **named: object) -> None:
        super().__init__()
        self.settings = settings = GeneratorSettings.of(*values, **named)
        before, after = settings.num_doublings(resolution)
        dim, side, direction = settings.dim, settings.attention_side, settings.direction
        dims = [max(dim >> i, 16) for i in range(before + after + 1)]  # halved by each up-block, at least 16
        blocks = [UpBlock(*pair) for pair in pairwise(dims)]
        self.start = nn.Linear(state_dim, dim * START**2, bias=False)
        self.start_norm = nn.Sequential(SharedBatchNorm2d(dim), nn.ReLU(inplace=True))
        self.before = nn.Sequential(*blocks[:before])
        self.source = SourceEncoder(dims[before], after) if direction != "off" else None
        self.attention = ContextualAttention(dims[before], direction) if direction != "off" else None
        places = torch.randn(dims[before], side, side)  # drawn in any case: later weights are the same without it
        self.places = nn.Parameter(places) if settings.has_places and self.attention is not None else None
        self.after = nn.Sequential(*blocks[before:], nn.Conv2d(dims[-1], 3, 3, padding=1), nn.Tanh())

    def forward(
        self, states: Float[Tensor, "b f d"], source: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b f"]
    ) -> Generated:
        """Frames where ``mask`` is true, zeros elsewhere; nothing depends on the frames that do not exist."""
        # Channels last: convolutions on a CPU take about three quarters of the time then.
        first = rearrange(self.start(existing(states, mask)), "n (c h w) -> n c h w", h=START, w=START)
        first, source = (x.contiguous(memory_format=torch.channels_last) for x in (first, source))
        story = placed(self.before(self.start_norm(first)), mask)  # b f c side side
        entropy = torch.zeros((), device=states.device)  # of no attention
        if self.source is not None and self.attention is not None:
            places = torch.zeros(()).to(source) if self.places is None else self.places
            # On feature maps and not on pixels: the blocks that follow blend what was pasted.
            story, entropy = self.attention(story + places, self.source(source) + places, mask)
        return Generated(placed(self.after(existing(story, mask)).float(), mask), entropy)
