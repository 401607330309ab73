"""Adversarial losses, and remedies against a discriminator that wins too early."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from storydalle.models import ranks
from storydalle.models.story_gan.existing import existing


def logistic(logits: Float[Tensor, "*n"], is_real: bool) -> Float[Tensor, "*n"]:
    """Binary cross-entropy in nats: ln(1 + e^-x) where the logit x should say real, ln(1 + e^x) where drawn."""
    return F.softplus(-logits if is_real else logits)


def hinge(logits: Float[Tensor, "*n"], is_real: bool) -> Float[Tensor, "*n"]:
    """max(0, 1 - x) for real and max(0, 1 + x) for drawn pictures (Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - logits if is_real else 1 + logits)


LOSSES: dict[str, Callable[[Tensor, bool], Tensor]] = {"logistic": logistic, "hinge": hinge}


def fooled(logits: Float[Tensor, "*n"], loss: str) -> Float[Tensor, "*n"]:
    """The generator's loss that belongs to ``loss``: -x for hinge (Miyato et al. 2018, eq. 17), else ln(1 + e^-x).

    The second is the form that does not saturate (Goodfellow et al. 2014, section 3).
    """
    return -logits if loss == "hinge" else logistic(logits, True)


def character_loss(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "b f k"], mask: Bool[Tensor, "b f"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy in nats, mean over the characters and the n frames that exist.

    -(y ln p + (1 - y) ln(1 - p)) of each character, with p = sigmoid(x).
    """
    targets = existing(labels, mask).to(logits)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)  # n
    return ranks.ratio(losses.sum(), losses.new_tensor(len(losses)), least=1)


def masked(losses: Float[Tensor, "*n"], mask: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Mean over the entries that exist, on all ranks; 0 if there are none."""
    return ranks.ratio((losses * mask).sum(), mask.sum(), least=1)


def gradient_penalty(logits: Float[Tensor, "*n"], frames: Float[Tensor, "b f c h w"]) -> Float[Tensor, ""]:
    """R1 (Mescheder et al. 2018, eq. 9): |dD(x) / dx|^2 / 2 for logits D of true frames x, mean over stories."""
    # A logit depends on its own story alone, so the gradient of the sum holds each story's own gradient.
    (gradient,) = torch.autograd.grad(logits.sum(), frames, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()
