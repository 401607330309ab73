"""Scaled dot-product attention, in the form that is fast on the device at hand, and its cache while codes are drawn."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def attend(
    query: Float[Tensor, "b heads n head_dim"],
    key: Float[Tensor, "b heads m head_dim"],
    value: Float[Tensor, "b heads m head_dim"],
    visible: Bool[Tensor, "#b #heads #n m"] | Float[Tensor, "#b #heads #n m"] | None = None,
) -> Float[Tensor, "b heads n head_dim"]:
    """softmax(Q K^T / sqrt(head_dim)) V (Vaswani et al. 2017, eq. 1) over the keys that ``visible`` marks.

    ``visible=None`` marks all keys. Each query must see at least one. Numbers in place of marks are added to the
    scores: 0 for a key that is seen, -inf for one that is not.
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    # On a CPU two plain products are faster than the fused kernel, for its backward pass and for single queries.
    weights = scores(query, key, visible).softmax(-1).to(value.dtype)  # b heads n m
    return weights @ value


def scores(query: Tensor, key: Tensor, visible: Tensor | None = None) -> Float[Tensor, "b heads n m"]:
    """Q K^T / sqrt(head_dim), as ``attend`` weighs it."""
    shape, scale = (*query.shape[:3], key.shape[2]), 1 / math.sqrt(query.shape[-1])
    query, key = query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2)  # (b heads) n head_dim, (b heads) head_dim m
    if visible is None or visible.dtype == torch.bool:
        found = torch.baddbmm(query.new_empty(1), query, key, beta=0, alpha=scale).view(shape)
        return found if visible is None else found.masked_fill(~visible, float("-inf"))
    return torch.baddbmm(visible.expand(shape).flatten(0, 1), query, key, alpha=scale).view(shape)


def hidden(visible: Bool[Tensor, "b m"], like: Tensor) -> Float[Tensor, "b 1 1 m"] | None:
    """``visible`` as numbers to add to the scores; None where everything is seen, which costs nothing."""
    if visible.all():
        return None
    return like.new_zeros(visible.shape).masked_fill(~visible, float("-inf"))[:, None, None]


def seen_from(columns: Int[Tensor, "r n"], like: Tensor) -> Float[Tensor, "r 1 n m"]:
    """Each column sees itself and all before it, as numbers to add to the scores; m ends at the last of ``columns``."""
    every = torch.arange(int(columns.max()) + 1, device=columns.device)
    seen = every <= columns[:, None, :, None]  # r 1 n m
    return like.new_zeros(seen.shape).masked_fill(~seen, float("-inf"))


class KeyValues:
    """Keys and values of one self-attention while it decodes, allocated once for all columns.

    The rows of a prompt are computed once. ``repeat`` gives each of them candidates, which share the prompt's keys and
    values: they become more queries of one product, and nothing is copied.
    """

    def __init__(self, num_rows: int, num_heads: int, length: int, like: Float[Tensor, "d _"]) -> None:
        """Take width, precision and device from ``like``, a weight of the attention."""
        shape = (num_rows, num_heads, length, like.shape[0] // num_heads)  # b heads m head_dim
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        self.length = 0  # columns filled
        self.prompt: tuple[Tensor, Tensor] | None = None  # b heads m head_dim each; then keys are b heads k m head_dim
        self.columns: Int[Tensor, "r n"] | None = None

    def repeat(self, num_candidates: int) -> None:
        """Give every row ``num_candidates`` rows, side by side, that begin with what it holds."""
        if num_candidates == 1:
            return
        num_rows, num_heads, length, head_dim = self.keys.shape
        # Copied, so that the columns that were meant for codes are given back.
        self.prompt = self.keys[:, :, : self.length].clone(), self.values[:, :, : self.length].clone()
        shape = (num_rows, num_heads, num_candidates, length - self.length, head_dim)
        self.keys, self.values, self.length = self.keys.new_empty(shape), self.keys.new_empty(shape), 0

    def place(self, columns: Int[Tensor, "r n"]) -> None:
        """Put the next inputs of each row into columns of its own; what stood there is replaced."""
        if self.columns is None:  # hidden columns have weight 0, but 0 times a nan that was never written is nan
            self.keys[:, :, self.length :] = self.values[:, :, self.length :] = 0
        self.columns = columns

    def attend(
        self,
        query: Float[Tensor, "r heads n head_dim"],
        key: Float[Tensor, "r heads n head_dim"],
        value: Float[Tensor, "r heads n head_dim"],
        visible: Tensor | None,
    ) -> Float[Tensor, "r heads n head_dim"]:
        """Attention to all columns so far, and to the new ones, which are kept."""
        if self.prompt is not None:
            return self._attend_as_candidates(query, key, value, visible)
        if self.columns is not None:
            return self._attend_in_place(query, key, value, visible)
        end = self.length + key.shape[2]
        self.keys[:, :, self.length : end], self.values[:, :, self.length : end] = key, value
        self.length = end
        seen = None if visible is None else visible[..., :end]
        return attend(query, self.keys[:, :, :end], self.values[:, :, :end], seen)

    def _attend_in_place(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Float[Tensor, "r 1 n m"] | None
    ) -> Float[Tensor, "r heads n head_dim"]:
        assert visible is not None, "rows differ in what their inputs see"
        rows, end = torch.arange(len(key), device=key.device)[:, None], visible.shape[-1]
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[rows, :, self.columns] = new.transpose(1, 2).to(kept.dtype)  # r n heads head_dim
        return attend(query, self.keys[:, :, :end], self.values[:, :, :end], visible)

    def _attend_as_candidates(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Float[Tensor, "b 1 1 m"] | None
    ) -> Float[Tensor, "r heads 1 head_dim"]:
        """One softmax over the prompt, which a row's candidates share, and the columns of each candidate."""
        assert self.prompt is not None
        num_rows, num_heads, num_candidates, _, head_dim = self.keys.shape
        by_candidate = (num_rows, num_candidates, num_heads, head_dim)
        query, key, value = (x.reshape(by_candidate).transpose(1, 2) for x in (query, key, value))  # b heads k head_dim
        query = query.contiguous()
        self.keys[:, :, :, self.length], self.values[:, :, :, self.length] = key, value
        self.length += 1
        keys, values = (x[:, :, :, : self.length].flatten(1, 2) for x in (self.keys, self.values))  # b (heads k) n .
        prompt_keys, prompt_values = self.prompt
        num_prompt = prompt_keys.shape[2]
        to_prompt = scores(query, prompt_keys, None if visible is None else visible[..., :num_prompt])  # b heads k m
        to_own = scores(query.flatten(1, 2)[:, :, None], keys).view(*query.shape[:3], -1)  # b heads k n
        of_prompt, of_own = torch.cat([to_prompt, to_own], -1).softmax(-1).split([num_prompt, self.length], -1)
        found = of_prompt @ prompt_values + (of_own.flatten(1, 2)[:, :, None] @ values).view(query.shape)
        return found.transpose(1, 2).reshape(-1, num_heads, 1, head_dim)  # (b k) heads 1 head_dim
