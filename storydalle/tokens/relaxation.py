"""The relaxation that a discrete VAE is trained by (Ramesh et al. 2021, section 2.1 and appendix A.3).

Codes are drawn in shares, softmax((logits + g) / tau) with Gumbel noise g, forward and backward (Jang et al. 2016,
Maddison et al. 2016). As tau falls, shares become 1 and 0, which are codes.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class Relaxed(Protocol):
    """An image tokenizer whose codes can be drawn in shares."""

    codebook_size: int

    def logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v grid grid"]:
        """One logit a code at every place, for pictures in [-1, 1]."""
        ...

    def relaxed(self, samples: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b m h w"]:
        """The decoder's maps for codes in shares."""
        ...

    def pictures(self, maps: Float[Tensor, "b m h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of the decoder's maps, not clamped to [-1, 1]."""
        ...


def gumbel(uniform: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Gumbel noise -ln(-ln u) of numbers u in [0, 1)."""
    return -(-uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log()).log()


def relaxed_samples(
    logits: Float[Tensor, "b v grid grid"], noise: Float[Tensor, "b v grid grid"], tau: float
) -> Float[Tensor, "b v grid grid"]:
    """Codes in shares, softmax((logits + noise) / tau) over the vocabulary."""
    return ((logits + noise) / tau).softmax(dim=1)


def one_hot_codes(scores: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b v grid grid"]:
    """A share of 1 for the code with the highest score at each place, without gradient."""
    return torch.zeros_like(scores).scatter_(1, scores.argmax(dim=1, keepdim=True), 1.0)


def straight_through(samples: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b v grid grid"]:
    """Whole codes forward, the gradient of the shares backward."""
    return one_hot_codes(samples.detach()) + samples - samples.detach()


def kl_to_uniform(logits: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b grid grid"]:
    """KL(q || uniform) = sum_k q_k (ln q_k + ln K) in nats at each place, q = softmax(logits) without tau and noise."""
    log_q = logits.float().log_softmax(dim=1)
    return (log_q.exp() * log_q).sum(dim=1) + math.log(logits.shape[1])


def logit_laplace_nats(maps: Float[Tensor, "b 6 h w"], pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """-ln p of each colour of pixels x in (0, 1); ``maps`` are three mu, then three ln b (appendix A.3).

    p(x) = exp(-|logit(x) - mu| / b) / (2 b x (1 - x)). It is a density, so the nats of a good prediction are negative.
    """
    mu, log_scale = maps.float().chunk(2, dim=1)
    distance = (pixels.logit() - mu).abs()
    return math.log(2.0) + log_scale + pixels.log() + torch.log1p(-pixels) + distance * (-log_scale).exp()


def squared_errors(pictures: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Of colours from 0 to 1, for pictures in [-1, 1]."""
    return F.mse_loss(pictures.float(), images, reduction="none") / 4.0
