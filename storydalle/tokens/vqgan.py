"""Frames <-> codes: the VQGAN of minDALL-E (taming-transformers). Its parameter names are the released file's keys.

One name differs: ``quantize.embedding`` of the Gumbel variant is ``quantize.embed`` in taming.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from storydalle.configured import NetworkSettings
from storydalle.tokens.codebooks import QUANTIZERS, GumbelCodebook
from storydalle.tokens.image_tokenizer import ImageTokenizer, PixelRange

NORM_EPS = 1e-6  # the released weights; torch's own default of 1e-5 shifts every activation


def swish(x: Tensor) -> Tensor:
    return F.silu(x)


class Norms(NamedTuple):
    """The GroupNorms of a network."""

    groups: int
    eps: float

    def over(self, channels: int) -> nn.GroupNorm:
        if channels % self.groups:
            raise ValueError(
                f"{channels} channels do not divide into norm_groups={self.groups}: change ch, ch_mult or norm_groups"
            )
        return nn.GroupNorm(self.groups, channels, eps=self.eps)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, norms: Norms) -> None:
        super().__init__()
        self.norm1 = norms.over(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norms.over(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        is_same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if is_same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        h = self.conv1(swish(self.norm1(x)))
        h = self.conv2(swish(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, as 1x1 convolutions."""

    def __init__(self, channels: int, norms: Norms) -> None:
        super().__init__()
        self.norm = norms.over(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        normed = self.norm(x)
        q, k, v = (rearrange(layer(normed), "b c h w -> b (h w) c") for layer in (self.q, self.k, self.v))
        attention = (q @ k.transpose(1, 2) * x.shape[1] ** -0.5).softmax(dim=-1)  # b (h w) (h w)
        return x + self.proj_out(rearrange(attention @ v, "b (h w) c -> b c h w", h=x.shape[2]))


class Downsample(nn.Module):
    """Halve the side. Zeros are added right and below only: symmetric padding would shift the map by half a pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # left, right, top, bottom


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution; attention, where there is any, follows every block."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, attention: bool, norms: Norms) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.ModuleList(ResnetBlock(*pair, norms) for pair in pairwise(widths))
        self.attn = nn.ModuleList(AttnBlock(out_channels, norms) for _ in self.block if attention)
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


class Middle(nn.Module):
    def __init__(self, channels: int, attention: bool, norms: Norms) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, norms)
        self.attn_1 = AttnBlock(channels, norms) if attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels, norms)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.block_2(self.attn_1(self.block_1(x)))


class VQGANEncoder(nn.Module):
    """Levels that halve the picture, and a middle."""

    def __init__(self, settings: "VQGANSettings") -> None:
        super().__init__()
        widths, attention, norms = settings.widths, settings.attention, settings.norms
        pixel_shuffle, num_blocks = settings.pixel_shuffle, settings.num_res_blocks
        self.unshuffle = nn.PixelUnshuffle(pixel_shuffle)
        self.conv_in = nn.Conv2d(3 * pixel_shuffle**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(widths[max(i - 1, 0)], width, num_blocks, attention[i], norms)
            if i < len(widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1], settings.mid_attention, norms)
        self.norm_out = norms.over(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], settings.z_channels, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d grid grid"]:
        x = self.conv_in(self.unshuffle(images))  # b ch h/p w/p for pixel_shuffle=p
        for level in self.down:
            x = level(x)
        return self.conv_out(swish(self.norm_out(self.mid(x))))


class VQGANDecoder(nn.Module):
    """The encoder in reverse, with one block more at each level; ``up`` is stored finest first."""

    def __init__(self, settings: "VQGANSettings") -> None:
        super().__init__()
        widths, attention, norms = settings.widths, settings.attention, settings.norms
        pixel_shuffle, num_blocks = settings.pixel_shuffle, settings.num_res_blocks + 1
        self.conv_in = nn.Conv2d(settings.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], settings.mid_attention, norms)
        self.up = nn.ModuleList()
        for i, (width, coarser) in enumerate(zip(widths, widths[1:] + widths[-1:], strict=True)):
            level = Level(coarser, width, num_blocks, attention[i], norms)
            if i > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = norms.over(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3 * pixel_shuffle**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(pixel_shuffle)

    def forward(self, latents: Float[Tensor, "b d grid grid"]) -> Float[Tensor, "b 3 h w"]:
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        return self.shuffle(self.conv_out(swish(self.norm_out(x))))  # b (3 p p) h/p w/p -> b 3 h w


@dataclass(frozen=True)
class VQGANSettings(NetworkSettings):
    """The defaults are minDALL-E's stage 1.

    taming's own models of 256 pixels: f16-16384 has these defaults; f16-1024 differs in ``codebook_size=1024`` (by the
    config in its repository); Gumbel f8-8192 differs in ``ch_mult=(1, 1, 2, 4), attn_resolutions=(32,),
    codebook_size=8192, quantizer="gumbel"`` (second-hand: by a copy of the config beside its weights).

    ``pixel_range`` is the range of pictures that the weights were trained on. ``norm_eps`` is taming's; programs that
    run the same weights with torch's default of 1e-5 (min-dalle, and StoryDALL-E after it) get slightly different
    latents, and so some different codes.
    ``encoder_window=w`` shows the encoder each w x w window of a picture alone, so that a code depends on its own
    window and nothing else. Norm groups must then have several channels: in a flat window, a group of two channels
    keeps only a sign. Differs from the paper: there the encoder's norms and receptive fields see the whole picture.
    ``pixel_shuffle=p`` folds p x p pixels into channels before the encoder's first convolution and back after the
    decoder's last one, which saves the levels that take most of the time. Differs from the paper where p > 1.
    """

    resolution: int = 256
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    z_channels: int = 256
    codebook_size: int = 16384
    embed_dim: int = 256
    norm_groups: int = 32
    mid_attention: bool = True
    encoder_window: int | None = None
    pixel_shuffle: int = 1
    quantizer: str = "nearest"
    norm_eps: float | int = NORM_EPS
    pixel_range: tuple[float | int, ...] = PixelRange()

    def __post_init__(self) -> None:
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer={self.quantizer} is unknown: there are {', '.join(QUANTIZERS)}")
        if len(self.pixel_range) != 2 or self.pixel_range[0] >= self.pixel_range[1]:
            raise ValueError(f"pixel_range={list(self.pixel_range)}: give the darkest value, then the brightest")
        object.__setattr__(self, "pixel_range", PixelRange(*map(float, self.pixel_range)))
        resolution, window, patch = self.resolution, self.window, self.patch
        if resolution % patch or resolution % window or window % patch:
            raise ValueError(
                f"resolution={resolution} and encoder_window={self.encoder_window} must be multiples of {patch} pixels "
                f"(the patch of one code with {len(self.ch_mult)} levels in ch_mult), and the window must divide the "
                "resolution"
            )

    @property
    def patch(self) -> int:
        """Side of the square of pixels that one code stands for."""
        return self.pixel_shuffle * 2 ** (len(self.ch_mult) - 1)

    @property
    def window(self) -> int:
        """Side of the square of pixels that the encoder sees at once."""
        return self.resolution if self.encoder_window is None else self.encoder_window

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the finest first."""
        return [self.ch * mult for mult in self.ch_mult]

    @property
    def attention(self) -> list[bool]:
        """True for the levels that have attention, by the side of their maps."""
        side = self.resolution // self.pixel_shuffle
        return [side // 2**i in self.attn_resolutions for i in range(len(self.ch_mult))]

    @property
    def norms(self) -> Norms:
        return Norms(self.norm_groups, self.norm_eps)


class VQGAN(ImageTokenizer):
    """Convolutional autoencoder with a codebook (Esser et al. 2021), of ``VQGANSettings``."""

    kind = "vqgan"
    settings: VQGANSettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = VQGANSettings.of(*values, **named)
        self.resolution, self.window = settings.resolution, settings.window
        self.grid = settings.resolution // settings.patch
        self.codebook_size, self.embed_dim = settings.codebook_size, settings.embed_dim
        self.pixel_range = PixelRange(*settings.pixel_range)
        self.encoder = VQGANEncoder(settings)
        self.decoder = VQGANDecoder(settings)
        self.quantize = QUANTIZERS[settings.quantizer](settings.codebook_size, settings.embed_dim)
        self.quant_conv = nn.Conv2d(settings.z_channels, settings.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(settings.embed_dim, settings.z_channels, 1)

    def latents(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d grid grid"]:
        """Vectors of pictures in [-1, 1], before the codebook."""
        self.check_images(images)
        rows = self.resolution // self.window
        windows = rearrange(images, "b c (row h) (column w) -> (b row column) c h w", row=rows, column=rows)
        latents = self.window_latents(windows)
        return rearrange(latents, "(b row column) d h w -> b d (row h) (column w)", row=rows, column=rows)

    def window_latents(self, windows: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d grid grid"]:
        """The latents of single windows of pictures in [-1, 1]."""
        return self.quant_conv(self.encoder(self.pixel_range.inward(windows)))

    def reconstruct(self, latents: Float[Tensor, "b d grid grid"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures, not clamped to [-1, 1], so that a loss keeps its gradient beyond the range."""
        # Vectors from a codebook are channels last in memory, where GroupNorm's backward pass is ten times slower.
        return self.pixel_range.outward(self.decoder(self.post_quant_conv(latents.contiguous())))

    def logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v grid grid"]:
        """One logit a code at every place, for pictures in [-1, 1]; with ``quantizer="gumbel"`` alone."""
        assert isinstance(self.quantize, GumbelCodebook)
        return self.quantize.logits(self.latents(images))

    def relaxed(self, samples: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of codes in shares, not clamped; with ``quantizer="gumbel"`` alone."""
        assert isinstance(self.quantize, GumbelCodebook)
        return self.reconstruct(self.quantize.mixed(samples))

    def pictures(self, maps: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The result of ``relaxed`` as pictures: the same."""
        return maps

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b l"]:
        return self.quantize.choose(self.latents(images))

    def encode_windows(self, windows: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n l"]:
        return self.quantize.choose(self.window_latents(windows))

    def embed(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b d grid grid"]:
        """The codebook vectors of codes, as a map."""
        self.check_codes(codes)
        return rearrange(self.quantize.embedding(codes), "b (h w) d -> b d h w", h=self.grid)

    def decode(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b 3 h w"]:
        return self.reconstruct(self.embed(codes)).clamp(-1.0, 1.0)

    @property
    def picture_bytes(self) -> int:
        """A residual block holds its input, as wide as the coarser level, and four maps.

        Attention holds seven maps, or four and two tables of one place with every other.
        """
        settings = self.settings
        widths, side = settings.widths, settings.resolution // settings.pixel_shuffle
        found = [6 * settings.resolution**2 + widths[0] * side**2]  # pixels and their channels, beside the last map
        for i, (width, coarser) in enumerate(zip(widths, widths[1:] + widths[-1:], strict=True)):
            places = (side // 2**i) ** 2
            found.append(max(coarser + 4 * width, 3 * coarser) * places)
            if settings.attention[i] or (settings.mid_attention and i == len(widths) - 1):
                found.append(max(7 * width * places, 4 * width * places + 2 * places**2))
        return 4 * max(found)

    def encoding_weights(self) -> dict[str, Tensor]:
        beginnings = ("encoder.", "quant_conv.", "quantize.")
        return {name: value for name, value in self.state_dict().items() if name.startswith(beginnings)}

    def encoding_settings(self) -> dict[str, object]:
        before = {"norm_eps": NORM_EPS, "pixel_range": [-1.0, 1.0]}
        return {name: self.config[name] for name, value in before.items() if self.config[name] != value}
