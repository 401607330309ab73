"""Adversarial losses, and remedies against a discriminator that wins too early."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from storydalle.models import ranks
from storydalle.models.story_gan.existing import existing


def logistic(logits: Float[Tensor, "*n"], is_real: bool) -> Float[Tensor, "*n"]:
    """Binary cross-entropy in nats of logits that should say real, ln(1 + e^-x), or drawn, ln(1 + e^x)."""
    return F.softplus(-logits if is_real else logits)


def hinge(logits: Float[Tensor, "*n"], is_real: bool) -> Float[Tensor, "*n"]:
    """Zero from a margin of 1 on."""
    return F.relu(1 - logits if is_real else 1 + logits)


LOSSES: dict[str, Callable[[Tensor, bool], Tensor]] = {"logistic": logistic, "hinge": hinge}


def fooled(logits: Float[Tensor, "*n"], loss: str) -> Float[Tensor, "*n"]:
    """The generator's loss beside a discriminator's ``loss``: the form that does not saturate."""
    return -logits if loss == "hinge" else logistic(logits, True)


def character_loss(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "b f k"], mask: Bool[Tensor, "b f"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy in nats of each character, its mean over characters and the n frames that exist."""
    targets = existing(labels, mask).to(logits)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return ranks.ratio(losses.sum(), losses.new_tensor(len(losses)), least=1)


def masked(losses: Float[Tensor, "*n"], mask: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Mean over what exists, on all ranks; 0 where nothing does."""
    return ranks.ratio((losses * mask).sum(), mask.sum(), least=1)


def gradient_penalty(logits: Float[Tensor, "*n"], frames: Float[Tensor, "b f c h w"]) -> Float[Tensor, ""]:
    """R1 (Mescheder et al. 2018): |dD(x) / dx|^2 / 2 of logits D by true frames x, mean over stories."""
    (gradient,) = torch.autograd.grad(logits.sum(), frames, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()
