"""StoryGANc's discriminators: one judges a frame with its caption, the other a whole story by 3-D convolutions.

Both first encode pictures and then judge them under a condition: a picture is encoded once and can be judged under
several conditions. Logits: higher is more real.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from storydalle.configured import Configured, NetworkSettings
from storydalle.models.ranks import SharedBatchNorm2d, SharedBatchNorm3d
from storydalle.models.story_gan.existing import existing, placed
from storydalle.models.story_gan.story_encoder import masked_mean

LAST = 4  # side of the encoded maps
TIMES = ("conv3d", "mean")


def num_stages(resolution: int) -> int:
    if resolution < 2 * LAST or resolution & (resolution - 1):
        raise ValueError(f"resolution={resolution}: the discriminators halve it to {LAST}; choose a power of two")
    return int(math.log2(resolution // LAST))


def widths(dim: int, resolution: int) -> list[int]:
    """Channels after each halving: doubled each time, up to eight times ``dim``."""
    return [dim * min(2**i, 8) for i in range(num_stages(resolution))]


def normalised_spectrally(module: nn.Module) -> None:
    """Spectral norm on every convolution of a discriminator (Miyato et al. 2018), in place."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            spectral_norm(layer)


@dataclass(frozen=True)
class ImageDiscriminatorSettings(NetworkSettings):
    """Channels after the first halving, and spectral norms in place of batch norms."""

    dim: int = 96
    is_spectral: bool = False


class ImageDiscriminator(Configured, nn.Module):
    """Judges single frames; a head of ``num_characters`` logits (none of a set without any) tells who is in them."""

    settings: ImageDiscriminatorSettings

    def __init__(
        self, condition_dim: int, *values: object, num_characters: int = 0, resolution: int = 64, **named: object
    ) -> None:
        super().__init__()
        self.settings = settings = ImageDiscriminatorSettings.of(*values, **named)
        is_spectral, stages = settings.is_spectral, widths(settings.dim, resolution)
        blocks: list[nn.Module] = []
        for i, (dim_in, dim_out) in enumerate(zip([3, *stages], stages, strict=False)):
            norm = [] if i == 0 or is_spectral else [SharedBatchNorm2d(dim_out)]  # none on pixels, as in DCGAN
            conv = nn.Conv2d(dim_in, dim_out, 4, stride=2, padding=1, bias=not norm)
            blocks += [conv, *norm, nn.LeakyReLU(0.2)]
        last = stages[-1]
        self.tower = nn.Sequential(*blocks)
        norm = [] if is_spectral else [SharedBatchNorm2d(last)]
        fuse = nn.Conv2d(last + condition_dim, last, 3, padding=1, bias=is_spectral)
        self.fuse = nn.Sequential(fuse, *norm, nn.LeakyReLU(0.2))
        self.logit = nn.Conv2d(last, 1, LAST)
        if is_spectral:
            normalised_spectrally(self)
        # Made after the spectral norms, and so without one, as in the related code: its own loss bounds its gradients.
        self.characters = nn.Conv2d(last, num_characters, LAST) if num_characters else None

    def encode(self, frames: Float[Tensor, "b f c h w"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b f d i j"]:
        """Maps of single frames; frames beyond a story's end are not read."""
        return placed(self.tower(existing(frames, mask)), mask)

    def judge(
        self, features: Float[Tensor, "b f d i j"], condition: Float[Tensor, "b f e"], mask: Bool[Tensor, "b f"]
    ) -> Float[Tensor, "b f"]:
        """A logit a frame, under the frame's own condition; 0 where ``mask`` is false."""
        features = existing(features, mask)  # n d i j
        tiled = repeat(existing(condition, mask).to(features), "n e -> n e i j", i=LAST, j=LAST)
        logits = self.logit(self.fuse(torch.cat([features, tiled], 1)))
        return placed(logits.float().flatten(), mask)

    def judged(self, mask: Bool[Tensor, "b f"]) -> Bool[Tensor, "b f"]:
        """Marks the logits that exist."""
        return mask

    def name(self, features: Float[Tensor, "b f d i j"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "n k"]:
        """Logits of the characters in each frame that exists."""
        assert self.characters is not None
        return self.characters(existing(features, mask)).flatten(1).float()


class FrameLayer(nn.Sequential):
    """A convolution over time, then layers that act only on the frames that exist."""

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b d f h w"], mask: Bool[Tensor, "b f"]
    ) -> Float[Tensor, "b e f i j"]:
        """Zeros where no frame is; ``x`` must have zeros there too, as the convolution's padding has."""
        convolution, *others = self
        x = convolution(x)
        if mask.all():
            for layer in others:
                x = layer(x)
            return x
        rows = existing(rearrange(x, "b d f i j -> b f d 1 i j"), mask)  # n d 1 i j: batch norms count no padding
        for layer in others:
            rows = layer(rows)
        return rearrange(placed(rows, mask), "b f d 1 i j -> b d f i j")


@dataclass(frozen=True)
class StoryDiscriminatorSettings(NetworkSettings):
    """``time="conv3d"``: 3-D convolutions over time, height and width encode the frames; each frame's map is joined
    with the frame's own condition, and the mean over time is judged. The order of the frames matters, and so does
    which caption belongs to which frame. ``time="mean"``, as in the related code: frames are encoded one by one, and
    their mean is judged under the mean condition.
    """

    dim: int = 64
    time: str = "conv3d"
    is_spectral: bool = False

    def __post_init__(self) -> None:
        if self.time not in TIMES:
            raise ValueError(f"time={self.time!r}: choose one of {', '.join(TIMES)}")


class StoryDiscriminator(Configured, nn.Module):
    """Judges all frames of a story together; frames beyond its end change nothing."""

    settings: StoryDiscriminatorSettings

    def __init__(self, condition_dim: int, *values: object, resolution: int = 64, **named: object) -> None:
        super().__init__()
        self.settings = settings = StoryDiscriminatorSettings.of(*values, **named)
        self.time = time = settings.time
        is_spectral, stages = settings.is_spectral, widths(settings.dim, resolution)
        depth, last = 3 if time == "conv3d" else 1, stages[-1]
        halving = {"kernel_size": (depth, 4, 4), "stride": (1, 2, 2), "padding": (depth // 2, 1, 1)}
        layers: list[nn.Module] = []
        for i, (dim_in, dim_out) in enumerate(zip([3, *stages], stages, strict=False)):
            normed = i > 0 and not is_spectral
            conv = nn.Conv3d(dim_in, dim_out, **halving, bias=not normed)  # type: ignore[arg-type]
            layers.append(FrameLayer(conv, *([SharedBatchNorm3d(dim_out)] if normed else []), nn.LeakyReLU(0.2)))
        self.tower = nn.ModuleList(layers)
        norm = [] if is_spectral else [SharedBatchNorm3d(last)]
        # Over time if each frame is joined with its own caption; over space as in the related code.
        kernel = (3, 1, 1) if time == "conv3d" else (1, 3, 3)
        fuse = nn.Conv3d(last + condition_dim, last, kernel, padding="same", bias=is_spectral)
        self.fuse = FrameLayer(fuse, *norm, nn.LeakyReLU(0.2))
        self.logit = nn.Conv2d(last, 1, LAST)
        if is_spectral:
            normalised_spectrally(self)

    def encode(self, frames: Float[Tensor, "b f c h w"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b d f i j"]:
        x = rearrange(frames, "b f c h w -> b c f h w").contiguous(memory_format=torch.channels_last_3d)
        x = x * rearrange(mask, "b f -> b 1 f 1 1")  # zeros beyond the end, as FrameLayer wants them
        for layer in self.tower:
            x = layer(x, mask)
        return x

    def judge(
        self, features: Float[Tensor, "b d f i j"], condition: Float[Tensor, "b f e"], mask: Bool[Tensor, "b f"]
    ) -> Float[Tensor, " b"]:
        condition = condition.to(features)
        if self.time == "mean":  # a story as one frame
            features = mean_over_time(features, mask, keepdim=True)  # b d 1 i j
            condition = masked_mean(condition, mask)[:, None]  # b 1 e
            mask = torch.ones_like(mask[:, :1])
        tiled = repeat(condition * mask[..., None], "b f e -> b e f i j", i=LAST, j=LAST)
        features = features * rearrange(mask, "b f -> b 1 f 1 1")
        fused = self.fuse(torch.cat([features, tiled], 1), mask)  # b d f i j
        return self.logit(mean_over_time(fused, mask)).flatten().float()  # the 4 x 4 map to one number

    def judged(self, mask: Bool[Tensor, "b f"]) -> Bool[Tensor, " b"]:
        """Marks the logits that exist: a story without a frame has none."""
        return mask.any(1)


def mean_over_time(
    x: Float[Tensor, "b d f i j"], mask: Bool[Tensor, "b f"], keepdim: bool = False
) -> Float[Tensor, "..."]:
    """Mean over the frames that exist: one map a story."""
    weights = rearrange(mask, "b f -> b 1 f 1 1").to(x)
    return (x * weights).sum(2, keepdim) / weights.sum(2, keepdim).clamp(min=1)
