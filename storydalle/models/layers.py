"""Scaled dot-product attention, in the form that is fast on the device at hand."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def attend(
    query: Float[Tensor, "b heads n head_dim"],
    key: Float[Tensor, "b heads m head_dim"],
    value: Float[Tensor, "b heads m head_dim"],
    visible: Bool[Tensor, "#b #heads #n m"] | None = None,
) -> Float[Tensor, "b heads n head_dim"]:
    """softmax(Q K^T / sqrt(head_dim)) V (Vaswani et al. 2017, eq. 1) over the keys that ``visible`` marks.

    ``visible=None`` marks all keys. Each query must see at least one.
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    # On a CPU two plain products are faster than the fused kernel, for its backward pass and for single queries.
    scores = (query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)  # b heads n m
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return scores.softmax(-1).to(value.dtype) @ value


class KeyValues:
    """Keys and values of one self-attention while it decodes, allocated once for all columns."""

    def __init__(self, num_rows: int, num_heads: int, length: int, like: Float[Tensor, "d _"]) -> None:
        """Take width, precision and device from ``like``, a weight of the attention."""
        shape = (num_rows, num_heads, length, like.shape[0] // num_heads)  # b heads m head_dim
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)

    def append(self, key: Tensor, value: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write the new columns at ``start`` and return all columns up to their end."""
        end = start + key.shape[2]
        self.keys[:, :, start:end] = key
        self.values[:, :, start:end] = value
        return self.keys[:, :, :end], self.values[:, :, :end]

    def repeat(self, num_candidates: int, length: int) -> None:
        """Give every row ``num_candidates`` copies; ``length`` columns are filled."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(len(old) * num_candidates, *old.shape[1:])
            new[:, :, :length] = old[:, :, :length].repeat_interleave(num_candidates, 0)  # copies stand side by side
            setattr(self, name, new)
