"""Frames <-> codes: the VQGAN of minDALL-E (taming-transformers). Its parameter names are the released file's keys.

The one name of ours is ``quantize.embedding`` of the Gumbel variant, which taming calls ``quantize.embed``.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from storydalle.tokens.image_tokenizer import ImageTokenizer, PixelRange

NORM_EPS = 1e-6  # the released weights; torch's own default of 1e-5 shifts every activation


class Quantized(NamedTuple):
    """What the nearest codebook vectors make of latents."""

    quantized: Float[Tensor, "b d grid grid"]  # gradients pass straight through to the latents
    codes: Int[Tensor, "b l"]  # raster order
    commitment: Float[Tensor, ""]  # mean squared distance, with gradient to the latents only


def swish(x: Tensor) -> Tensor:
    return F.silu(x)


class Norms(NamedTuple):
    """What all GroupNorms of a network share."""

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
        attention = (q @ k.transpose(1, 2) * x.shape[1] ** -0.5).softmax(dim=-1)
        return x + self.proj_out(rearrange(attention @ v, "b (h w) c -> b c h w", h=x.shape[2]))


class Downsample(nn.Module):
    """Halve the picture. The zeros stand right and below only: symmetric padding would shift it by half a pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


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


class Encoder(nn.Module):
    def __init__(
        self,
        widths: list[int],
        attention: list[bool],
        num_res_blocks: int,
        z_channels: int,
        norms: Norms,
        mid_attention: bool,
        pixel_shuffle: int,
    ) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(pixel_shuffle)
        self.conv_in = nn.Conv2d(3 * pixel_shuffle**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(widths[max(i - 1, 0)], width, num_res_blocks, attention[i], norms)
            if i < len(widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1], mid_attention, norms)
        self.norm_out = norms.over(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d grid grid"]:
        x = self.conv_in(self.unshuffle(images))
        for level in self.down:
            x = level(x)
        return self.conv_out(swish(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """The encoder in reverse, with one block more at each level; ``up`` is stored finest first."""

    def __init__(
        self,
        widths: list[int],
        attention: list[bool],
        num_res_blocks: int,
        z_channels: int,
        norms: Norms,
        mid_attention: bool,
        pixel_shuffle: int,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], mid_attention, norms)
        self.up = nn.ModuleList()
        for i, (width, coarser) in enumerate(zip(widths, widths[1:] + widths[-1:], strict=True)):
            level = Level(coarser, width, num_res_blocks + 1, attention[i], norms)
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
        return self.shuffle(self.conv_out(swish(self.norm_out(x))))


class Codebook(nn.Module):
    """The vectors behind the codes; of latents the nearest."""

    def __init__(self, codebook_size: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / codebook_size, 1.0 / codebook_size)

    def nearest(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """In fp32 under any autocast: bf16 distances confuse neighbouring codes."""
        with torch.autocast(vectors.device.type, enabled=False):
            codebook = self.embedding.weight.float()
            # The vectors' own squared norms are the same for every code and do not move the minimum.
            distances = torch.addmm(codebook.square().sum(dim=1), vectors.float(), codebook.T, alpha=-2.0)
        return distances.argmin(dim=1)

    def choose(self, latents: Float[Tensor, "b d grid grid"]) -> Int[Tensor, "b l"]:
        """Codes of latents, in raster order."""
        flat = self.nearest(rearrange(latents, "b d h w -> (b h w) d"))
        return rearrange(flat, "(b l) -> b l", b=latents.shape[0])

    def forward(self, latents: Float[Tensor, "b d grid grid"]) -> Quantized:
        with torch.no_grad():
            codes = self.choose(latents)
            chosen = rearrange(self.embedding(codes), "b (h w) d -> b d h w", h=latents.shape[2])
        commitment = F.mse_loss(latents.float(), chosen.float())
        quantized = latents + (chosen - latents).detach()
        return Quantized(quantized, codes, commitment)


class GumbelCodebook(Codebook):
    """Codes are the likeliest of a projection's, whatever the distance of their vectors: taming's ``GumbelQuantize``.

    For inference. taming itself draws with Gumbel noise, in evaluation too; here the same picture has the same codes.
    """

    def __init__(self, codebook_size: int, embed_dim: int) -> None:
        super().__init__(codebook_size, embed_dim)
        self.proj = nn.Conv2d(embed_dim, codebook_size, 1)

    def choose(self, latents: Float[Tensor, "b d grid grid"]) -> Int[Tensor, "b l"]:
        """In fp32 under any autocast, as the nearest vectors are found."""
        with torch.autocast(latents.device.type, enabled=False):
            assert self.proj.bias is not None
            logits = F.conv2d(latents.float(), self.proj.weight.float(), self.proj.bias.float())
        return rearrange(logits.argmax(dim=1), "b h w -> b (h w)")


QUANTIZERS: dict[str, type[Codebook]] = {"nearest": Codebook, "gumbel": GumbelCodebook}


class VQGAN(ImageTokenizer):
    """Convolutional autoencoder with a codebook (Esser et al. 2021); the defaults are minDALL-E's stage 1.

    taming's own models of 256 pixels differ from the defaults in ``codebook_size=1024`` (f16-1024, by the config in
    its repository), in nothing (f16-16384), and in ``ch_mult=(1, 1, 2, 4), attn_resolutions=(32,), codebook_size=8192,
    quantizer="gumbel"`` (Gumbel f8-8192; by a copy of the config that lies beside its weights, second-hand).

    ``pixel_range`` is the range of pictures that the weights know. ``norm_eps`` is taming's; code that ran its weights
    with torch's default of 1e-5 (min-dalle, and StoryDALL-E after it) gets slightly other latents, so other codes.
    ``encoder_window=w`` shows the encoder each w x w window of a picture alone, so that a code says what is in its
    own window and nothing else. Keep some channels a norm group then: of a flat window, two would keep but a sign.
    Differs from the paper: there the encoder's norms and receptive fields see the whole picture.
    ``pixel_shuffle=p`` folds p x p pixels into channels before the encoder's first convolution and back after the
    decoder's last one, which saves the levels where most of the time would go. Differs from the paper where p > 1.
    """

    kind = "vqgan"

    def __init__(
        self,
        resolution: int = 256,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        z_channels: int = 256,
        codebook_size: int = 16384,
        embed_dim: int = 256,
        norm_groups: int = 32,
        mid_attention: bool = True,
        encoder_window: int | None = None,
        pixel_shuffle: int = 1,
        quantizer: str = "nearest",
        norm_eps: float = NORM_EPS,
        pixel_range: Sequence[float | int] = PixelRange(),
    ) -> None:
        super().__init__()
        if quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer={quantizer} is unknown: there are {', '.join(QUANTIZERS)}")
        if len(pixel_range) != 2 or pixel_range[0] >= pixel_range[1]:
            raise ValueError(f"pixel_range={list(pixel_range)} must be the darkest value and the brightest")
        patch = pixel_shuffle * 2 ** (len(ch_mult) - 1)
        window = resolution if encoder_window is None else encoder_window
        if resolution % patch or resolution % window or window % patch:
            raise ValueError(
                f"resolution={resolution} and encoder_window={encoder_window} must be multiples of {patch} pixels (the "
                f"patch of one code with {len(ch_mult)} levels in ch_mult), and the window must divide the resolution"
            )
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "ch": ch,
            "ch_mult": list(ch_mult),
            "num_res_blocks": num_res_blocks,
            "attn_resolutions": list(attn_resolutions),
            "z_channels": z_channels,
            "codebook_size": codebook_size,
            "embed_dim": embed_dim,
            "norm_groups": norm_groups,
            "mid_attention": mid_attention,
            "encoder_window": encoder_window,
            "pixel_shuffle": pixel_shuffle,
            "quantizer": quantizer,
            "norm_eps": norm_eps,
            "pixel_range": [float(end) for end in pixel_range],
        }
        self.resolution = resolution
        self.window = window
        self.grid = resolution // patch
        self.codebook_size = codebook_size
        self.embed_dim = embed_dim
        self.pixel_range = PixelRange(*self.config["pixel_range"])
        norms = Norms(norm_groups, norm_eps)
        widths = [ch * mult for mult in ch_mult]
        attention = [resolution // pixel_shuffle // 2**i in attn_resolutions for i in range(len(widths))]
        self.encoder = Encoder(widths, attention, num_res_blocks, z_channels, norms, mid_attention, pixel_shuffle)
        self.decoder = Decoder(widths, attention, num_res_blocks, z_channels, norms, mid_attention, pixel_shuffle)
        self.quantize = QUANTIZERS[quantizer](codebook_size, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def latents(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d grid grid"]:
        """What the encoder says of pictures in [-1, 1], before the codebook."""
        self.check_images(images)
        rows = self.resolution // self.window
        windows = rearrange(images, "b c (row h) (column w) -> (b row column) c h w", row=rows, column=rows)
        latents = self.window_latents(windows)
        return rearrange(latents, "(b row column) d h w -> b d (row h) (column w)", row=rows, column=rows)

    def window_latents(self, windows: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d grid grid"]:
        """The latents of single windows of pictures in [-1, 1]: all that the encoder ever sees at once."""
        return self.quant_conv(self.encoder(self.pixel_range.inward(windows)))

    def reconstruct(self, latents: Float[Tensor, "b d grid grid"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures around [-1, 1], not clamped, so that a loss keeps its gradient beyond the range."""
        # Vectors looked up in a codebook lie channels last, a layout in which GroupNorm's backward is ten times slower.
        return self.pixel_range.outward(self.decoder(self.post_quant_conv(latents.contiguous())))

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b l"]:
        return self.quantize.choose(self.latents(images))

    def encode_windows(self, windows: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n l"]:
        return self.quantize.choose(self.window_latents(windows))

    def embed(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b d grid grid"]:
        """The codebook vectors of codes, in their places."""
        self.check_codes(codes)
        return rearrange(self.quantize.embedding(codes), "b (h w) d -> b d h w", h=self.grid)

    def decode(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b 3 h w"]:
        return self.reconstruct(self.embed(codes)).clamp(-1.0, 1.0)

    def encoding_weights(self) -> dict[str, Tensor]:
        beginnings = ("encoder.", "quant_conv.", "quantize.")
        return {name: value for name, value in self.state_dict().items() if name.startswith(beginnings)}

    def encoding_settings(self) -> dict[str, Any]:
        before = {"norm_eps": NORM_EPS, "pixel_range": [-1.0, 1.0]}
        return {name: self.config[name] for name, value in before.items() if self.config[name] != value}
