"""Scaled dot-product attention, in the form that is fast on the device at hand."""

import math

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def attend(
    query: Float[Tensor, "b heads n head_dim"],
    key: Float[Tensor, "b heads m head_dim"],
    value: Float[Tensor, "b heads m head_dim"],
    visible: Bool[Tensor, "#b #heads #n m"] | None = None,
) -> Float[Tensor, "b heads n head_dim"]:
    """Attend to the keys that ``visible`` marks (all of them where it is None); each query must see at least one.

    A CPU runs the backward of the fused kernel, and single queries, slower than two plain products.
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    scores = (query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return scores.softmax(-1).to(value.dtype) @ value
