"""A model's view for decoding: the same numbers, laid out for products of a few rows.

A step of decoding multiplies a few rows with every weight. On a CPU it takes the time of reading the weights, which the
plain product does far below the speed of the memory. ``decoding_view`` gives a model that shares the parameters of
another, but whose linear layers read copies in another layout:

- ``onednn``: float32, in the blocks that oneDNN's kernels read;
- ``fp16``: numbers of 16 bits, by FBGEMM: half the bytes; inputs and sums stay float32. It changes nothing where the
  weights are numbers of 16 bits already, as those of most files are;
- ``bf16``: half the bytes too, and inputs are rounded as well, so other codes may be drawn.

``exact``, the default, packs large weights: ``fp16`` where they are numbers of 16 bits, else ``onednn``. Small ones are
read as they are: packing them costs a short story more than it gains. A processor without AVX-512 is slow at the plain
product of a few rows; there smaller weights pay as ``fp16``. All of these draw the same codes (to rounding of sums).
The choice goes by the weights and the processor and not by a clock, so that the same request gives the same bytes.
Nothing is packed on a GPU, nor under autocast. ``picture_view`` does the like for the convolutions that make pictures.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PACKINGS = ("exact", "plain", "onednn", "fp16", "bf16")
LARGE = 1 << 20  # numbers of a weight, 4 MB in float32: more than the cache of a core holds
LARGE_WITHOUT_AVX512 = 1 << 16  # that pay as fp16
ROUNDS = 5  # of a measurement
PART = 256  # rows of a weight
Product = Callable[[Tensor], Tensor]
M = TypeVar("M", bound=nn.Module)


class Fusable(nn.Module):
    """A layer with several products of one input."""

    @property
    def joined(self) -> tuple[nn.Linear, ...]:
        """The layers that ``fuse`` joins."""
        raise NotImplementedError

    def fuse(self) -> None:
        """Join them into one linear layer, with a weight of its own."""
        raise NotImplementedError


def decoding_view(model: M, packing: str = "exact") -> M:
    """The view of ``model`` to decode with; it does not see later changes of the weights that it has packed.

    A packing without its hardware becomes ``exact``.
    """
    packing, _ = resolved(packing)
    if is_shared(model):
        return model
    view = with_own_layers(model)
    for layer in view.modules():
        if isinstance(layer, Fusable):
            layer.fuse()
    if packing != "plain" and computes_float32_on_cpu(model):
        pack_layers(view, packing)
    return view


def picture_view(model: M) -> M:
    """The view of an image tokenizer to draw pictures with: convolutions read their weights channel by channel.

    That is the fast layout on a CPU in float32; the pictures are equal to rounding.
    """
    if is_shared(model) or not computes_float32_on_cpu(model):
        return model
    view = with_own_layers(model)
    for layer in view.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
            layer._parameters = {**layer._parameters, "weight": nn.Parameter(weight, requires_grad=False)}
    return view


def picture_view_bytes(model: nn.Module) -> int:
    """Bytes of the weights that ``picture_view`` copies."""
    if is_shared(model) or not computes_float32_on_cpu(model):
        return 0
    return sum(layer.weight.nbytes for layer in model.modules() if isinstance(layer, nn.Conv2d))


def is_shared(model: nn.Module) -> bool:
    """True if processes share the tensors, which then cannot be laid out anew."""
    return any(type(tensor.data) is not Tensor for tensor in [*model.parameters(), *model.buffers()])


def computes_float32_on_cpu(model: nn.Module) -> bool:
    is_float32 = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in model.parameters())
    return is_float32 and not torch.is_autocast_enabled("cpu")


def with_own_layers(module: M) -> M:
    """A copy that shares all numbers of ``module``; its layers can be replaced."""
    view = copy.copy(module)
    view._modules = {name: None if child is None else with_own_layers(child) for name, child in module._modules.items()}
    return view


def resolved(packing: str) -> tuple[str, str | None]:
    """``packing``, or ``exact`` and a note for the user where this processor has no fast product of that kind."""
    if packing in ("exact", "plain"):
        return packing, None
    if packing not in available():
        return "exact", f"packing={packing} is not available on this processor; exact is used"
    if packing == "bf16" and (ratio := slowdown_of_bf16()) > 2:
        return "exact", f"packing=bf16 is {ratio:.0f} times as slow as float32 on this processor; exact is used"
    return packing, None


def available() -> list[str]:
    """The packings that this build of torch has kernels for on this processor."""
    has = {
        "onednn": torch.backends.mkldnn.is_available(),
        "fp16": "fbgemm" in torch.backends.quantized.supported_engines,
        "bf16": torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    }
    return [name for name, is_here in has.items() if is_here]


@cache
def slowdown_of_bf16() -> float:
    """The time of a product in bf16 over that in float32: about 50 on a processor without units for bf16."""
    weight, x = torch.ones(512, 512), torch.ones(4, 512)
    products = {name: pack(name, weight, None, len(x)) for name in ("plain", "bf16")}
    seconds = dict.fromkeys(products, math.inf)
    for _ in range(ROUNDS):
        for name, product in products.items():
            start = time.perf_counter()
            product(x)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds["bf16"] / seconds["plain"]


def pack_layers(module: nn.Module, packing: str) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child, packing))
        else:
            pack_layers(child, packing)


class PackedLinear(nn.Module):
    """A linear layer that packs its weight when it is first called: what decoding does not call is not packed."""

    def __init__(self, layer: nn.Linear, packing: str) -> None:
        super().__init__()
        self.layer, self.packing = layer, packing
        self.product: Product | None = None

    def forward(self, x: Float[Tensor, "*b d_in"]) -> Float[Tensor, "*b d_out"]:
        if self.product is None:
            weight, bias = self.layer.weight.detach(), self.layer.bias
            packing = exact(weight) if self.packing == "exact" else self.packing
            self.product = pack(packing, weight, None if bias is None else bias.detach(), x.numel() // x.shape[-1])
            del self.layer  # and the memory of a weight that was joined for this view
        return self.product(x)


def packed_bytes(model: nn.Module, products: Sequence[tuple[nn.Linear, ...]], packing: str) -> int:
    """Bytes that a view of ``model`` holds beside the model, at their most, if it calls ``products``.

    Layers of one product are joined, all of them before the first is called; then they may be packed, one by one.
    """
    if is_shared(model):
        return 0
    packing = resolved(packing)[0] if computes_float32_on_cpu(model) else "plain"
    joined = sum(layer.weight.nbytes for each in model.modules() if isinstance(each, Fusable) for layer in each.joined)
    change = 0
    for layers in products:
        own = sum(layer.weight.nbytes for layer in layers)
        chosen = exact(*(layer.weight.detach() for layer in layers)) if packing == "exact" else packing
        before = own if len(layers) > 1 else 0
        change += {"plain": before, "onednn": own}.get(chosen, own // 2) - before
    return joined + max(change, 0)


def exact(*weights: Tensor) -> str:
    """The packing that is fast and draws the same codes, of a weight or of several that are joined."""
    here, numbers = available(), sum(weight.numel() for weight in weights)
    if "fp16" in here and numbers >= smallest_half() and all(map(is_half, weights)):
        return "fp16"
    return "onednn" if "onednn" in here and numbers >= LARGE else "plain"


def smallest_half() -> int:
    """The least numbers of a weight of 16 bits that is packed as such on this processor."""
    return LARGE if torch.backends.cpu.get_cpu_capability() == "AVX512" else LARGE_WITHOUT_AVX512


def is_half(weight: Tensor) -> bool:
    """True if every number of ``weight`` is one of 16 bits, so that storing it as such changes nothing."""
    # A part at a time stays in the caches, and the first other number ends it.
    return all(torch.equal(part.half().float(), part) for part in weight.split(PART))


def pack(
    packing: str, weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None, num_rows: int
) -> Product:
    """The product with ``weight``, laid out for inputs of ``num_rows`` rows."""
    if packing == "plain":
        return partial(F.linear, weight=weight, bias=bias)
    if packing == "fp16":
        half = torch.ops.quantized.linear_prepack_fp16(weight, bias)
        return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, half)
    dtype = torch.bfloat16 if packing == "bf16" else torch.float32
    blocks = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), num_rows)
    added = None if bias is None else bias.to(dtype)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(dtype), blocks, added, "none", [], "").float()
