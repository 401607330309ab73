"""Shared by the systems: losses over codes and tokens, the schedule, groups of parameters and their clipping."""

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from storydalle.models import ranks
from storydalle.models.backbones.backbone import Backbone, Logits


class FrameLosses(NamedTuple):
    """Losses of frames, in nats; ``text`` is None where the backbone predicts no text."""

    image: Float[Tensor, ""]
    text: Float[Tensor, ""] | None

    def total(self, text_weight: float | int) -> Float[Tensor, ""]:
        return self.image if self.text is None else self.image + text_weight * self.text

    def named(self, stage: str) -> dict[str, Tensor]:
        """The losses that there are, by the names of the log."""
        named = {f"{stage}/loss_image": self.image}
        return named if self.text is None else named | {f"{stage}/loss_text": self.text}


def frame_losses(
    logits: Logits,
    codes: Int[Tensor, "b l"],
    pad_id: int | None,
    weights: Float[Tensor, "b l"] | None = None,
    exists: Bool[Tensor, " b"] | None = None,
) -> FrameLosses:
    """Loss of the codes, weighted where ``weights`` are given, and of the text where there are logits of it.

    The text of frames that do not exist has no part in it; what ``weights`` are given weighs their codes at 0.
    """
    image = code_loss(logits.image, codes, weights)
    if logits.text is None or logits.text_targets is None:
        return FrameLosses(image, None)
    return FrameLosses(image, text_loss(logits.text, logits.text_targets, pad_id, exists))


def check_text_weight(backbone: Backbone, text_weight: float | int) -> None:
    """Raises ValueError where a text loss is asked of a backbone that has none."""
    if text_weight > 0 and not backbone.predicts_text:
        raise ValueError(f"text_weight={text_weight}: a backbone of kind {backbone.kind} predicts no text; set it to 0")


def code_loss(
    logits: Float[Tensor, "*b l v"], codes: Int[Tensor, "*b l"], weights: Float[Tensor, "*b l"] | None = None
) -> Float[Tensor, ""]:
    """Weighted mean cross-entropy over codes, in nats."""
    losses = code_nats(logits, codes)
    return losses.mean() if weights is None else ranks.ratio((losses * weights).sum(), weights.sum())


def code_nats(logits: Float[Tensor, "*b l v"], codes: Int[Tensor, "*b l"]) -> Float[Tensor, "*b l"]:
    """Cross-entropy of each code, in nats."""
    losses = F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten(), reduction="none")
    return losses.view(codes.shape)


def text_loss(
    logits: Float[Tensor, "b t v"],
    targets: Int[Tensor, "b t"],
    pad_id: int | None,
    exists: Bool[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the tokens that exist, of rows that do; 0 where there are none."""
    ignored = -100 if pad_id is None else pad_id
    if exists is not None:
        targets = targets.masked_fill(~exists[:, None], ignored)
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=ignored, reduction="sum")
    return ranks.ratio(total, (targets != ignored).sum(), least=1)


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, max_steps: int, floor: float = 0.02) -> LambdaLR:
    """The schedule of ``warmup_cosine_factor`` for an optimizer, stepped once an optimizer step."""
    return LambdaLR(optimizer, lambda step: warmup_cosine_factor(step, warmup_steps, max_steps, floor))


def warmup_cosine_factor(step: int, warmup_steps: int, max_steps: int, floor: float) -> float:
    """Linear up to 1 in ``warmup_steps``, then half a cosine down to ``floor`` at ``max_steps``.

    ``(s + 1) / w`` at step s of w; then ``floor + (1 - floor) (1 + cos(pi t)) / 2``, t the share of the other steps.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    share = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def warmup_constant(optimizer: Optimizer, warmup_steps: int, max_steps: int) -> LambdaLR:
    """Linear up to 1 in ``warmup_steps``, ``(s + 1) / w`` at step s, then 1."""
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup_steps)))


def decays(parameter: Tensor) -> bool:
    """Weight decay is for matrices; biases, norms and single vectors are left alone."""
    return parameter.dim() >= 2


def build_adamw(
    groups: Mapping[str, Iterable[Tensor]],
    learning_rates: Mapping[str, float],
    weight_decay: float,
    betas: Sequence[float] = (0.9, 0.98),
    optimizer: str = "adamw",
    undecayed: Sequence[str] = (),
) -> Optimizer:
    """AdamW with one learning rate a named group, each split into what decays and what does not.

    Groups of ``undecayed`` do not decay at all. ``optimizer`` is one of ``OPTIMIZERS``.
    """
    options: list[dict[str, Any]] = []
    for name, parameters in groups.items():
        members = list(parameters)
        for decayed in (True, False):
            chosen = [parameter for parameter in members if (decays(parameter) and name not in undecayed) == decayed]
            decay = weight_decay if decayed else 0.0
            if chosen:
                options.append({"params": chosen, "lr": learning_rates[name], "weight_decay": decay, "name": name})
    first, second = betas
    return OPTIMIZERS[optimizer](options, (first, second))


def fused_adamw(options: list[dict[str, Any]], betas: tuple[float, float]) -> Optimizer:
    return AdamW(options, betas=betas, fused=True)


def eight_bit_adamw(options: list[dict[str, Any]], betas: tuple[float, float]) -> Optimizer:
    """AdamW that keeps its two running means in 8 bits a number (Dettmers et al. 2022)."""
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(options, betas=betas)


def check_optimizer(name: str) -> None:
    """Raises ValueError for an unknown optimizer, and where its library is missing."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer={name} is unknown; choose one of {', '.join(OPTIMIZERS)}")
    if name == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError('optimizer=adamw8bit needs the package bitsandbytes: pip install "storydalle[8bit]"')


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], tuple[float, float]], Optimizer]] = {
    "adamw": fused_adamw,
    "adamw8bit": eight_bit_adamw,
}


def clip_groups(optimizer: Optimizer, max_norm: float | int | None) -> dict[str, Tensor]:
    """Clip the gradient of each named group on its own, not at all for None, and return the norms before it.

    One norm over all parameters would let the large gradient of one path scale the small one of another away.
    """
    members: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        members.setdefault(group["name"], []).extend(p for p in group["params"] if p.grad is not None)
    limit = math.inf if max_norm is None else max_norm
    norms = {name: nn.utils.clip_grad_norm_(group, limit) for name, group in members.items() if group}
    return {name: norm.full_tensor() if isinstance(norm, DTensor) else norm for name, norm in norms.items()}


def train_rows(table: Tensor, rows: Sequence[int]) -> None:
    """Train these rows of a frozen table alone: the others get no gradient, and without decay Adam leaves them."""
    mask = torch.zeros(len(table), 1, dtype=torch.bool)
    mask[list(rows)] = True
    table.requires_grad_(True)
    table.register_hook(lambda gradient: gradient.masked_fill(~mask.to(gradient.device), 0))


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one step: a function of (seed, step), so a resumed run draws the same ones."""
    mixed = (seed * 1_000_003 + step) * 0x9E3779B97F4A7C15 % 2**63
    return torch.Generator(device).manual_seed(mixed)
