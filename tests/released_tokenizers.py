"""Weights of released image tokenizers, tiny and random, under the names and in the shapes of their files; and what
the released code makes of them, in plain calls of torch. Written from descriptions of those files, not from ours."""

import math
import sys
import types
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = dict[str, Tensor]


def random_conv(generator: torch.Generator | None, out: int, into: int, kernel: int) -> tuple[Tensor, Tensor]:
    """Weight and bias; without a generator they have shapes alone."""
    if generator is None:
        return torch.empty(out, into, kernel, kernel, device="meta"), torch.empty(out, device="meta")
    weight = torch.randn(out, into, kernel, kernel, generator=generator) / (into * kernel**2) ** 0.5
    return weight, torch.randn(out, generator=generator) * 0.1


def pictures(num: int, resolution: int) -> Tensor:
    """Random colours in [-1, 1], in blocks of two pixels."""
    coarse = torch.rand(num, 3, resolution // 2, resolution // 2, generator=torch.Generator().manual_seed(2))
    return F.interpolate(coarse, scale_factor=2.0) * 2 - 1


# ------------------------------------------------------------------------------------------------ OpenAI's dVAE


def openai_weights(
    side: str, hidden: int = 8, blocks: int = 2, codes: int = 24, embed: int = 6, seed: int | None = 0
) -> Weights:
    """``encoder`` or ``decoder``: four groups, names ending in w and b; without a seed, shapes alone."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        weight, bias = random_conv(generator, out, into, kernel)
        weights[f"blocks.{name}.w"], weights[f"blocks.{name}.b"] = 2.5 * weight, bias  # blocks are damped by 1/64

    encodes = side == "encoder"
    kernels = (3, 3, 3, 1) if encodes else (1, 3, 3, 3)
    widths = [hidden, 2 * hidden, 4 * hidden, 8 * hidden]
    before, widths = (hidden, widths) if encodes else (embed, widths[::-1])
    if encodes:
        conv("input", hidden, 3, 7)
    else:
        conv("input", embed, codes, 1)
    for i, width in enumerate(widths, start=1):
        for j in range(1, blocks + 1):
            name, inner = f"group_{i}.block_{j}", width // 4
            if before != width:
                conv(f"{name}.id_path", width, before, 1)
            conv(f"{name}.res_path.conv_1", inner, before, kernels[0])
            conv(f"{name}.res_path.conv_2", inner, inner, kernels[1])
            conv(f"{name}.res_path.conv_3", inner, inner, kernels[2])
            conv(f"{name}.res_path.conv_4", width, inner, kernels[3])
            before = width
    conv("output.conv", codes if encodes else 6, before, 1)
    return weights


def openai_blocks(weights: Weights, x: Tensor, is_encoder: bool) -> Tensor:
    def conv(name: str, x: Tensor) -> Tensor:
        weight = weights[f"blocks.{name}.w"]
        return F.conv2d(x, weight, weights[f"blocks.{name}.b"], padding=weight.shape[-1] // 2)

    num_blocks = 1 + max(int(key.split("block_")[1][0]) for key in weights if "group_1.block_" in key) - 1
    x = conv("input", x)
    for i in range(1, 5):
        for j in range(1, num_blocks + 1):
            name = f"group_{i}.block_{j}"
            skip = conv(f"{name}.id_path", x) if f"blocks.{name}.id_path.w" in weights else x
            for k in range(1, 5):
                x = conv(f"{name}.res_path.conv_{k}", F.relu(x))
            x = skip + x / (4 * num_blocks) ** 2
        if i < 4:
            x = F.max_pool2d(x, 2) if is_encoder else F.interpolate(x, scale_factor=2.0, mode="nearest")
    return conv("output.conv", F.relu(x))


def openai_codes(weights: Weights, pixels: Tensor) -> Tensor:
    """Of pixels in [0, 1]; one row a picture."""
    return openai_blocks(weights, 0.8 * pixels + 0.1, is_encoder=True).argmax(1).flatten(1)


def openai_pixels(weights: Weights, codes: Tensor) -> Tensor:
    """In [0, 1], of a square of codes a picture."""
    side = int(codes.shape[1] ** 0.5)
    one_hot = F.one_hot(codes.view(-1, side, side), weights["blocks.input.w"].shape[1]).permute(0, 3, 1, 2).float()
    means = openai_blocks(weights, one_hot, is_encoder=False)[:, :3]
    return ((torch.sigmoid(means) - 0.1) / 0.8).clamp(0, 1)


def flava_name(name: str) -> str:
    """OpenAI's name as FLAVA's codebook has it."""
    name = name.replace(".block_", ".group.block_").replace(".res_path.", ".res_path.path.")
    return name.removesuffix(".w").removesuffix(".b") + (".weight" if name.endswith(".w") else ".bias")


class Conv2d(nn.Module):
    def __init__(self, w: Tensor, b: Tensor) -> None:
        super().__init__()
        self.w, self.b, self.use_float16 = nn.Parameter(w), nn.Parameter(b), True


class OpenAIBlock(nn.Module):
    def __init__(self, id_path: nn.Module, res_path: nn.Module) -> None:
        super().__init__()
        self.id_path, self.res_path, self.post_gain = id_path, res_path, 1 / 64


class Whole(nn.Module):
    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks, self.device = blocks, torch.device("cpu")


def openai_network(weights: Weights, side: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network of classes that call themselves ``dall_e``'s, to be pickled whole as OpenAI's files are."""
    for module in ("dall_e", "dall_e.utils", f"dall_e.{side}"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))

    def renamed(kind: type[nn.Module], module: str, name: str) -> type[nn.Module]:
        made = type(name, (kind,), {"__module__": module, "__qualname__": name})
        monkeypatch.setattr(sys.modules[module], name, made, raising=False)
        return made

    conv_kind = renamed(Conv2d, "dall_e.utils", "Conv2d")
    block_kind = renamed(OpenAIBlock, f"dall_e.{side}", f"{side.title()}Block")

    def conv(name: str) -> nn.Module:
        return conv_kind(weights[f"blocks.{name}.w"], weights[f"blocks.{name}.b"])

    def block(name: str) -> nn.Module:
        has_id_path = f"blocks.{name}.id_path.w" in weights
        layers = OrderedDict[str, nn.Module]()
        for k in range(1, 5):
            layers[f"relu_{k}"], layers[f"conv_{k}"] = nn.ReLU(), conv(f"{name}.res_path.conv_{k}")
        return block_kind(conv(f"{name}.id_path") if has_id_path else nn.Identity(), nn.Sequential(layers))

    parts = OrderedDict[str, nn.Module](input=conv("input"))
    for i in range(1, 5):
        group = OrderedDict((f"block_{j}", block(f"group_{i}.block_{j}")) for j in (1, 2))
        if i < 4:
            group["pool"] = nn.MaxPool2d(2) if side == "encoder" else nn.Upsample(scale_factor=2)
        parts[f"group_{i}"] = nn.Sequential(group)
    parts["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv("output.conv")))
    return renamed(Whole, f"dall_e.{side}", side.title())(nn.Sequential(parts))


# ------------------------------------------------------------------------------------------------ taming's VQGAN

TINY: dict[str, Any] = {"widths": (8, 8, 16), "blocks": 2, "attention": (2,), "z": 12, "codes": 20, "embed": 12}
TINY_VQGAN: dict[str, Any] = {  # the same in our words
    "resolution": 16,
    "ch": 8,
    "ch_mult": [1, 1, 2],
    "num_res_blocks": 2,
    "attn_resolutions": [4],
    "z_channels": 12,
    "codebook_size": 20,
    "embed_dim": 12,
    "norm_groups": 4,
}


class TamingLayers:
    """Name and shape of each parameter of some layers of taming's VQGAN, gathered layer by layer."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def conv(self, name: str, out: int, into: int, kernel: int) -> None:
        self.shapes |= {f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)}

    def norm(self, name: str, width: int) -> None:
        self.shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    def block(self, name: str, into: int, out: int) -> None:
        self.norm(f"{name}.norm1", into)
        self.conv(f"{name}.conv1", out, into, 3)
        self.norm(f"{name}.norm2", out)
        self.conv(f"{name}.conv2", out, out, 3)
        if into != out:
            self.conv(f"{name}.nin_shortcut", out, into, 1)

    def attention(self, name: str, width: int) -> None:
        self.norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.{part}", width, width, 1)

    def level(self, name: str, into: int, out: int, num: int, attends: bool) -> None:
        for j in range(num):
            self.block(f"{name}.block.{j}", into if j == 0 else out, out)
            if attends:
                self.attention(f"{name}.attn.{j}", out)

    def side(self, name: str, width: int, ends: Sequence[tuple[str, int, int]]) -> None:
        """The middle, at the coarsest level, and the convolutions at both ends."""
        self.block(f"{name}.mid.block_1", width, width)
        self.attention(f"{name}.mid.attn_1", width)
        self.block(f"{name}.mid.block_2", width, width)
        for end, out, into in ends:
            self.conv(f"{name}.{end}", out, into, 3)
        self.norm(f"{name}.norm_out", ends[1][2])


def taming_shapes(
    widths: Sequence[int], blocks: int, attention: Sequence[int], z: int, codes: int, embed: int, gumbel: bool = False
) -> dict[str, tuple[int, ...]]:
    """Key by key what a released file holds without its losses; ``attention`` are levels, the finest first."""
    layers, top = TamingLayers(), len(widths) - 1
    layers.side("encoder", widths[-1], [("conv_in", widths[0], 3), ("conv_out", z, widths[-1])])
    layers.side("decoder", widths[-1], [("conv_in", widths[-1], z), ("conv_out", 3, widths[0])])
    for i, width in enumerate(widths):
        layers.level(f"encoder.down.{i}", widths[max(i - 1, 0)], width, blocks, i in attention)
        layers.level(f"decoder.up.{i}", widths[min(i + 1, top)], width, blocks + 1, i in attention)
        if i < top:
            layers.conv(f"encoder.down.{i}.downsample.conv", width, width, 3)
        if i > 0:
            layers.conv(f"decoder.up.{i}.upsample.conv", width, width, 3)
    layers.conv("quant_conv", embed, z, 1)
    layers.conv("post_quant_conv", z, embed, 1)
    if gumbel:
        layers.conv("quantize.proj", codes, embed, 1)
    return {**layers.shapes, f"quantize.{'embed' if gumbel else 'embedding'}.weight": (codes, embed)}


def taming_weights(*sizes: Any, **named: Any) -> Weights:
    """Random weights of ``taming_shapes``."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, shape in taming_shapes(*sizes, **named).items():
        scale = 0.1 if len(shape) == 1 else 1.0 if len(shape) == 2 else math.prod(shape[1:]) ** -0.5
        is_gain = len(shape) == 1 and name.endswith("weight")
        weights[name] = is_gain + scale * torch.randn(shape, generator=generator)
    return weights


def taming_losses() -> Weights:
    return {
        "loss.perceptual_loss.net.slice1.0.weight": torch.zeros(4, 3, 3, 3),
        "loss.discriminator.main.0.weight": torch.zeros(2, 3, 4, 4),
        "loss.discriminator.main.3.num_batches_tracked": torch.tensor(7),
        "loss.logvar": torch.tensor(0.0),
    }


class Taming:
    """The released forward passes, by the names of the weights; ``eps`` and ``groups`` of every GroupNorm."""

    def __init__(self, weights: Weights, eps: float = 1e-6, groups: int = 4) -> None:
        self.weights, self.eps, self.groups = weights, eps, groups
        self.levels = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("decoder.up."))

    def conv(self, name: str, x: Tensor, **options: int) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], self.eps)

    def swish(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    def block(self, name: str, x: Tensor) -> Tensor:
        h = self.conv(f"{name}.conv1", self.swish(self.norm(f"{name}.norm1", x)), padding=1)
        h = self.conv(f"{name}.conv2", self.swish(self.norm(f"{name}.norm2", h)), padding=1)
        return (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.weights else x) + h

    def attend(self, name: str, x: Tensor) -> Tensor:
        normed = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", normed).flatten(2) for part in "qkv")
        weights = torch.softmax(torch.bmm(q.permute(0, 2, 1), k) * x.shape[1] ** -0.5, dim=2)
        return x + self.conv(f"{name}.proj_out", torch.bmm(v, weights.permute(0, 2, 1)).view_as(x))

    def level(self, name: str, x: Tensor) -> Tensor:
        j = 0
        while f"{name}.block.{j}.conv1.weight" in self.weights:
            x = self.block(f"{name}.block.{j}", x)
            if f"{name}.attn.{j}.q.weight" in self.weights:
                x = self.attend(f"{name}.attn.{j}", x)
            j += 1
        return x

    def middle(self, side: str, x: Tensor) -> Tensor:
        return self.block(
            f"{side}.mid.block_2", self.attend(f"{side}.mid.attn_1", self.block(f"{side}.mid.block_1", x))
        )

    def latents(self, images: Tensor) -> Tensor:
        x = self.conv("encoder.conv_in", images, padding=1)
        for i in range(self.levels):
            x = self.level(f"encoder.down.{i}", x)
            if i < self.levels - 1:
                x = self.conv(f"encoder.down.{i}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        x = self.swish(self.norm("encoder.norm_out", self.middle("encoder", x)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", x, padding=1))

    def codes(self, images: Tensor) -> Tensor:
        """One row a picture, of images in the range of the weights."""
        latents = self.latents(images)
        if "quantize.proj.weight" in self.weights:
            return self.conv("quantize.proj", latents).argmax(1).flatten(1)
        rows = latents.flatten(2).permute(0, 2, 1)
        return torch.cdist(rows, self.weights["quantize.embedding.weight"].expand(len(rows), -1, -1)).argmin(2)

    def pixels(self, codes: Tensor) -> Tensor:
        """In the range of the weights, not clamped; of a codebook under any of its names."""
        names = ("quantize.embedding.weight", "quantize.embed.weight", "embedding.weight")
        vectors = next(self.weights[name] for name in names if name in self.weights)[codes]
        side = int(codes.shape[1] ** 0.5)
        x = self.conv("post_quant_conv", vectors.permute(0, 2, 1).unflatten(2, (side, side)))
        x = self.middle("decoder", self.conv("decoder.conv_in", x, padding=1))
        for i in reversed(range(self.levels)):
            x = self.level(f"decoder.up.{i}", x)
            if i > 0:
                upsampled = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.conv(f"decoder.up.{i}.upsample.conv", upsampled, padding=1)
        return self.conv("decoder.conv_out", self.swish(self.norm("decoder.norm_out", x)), padding=1)


def detoker_weights(seed: int = 3, **changes: Any) -> Weights:
    """The half of a VQGAN that draws, in the names of ``detoker.pt``, drawing around [0, 1]."""
    torch.manual_seed(seed)
    whole = taming_weights(**{**TINY, **changes})
    kept = {key: value for key, value in whole.items() if key.startswith(("decoder.", "post_quant_conv."))}
    kept["decoder.conv_out.bias"] = kept["decoder.conv_out.bias"] + 0.5
    return {"embedding.weight": torch.randn_like(whole["quantize.embedding.weight"]), **kept}
