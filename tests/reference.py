"""Slow, obvious versions of what the package computes fast."""

import math

import torch
from torch import Tensor

from storydalle.models.backbones.dalle import DALLE


def dalle_logits(backbone: DALLE, tokens: Tensor, codes: Tensor) -> Tensor:
    """Image logits of one caption (t) and one frame (l), position by position and head by head, without padding."""
    x = torch.stack(
        [backbone.tok_emb_txt.weight[token] + backbone.pos_emb_txt.weight[i] for i, token in enumerate(tokens)]
        + [backbone.tok_emb_img.weight[code] + backbone.pos_emb_img.weight[i] for i, code in enumerate(codes)]
    )
    for block in backbone.blocks:
        x = x + causal_attention(block.attn, block.ln1(x))
        x = x + block.mlp(block.ln2(x))
    return backbone.head_img(backbone.ln_f(x))[len(tokens) - 1 : -1]


def causal_attention(attention: torch.nn.Module, x: Tensor) -> Tensor:
    query, key, value = attention.query(x), attention.key(x), attention.value(x)
    head_dim = x.shape[1] // attention.num_heads
    rows = []
    for i in range(len(x)):
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * head_dim, (h + 1) * head_dim)
            scores = torch.stack([query[i, part] @ key[j, part] / math.sqrt(head_dim) for j in range(i + 1)])
            heads.append(scores.softmax(0) @ value[: i + 1, part])
        rows.append(torch.cat(heads))
    return attention.proj(torch.stack(rows))


def kept_by_filters(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> set[int]:
    """The codes that top-k, then top-p among those, leave for one row of logits without ties."""
    order = logits.argsort(descending=True).tolist()[: top_k or len(logits)]
    weights = (logits[order] / temperature).softmax(0).tolist()
    kept, total = set(), 0.0
    for code, weight in zip(order, weights, strict=True):
        if top_p is not None and total >= top_p:
            break
        kept.add(code)
        total += weight
    return kept
