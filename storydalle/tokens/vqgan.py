"""Frames <-> codes: the VQGAN of minDALL-E (taming-transformers). Its parameter names are the released file's keys."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
NORM_EPS = 1e-6  # the released weights; torch's own default of 1e-5 shifts every activation


class Quantized(NamedTuple):
    """What the nearest codebook vectors make of latents."""

    quantized: Float[Tensor, "b d grid grid"]  # gradients pass straight through to the latents
    codes: Int[Tensor, "b l"]  # raster order
    commitment: Float[Tensor, ""]  # mean squared distance, with gradient to the latents only


def swish(x: Tensor) -> Tensor:
    return F.silu(x)


def norm(channels: int, groups: int) -> nn.GroupNorm:
    if channels % groups:
        raise ValueError(
            f"{channels} channels do not divide into norm_groups={groups}: change ch, ch_mult or norm_groups"
        )
    return nn.GroupNorm(groups, channels, eps=NORM_EPS)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = norm(in_channels, norm_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels, norm_groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        is_same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if is_same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        h = self.conv1(swish(self.norm1(x)))
        h = self.conv2(swish(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, as 1x1 convolutions."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = norm(channels, norm_groups)
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

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, attention: bool, norm_groups: int) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.ModuleList(ResnetBlock(*pair, norm_groups) for pair in pairwise(widths))
        self.attn = nn.ModuleList(AttnBlock(out_channels, norm_groups) for _ in self.block if attention)
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


class Middle(nn.Module):
    def __init__(self, channels: int, attention: bool, norm_groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, norm_groups)
        self.attn_1 = AttnBlock(channels, norm_groups) if attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels, norm_groups)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(
        self,
        widths: list[int],
        attention: list[bool],
        num_res_blocks: int,
        z_channels: int,
        norm_groups: int,
        mid_attention: bool,
        pixel_shuffle: int,
    ) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(pixel_shuffle)
        self.conv_in = nn.Conv2d(3 * pixel_shuffle**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(widths[max(i - 1, 0)], width, num_res_blocks, attention[i], norm_groups)
            if i < len(widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1], mid_attention, norm_groups)
        self.norm_out = norm(widths[-1], norm_groups)
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
        norm_groups: int,
        mid_attention: bool,
        pixel_shuffle: int,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], mid_attention, norm_groups)
        self.up = nn.ModuleList()
        for i, (width, coarser) in enumerate(zip(widths, widths[1:] + widths[-1:], strict=True)):
            level = Level(coarser, width, num_res_blocks + 1, attention[i], norm_groups)
            if i > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = norm(widths[0], norm_groups)
        self.conv_out = nn.Conv2d(widths[0], 3 * pixel_shuffle**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(pixel_shuffle)

    def forward(self, latents: Float[Tensor, "b d grid grid"]) -> Float[Tensor, "b 3 h w"]:
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        return self.shuffle(self.conv_out(swish(self.norm_out(x))))


class Codebook(nn.Module):
    """The vectors behind the codes."""

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

    def forward(self, latents: Float[Tensor, "b d grid grid"]) -> Quantized:
        batch, _, height, width = latents.shape
        with torch.no_grad():
            codes = self.nearest(rearrange(latents, "b d h w -> (b h w) d"))
            chosen = rearrange(self.embedding(codes), "(b h w) d -> b d h w", b=batch, h=height, w=width)
        commitment = F.mse_loss(latents.float(), chosen.float())
        quantized = latents + (chosen - latents).detach()
        return Quantized(quantized, rearrange(codes, "(b l) -> b l", b=batch), commitment)


class VQGAN(nn.Module):
    """Convolutional autoencoder with a codebook (Esser et al. 2021); the defaults are minDALL-E's stage 1.

    ``encoder_window=w`` shows the encoder each w x w window of a picture alone, so that a code says what is in its
    own window and nothing else. Keep some channels a norm group then: of a flat window, two would keep but a sign.
    Differs from the paper: there the encoder's norms and receptive fields see the whole picture.
    ``pixel_shuffle=p`` folds p x p pixels into channels before the encoder's first convolution and back after the
    decoder's last one, which saves the levels where most of the time would go. Differs from the paper where p > 1.
    """

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
    ) -> None:
        super().__init__()
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
        }
        self.resolution = resolution
        self.window = window
        self.grid = resolution // patch
        self.num_codes = self.grid**2
        self.codebook_size = codebook_size
        self.embed_dim = embed_dim
        widths = [ch * mult for mult in ch_mult]
        attention = [resolution // pixel_shuffle // 2**i in attn_resolutions for i in range(len(widths))]
        self.encoder = Encoder(widths, attention, num_res_blocks, z_channels, norm_groups, mid_attention, pixel_shuffle)
        self.decoder = Decoder(widths, attention, num_res_blocks, z_channels, norm_groups, mid_attention, pixel_shuffle)
        self.quantize = Codebook(codebook_size, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def latents(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d grid grid"]:
        """What the encoder says of pictures in [-1, 1], before the codebook."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"pictures of {images.shape[-1]}x{images.shape[-2]} pixels do not fit a tokenizer of "
                f"{self.resolution}x{self.resolution}: resize them"
            )
        rows = self.resolution // self.window
        windows = rearrange(images, "b c (row h) (column w) -> (b row column) c h w", row=rows, column=rows)
        latents = self.window_latents(windows)
        return rearrange(latents, "(b row column) d h w -> b d (row h) (column w)", row=rows, column=rows)

    def window_latents(self, windows: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d grid grid"]:
        """The latents of single windows of pictures in [-1, 1]: all that the encoder ever sees at once."""
        return self.quant_conv(self.encoder(windows))

    def reconstruct(self, latents: Float[Tensor, "b d grid grid"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures around [-1, 1], not clamped, so that a loss keeps its gradient beyond the range."""
        # Vectors looked up in a codebook lie channels last, a layout in which GroupNorm's backward is ten times slower.
        return self.decoder(self.post_quant_conv(latents.contiguous()))

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b l"]:
        """Codes in raster order of pictures in [-1, 1]."""
        return self.quantize(self.latents(images)).codes

    def embed(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b d grid grid"]:
        """The codebook vectors of codes, in their places."""
        if codes.shape[1] != self.num_codes:
            raise ValueError(f"{codes.shape[1]} codes a picture do not fill this tokenizer's {self.num_codes}")
        lowest, highest = codes.min().item(), codes.max().item()
        if lowest < 0 or highest >= self.codebook_size:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(
                f"code {wrong} lies outside the codebook of {self.codebook_size} (0 to {self.codebook_size - 1}): "
                "decode with the tokenizer that made the codes"
            )
        return rearrange(self.quantize.embedding(codes), "b (h w) d -> b d h w", h=self.grid)

    def decode(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures clamped to [-1, 1] of codes in raster order."""
        return self.reconstruct(self.embed(codes)).clamp(-1.0, 1.0)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` (the constructor's arguments) and ``model.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).write_text(json.dumps(self.config, indent=2) + "\n")
        weights = {key: value.detach().contiguous().cpu() for key, value in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS_NAME)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "VQGAN":
        """Read what ``save_pretrained`` wrote; ValueError, naming the file, where it is missing or does not fit."""
        config_file, weights_file = Path(folder) / CONFIG_NAME, Path(folder) / WEIGHTS_NAME
        try:
            model = cls(**json.loads(config_file.read_text()))
        except (OSError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{config_file} is not the configuration of an image tokenizer: {reason}") from error
        try:
            model.load_state_dict(load_file(weights_file))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{weights_file} does not hold the weights of {config_file}: {reason}") from error
        return model.eval()
