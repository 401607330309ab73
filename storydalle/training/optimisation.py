"""Used by several trainings: losses over codes and tokens, schedules, groups of parameters and their clipping."""

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

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
    """Losses of frames, in nats; ``text`` is None if the backbone predicts no text."""

    image: Float[Tensor, ""]
    text: Float[Tensor, ""] | None

    def total(self, text_weight: float | int) -> Float[Tensor, ""]:
        """image + text_weight * text; DALL-E's 7/8 and 1/8 (Ramesh et al. 2021, section 2.2) are text_weight = 1/7."""
        return self.image if self.text is None else self.image + text_weight * self.text

    def named(self, stage: str) -> dict[str, Tensor]:
        """The losses by their names in the log."""
        named = {f"{stage}/loss_image": self.image}
        return named if self.text is None else named | {f"{stage}/loss_text": self.text}


def frame_losses(
    logits: Logits,
    codes: Int[Tensor, "b l"],
    pad_id: int | None,
    weights: Float[Tensor, "b l"] | None = None,
    exists: Bool[Tensor, " b"] | None = None,
) -> FrameLosses:
    """Loss of the codes, weighted by ``weights`` if given, and of the text if there are logits of it.

    ``exists`` leaves the text of frames that do not exist out; ``weights`` must be 0 for their codes.
    """
    image = code_loss(logits.image, codes, weights)
    if logits.text is None or logits.text_targets is None:
        return FrameLosses(image, None)
    return FrameLosses(image, text_loss(logits.text, logits.text_targets, pad_id, exists))


def check_text_weight(backbone: Backbone, text_weight: float | int) -> None:
    """Raise ValueError if a text loss is requested of a backbone that predicts no text."""
    if text_weight > 0 and not backbone.predicts_text:
        raise ValueError(f"text_weight={text_weight}: a backbone of kind {backbone.kind} predicts no text; set it to 0")


def code_loss(
    logits: Float[Tensor, "*b l v"], codes: Int[Tensor, "*b l"], weights: Float[Tensor, "*b l"] | None = None
) -> Float[Tensor, ""]:
    """Weighted mean cross-entropy over codes in nats, sum_i w_i CE_i / sum_i w_i."""
    losses = code_nats(logits, codes)
    return losses.mean() if weights is None else ranks.ratio((losses * weights).sum(), weights.sum())


def code_nats(logits: Float[Tensor, "*b l v"], codes: Int[Tensor, "*b l"]) -> Float[Tensor, "*b l"]:
    """Cross-entropy of each code, in nats."""
    losses = F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten(), reduction="none")  # (b l)
    return losses.view(codes.shape)


def text_loss(
    logits: Float[Tensor, "b t v"],
    targets: Int[Tensor, "b t"],
    pad_id: int | None,
    exists: Bool[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over tokens that are no padding, in rows that exist; 0 if there are none."""
    ignored = -100 if pad_id is None else pad_id  # a backbone without pad_id learns its padding too
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
    share = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))  # t
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def warmup_constant(optimizer: Optimizer, warmup_steps: int, max_steps: int) -> LambdaLR:
    """Linear up to 1 in ``warmup_steps``, ``(s + 1) / w`` at step s, then 1."""
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup_steps)))


def decays(parameter: Tensor) -> bool:
    """True for matrices; biases, norms and single vectors have no weight decay."""
    return parameter.dim() >= 2


def build_adamw(
    groups: Mapping[str, Iterable[Tensor]],
    learning_rates: Mapping[str, float],
    weight_decay: float,
    betas: Sequence[float] = (0.9, 0.98),
    optimizer: str = "adamw",
    undecayed: Sequence[str] = (),
) -> Optimizer:
    """AdamW with one learning rate for each named group; a group is split by weight decay (``decays``).

    Groups named in ``undecayed`` have none at all. ``optimizer`` is one of ``OPTIMIZERS``.
    """
    options: list[dict[str, object]] = []
    for name, parameters in groups.items():
        members = list(parameters)
        for decayed in (True, False):
            chosen = [parameter for parameter in members if (decays(parameter) and name not in undecayed) == decayed]
            decay = weight_decay if decayed else 0.0
            if chosen:
                options.append({"params": chosen, "lr": learning_rates[name], "weight_decay": decay, "name": name})
    first, second = betas
    return OPTIMIZERS[optimizer](options, (first, second))


def fused_adamw(options: list[dict[str, object]], betas: tuple[float, float]) -> Optimizer:
    return AdamW(options, betas=betas, fused=True)


def eight_bit_adamw(options: list[dict[str, object]], betas: tuple[float, float]) -> Optimizer:
    """AdamW with its two running means in 8 bits a number (Dettmers et al. 2022)."""
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(options, betas=betas)


def check_optimizer(name: str) -> None:
    """Raise ValueError for an unknown optimizer, or if its library is missing."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer={name} is unknown; choose one of {', '.join(OPTIMIZERS)}")
    if name == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError('optimizer=adamw8bit needs the package bitsandbytes: pip install "storydalle[8bit]"')


OPTIMIZERS: dict[str, Callable[[list[dict[str, object]], tuple[float, float]], Optimizer]] = {
    "adamw": fused_adamw,
    "adamw8bit": eight_bit_adamw,
}


def clip_groups(optimizer: Optimizer, max_norm: float | int | None) -> dict[str, Tensor]:
    """Clip the gradient of each named group on its own (not at all for None); return the norms before clipping.

    With one norm over all parameters, the large gradient of one group would scale the small one of another to nothing.
    """
    members: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        members.setdefault(group["name"], []).extend(p for p in group["params"] if p.grad is not None)
    limit = math.inf if max_norm is None else max_norm
    norms = {name: nn.utils.clip_grad_norm_(group, limit) for name, group in members.items() if group}
    return {name: norm.full_tensor() if isinstance(norm, DTensor) else norm for name, norm in norms.items()}


def train_rows(table: Tensor, rows: Sequence[int]) -> None:
    """Train only these rows of a frozen table: others get no gradient, and without decay Adam does not move them."""
    mask = torch.zeros(len(table), 1, dtype=torch.bool)
    mask[list(rows)] = True
    table.requires_grad_(True)
    table.register_hook(lambda gradient: gradient.masked_fill(~mask.to(gradient.device), 0))


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one step: a function of (seed, step), so a resumed run draws the same ones."""
    mixed = (seed * 1_000_003 + step) * 0x9E3779B97F4A7C15 % 2**63  # spreads near seeds over all bits
    return torch.Generator(device).manual_seed(mixed)
