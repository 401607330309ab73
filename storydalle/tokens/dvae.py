"""Frames <-> codes: the discrete VAE of DALL-E (Ramesh et al. 2021, section 2.1 and appendix A).

From the released code (openai/DALL-E): every layer below, the map of pixels, and what stays in full precision. From
the paper alone: codes are the argmax of the logits, without noise. Not verified: the released weights themselves,
which were not available. Its loss is in relaxation.py, its training in training/dvae_training.py.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from storydalle.configured import NetworkSettings
from storydalle.tokens.image_tokenizer import ImageTokenizer


class VocabularyConv2d(nn.Conv2d):
    """A 1x1 convolution into the vocabulary or out of it, in fp32 under any autocast."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())

    def look_up(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        """The convolution of one-hot codes, without their thousands of channels of zeros."""
        found = F.embedding(codes, rearrange(self.weight.float(), "d v 1 1 -> v d"))
        return rearrange(found if self.bias is None else found + self.bias.float(), "b h w d -> b d h w")


class ResidualBlock(nn.Module):
    """x + gain * f(x): four convolutions, each after a ReLU, a quarter as wide inside.

    ``gain`` is 1 / n^2 for n blocks in the network, so that the sum over all of them stays small.
    """

    def __init__(self, in_channels: int, out_channels: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        self.gain = gain
        is_same = in_channels == out_channels
        self.id_path = nn.Identity() if is_same else nn.Conv2d(in_channels, out_channels, 1)
        widths = [in_channels, *[out_channels // 4] * 3, out_channels]
        layers = OrderedDict[str, nn.Module]()
        for i, (pair, kernel) in enumerate(zip(pairwise(widths), kernels, strict=True), start=1):
            layers[f"relu_{i}"] = nn.ReLU()
            layers[f"conv_{i}"] = nn.Conv2d(*pair, kernel, padding=kernel // 2)
        self.res_path = nn.Sequential(layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.id_path(x) + self.gain * self.res_path(x)


def residual_groups(
    widths: Sequence[int], num_blocks: int, kernels: Sequence[int], name: str, resample: nn.Module
) -> OrderedDict[str, nn.Module]:
    """``group_1``, ``group_2`` and so on, one for each width after the first; ``resample`` between two groups."""
    gain = 1.0 / ((len(widths) - 1) * num_blocks) ** 2  # 1 / n^2, as in the released code
    groups = OrderedDict[str, nn.Module]()
    for number, (before, width) in enumerate(pairwise(widths), start=1):
        blocks = OrderedDict[str, nn.Module]()
        for i, pair in enumerate(pairwise([before] + [width] * num_blocks), start=1):
            blocks[f"block_{i}"] = ResidualBlock(*pair, kernels, gain)
        if number < len(widths) - 1:  # none after the last group
            blocks[name] = resample
        groups[f"group_{number}"] = nn.Sequential(blocks)
    return groups


def output(in_channels: int, out_channels: int, layer: type[nn.Conv2d]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=layer(in_channels, out_channels, 1)))


class DVAEEncoder(nn.Module):
    """Pixels to one logit a code at each place."""

    def __init__(
        self, hidden: int, num_groups: int, num_blocks: int, codebook_size: int, pixel_shuffle: int = 1
    ) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(pixel_shuffle)
        widths = [hidden, *(hidden * 2**i for i in range(num_groups))]
        layers = OrderedDict[str, nn.Module](input=nn.Conv2d(3 * pixel_shuffle**2, hidden, 7, padding=3))
        layers |= residual_groups(widths, num_blocks, (3, 3, 3, 1), "pool", nn.MaxPool2d(2))
        layers["output"] = output(widths[-1], codebook_size, VocabularyConv2d)
        self.blocks = nn.Sequential(layers)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v grid grid"]:
        return self.blocks(self.unshuffle(pixels))  # b 3 h w -> b (3 p p) h/p w/p -> b v grid grid


class DVAEDecoder(nn.Module):
    """Codes to the distribution of each pixel."""

    def __init__(
        self, hidden: int, num_groups: int, num_blocks: int, codebook_size: int, embed_dim: int, pixel_shuffle: int = 1
    ) -> None:
        super().__init__()
        widths = [embed_dim, *(hidden * 2**i for i in reversed(range(num_groups)))]
        layers = OrderedDict[str, nn.Module](input=VocabularyConv2d(codebook_size, embed_dim, 1))
        layers |= residual_groups(widths, num_blocks, (1, 3, 3, 3), "upsample", nn.Upsample(scale_factor=2.0))
        layers["output"] = output(hidden, 6 * pixel_shuffle**2, nn.Conv2d)  # mean and ln b of three colours
        self.blocks = nn.Sequential(layers)
        self.shuffle = nn.PixelShuffle(pixel_shuffle)

    def forward(self, codes: Int[Tensor, "b grid grid"]) -> Float[Tensor, "b 6 h w"]:
        """The logit-Laplace distribution of every pixel: three means and three ln b, one a colour (appendix A.3)."""
        codebook, *layers = self.blocks  # a convolution of one-hot codes is a look-up
        x = cast(VocabularyConv2d, codebook).look_up(codes)
        for layer in layers:
            x = layer(x)
        return self.shuffle(x)  # b (6 p p) h/p w/p -> b 6 h w

    def relaxed(self, samples: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b 6 h w"]:
        """``forward`` of codes in shares: with shares of 1 and 0 the same."""
        return self.shuffle(self.blocks(samples))


@dataclass(frozen=True)
class DVAESettings(NetworkSettings):
    """The defaults are the released one's: 256 pixels, 32 x 32 codes out of 8192.

    The encoder reads ``phi`` of pixels in [0, 1], which keeps a distance of ``margin`` from 0 and 1, where the
    decoder's logit-Laplace distribution is not defined; the decoder's output goes through the inverse of ``phi``.
    ``hidden`` is the width of the narrowest group, a multiple of 4; each further group is twice as wide.
    ``pixel_shuffle=p`` folds p x p pixels into channels before the first convolution and back after the last one, which
    saves the groups that take most of the time. Differs from the paper where p > 1.
    """

    resolution: int = 256
    hidden: int = 256
    num_groups: int = 4
    blocks_per_group: int = 2
    codebook_size: int = 8192
    embed_dim: int = 128
    margin: float | int = 0.1
    pixel_shuffle: int = 1

    def __post_init__(self) -> None:
        if self.resolution % self.patch:
            groups = f"with num_groups={self.num_groups} and pixel_shuffle={self.pixel_shuffle}"
            raise ValueError(f"resolution={self.resolution} must be a multiple of {self.patch} {groups}")
        if self.hidden % 4:
            raise ValueError(f"hidden={self.hidden} must be a multiple of 4: blocks are a quarter as wide inside")
        if not 0.0 <= self.margin < 0.5:
            raise ValueError(f"margin={self.margin} must lie in [0, 0.5)")

    @property
    def patch(self) -> int:
        """Side of the square of pixels that one code stands for."""
        return self.pixel_shuffle * 2 ** (self.num_groups - 1)


class DVAE(ImageTokenizer):
    """OpenAI's tokenizer, of ``DVAESettings``."""

    kind = "dvae"
    settings: DVAESettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = DVAESettings.of(*values, **named)
        self.resolution = self.window = settings.resolution
        self.grid = settings.resolution // settings.patch
        self.codebook_size, self.margin = settings.codebook_size, settings.margin
        sizes = (settings.hidden, settings.num_groups, settings.blocks_per_group, settings.codebook_size)
        self.encoder = DVAEEncoder(*sizes, settings.pixel_shuffle)
        self.decoder = DVAEDecoder(*sizes, settings.embed_dim, settings.pixel_shuffle)
        self._init_weights()

    def _init_weights(self) -> None:
        """As released: N(0, 1 / fan_in) for every convolution, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def phi(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] as the encoder wants them: (1 - 2 margin) x + margin of pixels x in [0, 1]."""
        return (1.0 - 2.0 * self.margin) * (images + 1.0) / 2.0 + self.margin

    def inverse_phi(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures clamped to [-1, 1]."""
        return self.unclamped(pixels).clamp(-1.0, 1.0)

    def unclamped(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return (pixels - self.margin) / (1.0 - 2.0 * self.margin) * 2.0 - 1.0

    def logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v grid grid"]:
        """One logit a code at every place, for pictures in [-1, 1]."""
        self.check_images(images)
        return self.encoder(self.phi(images))

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b l"]:
        return rearrange(self.logits(images).argmax(dim=1), "b h w -> b (h w)")  # raster order

    def decode(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b 3 h w"]:
        """The median of the decoder's distribution, sigmoid(mean); its width b is not used."""
        self.check_codes(codes)
        return self.pictures(self.decoder(rearrange(codes, "b (h w) -> b h w", h=self.grid))).clamp(-1.0, 1.0)

    def relaxed(self, samples: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b 6 h w"]:
        """The distribution of every pixel for codes in shares (``DVAEDecoder.forward``)."""
        return self.decoder.relaxed(samples)

    def pictures(self, maps: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The medians of distributions as pictures, not clamped to [-1, 1], so that a loss keeps its gradient."""
        return self.unclamped(maps[:, :3].float().sigmoid())  # means alone, of six channels

    @property
    def picture_bytes(self) -> int:
        """The first block of the finest group reads maps twice as wide as it writes: two of those, and two its own.

        Pixels that were folded leave it as six channels, which are unfolded into as many.
        """
        settings, side = self.settings, self.resolution // self.settings.pixel_shuffle
        folded = 0 if settings.pixel_shuffle == 1 else settings.hidden * side**2 + 18 * self.resolution**2
        return 4 * max(6 * settings.hidden * side**2, folded)

    def encoding_weights(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict().items() if name.startswith("encoder.")}

    def encoding_settings(self) -> dict[str, object]:
        return {"kind": self.kind, "margin": self.margin}
