"""What the systems share of optimisation: losses over codes and tokens, the schedule, groups and their clipping."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from storydalle.backbones.backbone import Backbone, Logits


class FrameLosses(NamedTuple):
    """Losses of frames, in nats; ``text`` is None where the backbone predicts no text."""

    image: Float[Tensor, ""]
    text: Float[Tensor, ""] | None

    def total(self, text_weight: float | int) -> Float[Tensor, ""]:
        return self.image if self.text is None else self.image + text_weight * self.text

    def named(self, stage: str) -> dict[str, Tensor]:
        """What there is, by the names of the log."""
        named = {f"{stage}/loss_image": self.image}
        return named if self.text is None else named | {f"{stage}/loss_text": self.text}


def frame_losses(
    logits: Logits, codes: Int[Tensor, "b l"], pad_id: int | None, weights: Float[Tensor, "b l"] | None = None
) -> FrameLosses:
    """Loss of the codes, weighted where ``weights`` are given, and of the text where there are logits of it."""
    image = code_loss(logits.image, codes, weights)
    if logits.text is None or logits.text_targets is None:
        return FrameLosses(image, None)
    return FrameLosses(image, text_loss(logits.text, logits.text_targets, pad_id))


def check_text_weight(backbone: Backbone, text_weight: float | int) -> None:
    """Raises ValueError where a text loss is asked of a backbone that has none."""
    if text_weight > 0 and not backbone.predicts_text:
        raise ValueError(f"text_weight={text_weight}: a backbone of kind {backbone.kind} predicts no text; set it to 0")


def code_loss(
    logits: Float[Tensor, "*b l v"], codes: Int[Tensor, "*b l"], weights: Float[Tensor, "*b l"] | None = None
) -> Float[Tensor, ""]:
    """Weighted mean cross-entropy over codes, in nats."""
    losses = code_nats(logits, codes)
    return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()


def code_nats(logits: Float[Tensor, "*b l v"], codes: Int[Tensor, "*b l"]) -> Float[Tensor, "*b l"]:
    """Cross-entropy of each code, in nats."""
    losses = F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten(), reduction="none")
    return losses.view(codes.shape)


def text_loss(logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"], pad_id: int | None) -> Float[Tensor, ""]:
    """Mean cross-entropy over the tokens that exist; 0 where there are none."""
    ignored = -100 if pad_id is None else pad_id
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=ignored, reduction="sum")
    return total / (targets != ignored).sum().clamp(min=1)


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, max_steps: int, floor: float = 0.02) -> LambdaLR:
    """The schedule of ``warmup_cosine_factor`` for an optimizer, stepped once an optimizer step."""
    return LambdaLR(optimizer, lambda step: warmup_cosine_factor(step, warmup_steps, max_steps, floor))


def warmup_cosine_factor(step: int, warmup_steps: int, max_steps: int, floor: float) -> float:
    """Linear from 0 to 1 in ``warmup_steps``, then half a cosine down to ``floor`` at ``max_steps``."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    share = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def decays(parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices; biases, norms and single vectors are left alone."""
    return parameter.dim() >= 2


def build_adamw(
    groups: Mapping[str, Iterable[nn.Parameter]], learning_rates: Mapping[str, float], weight_decay: float
) -> AdamW:
    """AdamW with one learning rate a named group, each split into what decays and what does not."""
    options = []
    for name, parameters in groups.items():
        members = list(parameters)
        for decayed in (True, False):
            chosen = [parameter for parameter in members if decays(parameter) == decayed]
            decay = weight_decay if decayed else 0.0
            if chosen:
                options.append({"params": chosen, "lr": learning_rates[name], "weight_decay": decay, "name": name})
    return AdamW(options, betas=(0.9, 0.98), fused=True)


def clip_groups(optimizer: Optimizer, max_norm: float) -> dict[str, Tensor]:
    """Clip the gradient of each named group on its own and return the norms before it.

    One norm over all parameters would let the large gradient of one path scale the small one of another away.
    """
    members: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        members.setdefault(group["name"], []).extend(p for p in group["params"] if p.grad is not None)
    return {name: nn.utils.clip_grad_norm_(group, max_norm) for name, group in members.items() if group}


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one step: a function of (seed, step), so a resumed run draws the same ones."""
    mixed = (seed * 1_000_003 + step) * 0x9E3779B97F4A7C15 % 2**63
    return torch.Generator(device).manual_seed(mixed)
