"""The sampling loop of the released StoryDALL-E, written again as plainly as it is: what our decoding is compared with.

It works with the weights of our model and draws the same codes. Its costs are those of the released program
(StoryDALL-E's copy of minDALL-E, ``sampling.py`` and ``layers.py``): every candidate has a prompt of its own; the keys
and values of all steps are kept in a list that is joined anew in every step, and joined with the newest in every block;
the source frame's keys and values are computed again in every block and step; and the whole vocabulary is sorted.

Differs from the released program: the source attention acts on every code, which is what the paper describes. There the
mask of a decoding step is empty, so that it acts on the first code alone.
"""

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from storydalle.models.backbones.dalle import DALLE, Block, SelfAttention
from storydalle.models.drawing import Progress
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import CodeSampling, Prompt, uniforms
from storydalle.models.story_dalle.source_attention import SourceCrossAttention


@torch.inference_mode()
def released_sample(
    model: RetrofittedDALLE,
    prompt: Prompt,
    num_candidates: int,
    sampling: CodeSampling,
    progress: Progress | None = None,
) -> Int[Tensor, "r k l"]:
    """Codes of every frame and candidate, as ``sampling.sample`` draws them."""
    backbone = cast(DALLE, model.backbone)
    length, num_rows = backbone.image_length, len(prompt.keys)
    uniform = uniforms(prompt.keys, range(num_candidates), length).flatten(0, 1)  # (r k) l
    prefix, visible, source = repeated(model, prompt, num_candidates)
    history: list[Tensor] = []  # of each step: depth 2 (r k) heads n head_dim
    codes: list[Tensor] = []
    for position in range(length):
        x = prefix if not codes else backbone.embed_codes(codes[-1][:, None], position - 1)
        if codes and visible is not None:
            visible = F.pad(visible, (0, 1), value=True)
        # Only the last column of a prompt predicts a code.
        x, present = step(model, x, source, torch.cat(history, -2) if history else None, visible, x.shape[1] - 1)
        history.append(present)
        logits = backbone.head_img(backbone.ln_f(x))[:, -1]
        codes.append(drawn(logits, uniform[:, position], sampling))
        if progress is not None:
            progress(position + 1, length)
    return torch.stack(codes, -1).view(num_rows, num_candidates, length)


class Embedded(NamedTuple):
    """The columns that every row reads before its codes; ``visible`` is None without a padding token."""

    prompt: Float[Tensor, "r n d"]
    visible: Bool[Tensor, "r n"] | None
    source: Float[Tensor, "r m d"] | None


def repeated(model: RetrofittedDALLE, prompt: Prompt, num_candidates: int) -> Embedded:
    """The embedded prompt and source of every row: a copy for each candidate."""
    backbone, tokens = cast(DALLE, model.backbone), prompt.tokens.flatten(0, 1)
    num_stories, num_frames = prompt.tokens.shape[:2]
    parts = [] if prompt.story is None else [prompt.story.flatten(0, 1)]
    text = backbone.embed_tokens(tokens) + backbone.pos_emb_txt.weight[: tokens.shape[1]]
    rows = torch.cat([*parts, text], 1).repeat_interleave(num_candidates, 0)
    visible = None
    if backbone.pad_id is not None:
        visible = F.pad(tokens != backbone.pad_id, (sum(part.shape[1] for part in parts), 0), value=True)
        visible = visible.repeat_interleave(num_candidates, 0)
    if prompt.source is None or not len(model.source_attention):
        return Embedded(rows, visible, None)
    source = backbone.embed_codes(prompt.source.flatten(0, 1)).unflatten(0, (num_stories, -1)).flatten(1, 2)
    return Embedded(rows, visible, source.repeat_interleave(num_frames * num_candidates, 0))


def step(
    model: RetrofittedDALLE, x: Tensor, source: Tensor | None, past: Tensor | None, visible: Tensor | None, first: int
) -> tuple[Float[Tensor, "r n d"], Float[Tensor, "depth two r heads n head_dim"]]:
    """All blocks for the newest columns; what they have computed so far is ``past``.

    The columns from ``first`` on predict codes, and attend to the source.
    """
    presents = []
    for i in range(model.backbone.depth):
        x, present = block(model, i, x, source, None if past is None else past[i], visible, first)
        presents.append(present)
    return x, torch.stack(presents)


def block(
    model: RetrofittedDALLE,
    index: int,
    x: Tensor,
    source: Tensor | None,
    past: Tensor | None,
    visible: Tensor | None,
    first: int,
) -> tuple[Float[Tensor, "r n d"], Float[Tensor, "two r heads n head_dim"]]:
    layer = cast(Block, model.backbone.blocks[index])  # type: ignore[index]
    attended, present = self_attention(layer.attn, layer.ln1(x), past, visible)
    x = x + attended
    if source is not None and str(index) in model.source_attention:
        attention = cast(SourceCrossAttention, model.source_attention[str(index)])
        x = torch.cat([x[:, :first], x[:, first:] + source_attention(attention, x[:, first:], source)], 1)
    return x + layer.mlp(layer.ln2(x)), present


def heads_of(x: Float[Tensor, "r n d"], num_heads: int) -> Float[Tensor, "r heads n head_dim"]:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def self_attention(
    layer: SelfAttention, x: Tensor, past: Tensor | None, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    query, key, value = (heads_of(part(x), layer.num_heads) for part in (layer.query, layer.key, layer.value))
    present = torch.stack([key, value])
    if past is not None:
        key, value = torch.cat([past[0], key], -2), torch.cat([past[1], value], -2)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    num_new, num_all = scores.shape[-2:]
    seen = torch.ones(num_new, num_all, device=x.device).tril(num_all - num_new)
    if visible is not None:  # no column sees padding but that padding itself
        itself = seen - seen.tril(num_all - num_new - 1)
        seen = torch.maximum(seen * visible[:, None, None], itself)  # r 1 n m
    weights = F.softmax(scores.masked_fill(seen == 0, float("-inf")), -1)
    return layer.proj((weights @ value).transpose(1, 2).flatten(2)), present


def source_attention(layer: SourceCrossAttention, x: Tensor, source: Tensor) -> Tensor:
    context = layer.ln2(source)
    query = heads_of(layer.query(layer.ln1(x)), layer.num_heads)
    key, value = (heads_of(part(context), layer.num_heads) for part in (layer.key, layer.value))
    weights = F.softmax(query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]), -1)
    return layer.proj((weights @ value).transpose(1, 2).flatten(2))


def drawn(logits: Float[Tensor, "r v"], uniform: Float[Tensor, " r"], sampling: CodeSampling) -> Int[Tensor, " r"]:
    """A code a row: filters over the sorted vocabulary, then the inverse of the cumulative distribution."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits.double() / sampling.temperature
    by_size, order = logits.sort(-1, descending=True)
    is_filtered = sampling.top_p is not None or (sampling.top_k or logits.shape[-1]) < logits.shape[-1]
    weights = by_size[:, : sampling.top_k].softmax(-1)
    if sampling.top_p is not None:
        weights = weights.masked_fill(weights.cumsum(-1) - weights >= sampling.top_p, 0)
    if not is_filtered:  # ours then draws in the order of the codes
        weights, order = logits.softmax(-1), torch.arange(logits.shape[-1], device=logits.device).expand_as(order)
    cumulative = weights.cumsum(-1)
    place = (cumulative <= uniform.to(cumulative)[:, None] * cumulative[:, -1:]).sum(-1)
    return order.gather(-1, place.clamp(max=weights.shape[-1] - 1)[:, None]).squeeze(-1)
