"""Weights of released models of the DALL-E family, tiny and random, under the names and in the shapes of their files;
and what the released code makes of them, in plain calls of torch. Written from descriptions of those files alone."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


class Sizes(NamedTuple):
    """Of a minDALL-E; the defaults are tiny. Heads are 64 wide in the released model, and here as told."""

    dim: int = 16
    depth: int = 3
    heads: int = 2
    words: int = 40
    codes: int = 24
    text: int = 6
    image: int = 16


FULL = Sizes(1536, 42, 24, 16384, 16384, 64, 256)


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int | None = 0) -> Weights:
    """Random numbers that keep activations near 1; without a seed shapes alone."""
    if seed is None:
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        if len(shape) == 1:  # gains and biases
            weights[name] = 1 + 0.1 * drawn if ".ln" in name or name.startswith("ln") else 0.1 * drawn
            if name.endswith("bias"):
                weights[name] = 0.1 * drawn
        else:
            weights[name] = drawn if "emb_" in name else drawn / math.sqrt(shape[1])
    return weights


def block_shapes(prefix: str, dim: int) -> dict[str, tuple[int, ...]]:
    """A block of minDALL-E's transformer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("ln1", "ln2"):
        shapes |= {f"{prefix}{name}.weight": (dim,), f"{prefix}{name}.bias": (dim,)}
    for name in ("key", "query", "value", "proj"):
        shapes |= {f"{prefix}attn.{name}.weight": (dim, dim), f"{prefix}attn.{name}.bias": (dim,)}
    shapes |= {f"{prefix}mlp.0.weight": (4 * dim, dim), f"{prefix}mlp.0.bias": (4 * dim,)}
    return shapes | {f"{prefix}mlp.2.weight": (dim, 4 * dim), f"{prefix}mlp.2.bias": (dim,)}


def stage2_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """minDALL-E's ``stage2_last.ckpt``."""
    dim = sizes.dim
    shapes: dict[str, tuple[int, ...]] = {
        "tok_emb_img.weight": (sizes.codes, dim),
        "tok_emb_txt.weight": (sizes.words, dim),
        "pos_emb_img.weight": (sizes.image, dim),
        "pos_emb_txt.weight": (sizes.text, dim),
    }
    for i in range(sizes.depth):
        shapes |= block_shapes(f"blocks.{i}.", dim)
    shapes |= {"ln_f.weight": (dim,), "ln_f.bias": (dim,)}
    return shapes | {"head_img.weight": (sizes.codes, dim), "head_txt.weight": (sizes.words, dim)}


def block(weights: Weights, prefix: str, x: Tensor, heads: int) -> Tensor:
    """A pre-norm block over (n, d), causal, head by head."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    normed = norm("ln1", x)
    query, key, value = (linear(f"attn.{name}", normed) for name in ("query", "key", "value"))
    width = x.shape[1] // heads
    found = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        scores = query[:, part] @ key[:, part].T / math.sqrt(width)
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
        found.append(scores.softmax(1) @ value[:, part])
    x = x + linear("attn.proj", torch.cat(found, 1))
    return x + linear("mlp.2", F.gelu(linear("mlp.0", norm("ln2", x))))


class Predicted(NamedTuple):
    text: Tensor  # (t - 1, words)
    image: Tensor  # (l, codes)


def stage2_logits(weights: Weights, tokens: Tensor, codes: Tensor, heads: int) -> Predicted:
    """minDALL-E's logits for one caption, padding included, and one frame."""
    x = torch.cat(
        [
            weights["tok_emb_txt.weight"][tokens] + weights["pos_emb_txt.weight"],
            weights["tok_emb_img.weight"][codes] + weights["pos_emb_img.weight"],
        ]
    )
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for i in range(depth):
        x = block(weights, f"blocks.{i}.", x, heads)
    x = F.layer_norm(x, x.shape[-1:], weights["ln_f.weight"], weights["ln_f.bias"])
    num_tokens = len(tokens)
    text = x[: num_tokens - 1] @ weights["head_txt.weight"].T
    return Predicted(text, x[num_tokens - 1 : -1] @ weights["head_img.weight"].T)


def story_vectors(weights: Weights, sentences: Tensor, heads: int) -> Tensor:
    """The released StoryDALL-E's story tokens (f, d) of sentence vectors (f, e): caption i sees those up to i."""
    x = F.linear(sentences, weights["story_linear.weight"], weights["story_linear.bias"])
    return block(weights, "story_block.", x, heads)


def story_logits(weights: Weights, tokens: Tensor, codes: Tensor, story: Tensor | None, heads: int) -> Predicted:
    """The released StoryDALL-E's logits for one frame, its source attention left out; prompts where there are any."""
    ahead = []
    if "wte.weight" in weights:
        x = F.linear(weights["wte.weight"], weights["control_trans.0.weight"], weights["control_trans.0.bias"])
        ahead.append(F.linear(x.tanh(), weights["control_trans.2.weight"], weights["control_trans.2.bias"]))
    if story is not None:
        ahead.append(story[None])
    stage2 = {name.removeprefix("stage2."): value for name, value in weights.items() if name.startswith("stage2.")}
    positions, num_ahead, num_tokens = stage2["pos_emb_txt.weight"], sum(map(len, ahead)), len(tokens)
    ahead = [torch.cat(ahead) + positions[:num_ahead]] if ahead else []
    x = torch.cat(
        [
            *ahead,
            stage2["tok_emb_txt.weight"][tokens] + positions,
            stage2["tok_emb_img.weight"][codes] + stage2["pos_emb_img.weight"],
        ]
    )
    for i in range(1 + max(int(name.split(".")[1]) for name in stage2 if name.startswith("blocks."))):
        x = block(stage2, f"blocks.{i}.", x, heads)
    x = F.layer_norm(x, x.shape[-1:], stage2["ln_f.weight"], stage2["ln_f.bias"])
    text = x[num_ahead : num_ahead + num_tokens - 1] @ stage2["head_txt.weight"].T
    return Predicted(text, x[num_ahead + num_tokens - 1 : -1] @ stage2["head_img.weight"].T)


# ------------------------------------------------------------------------------------------------ min-dalle


class MegaSizes(NamedTuple):
    """Of min-dalle's encoder and decoder; the defaults are tiny."""

    dim: int = 16
    glu: int = 24
    depth: int = 2
    words: int = 340
    rows: int = 25
    text: int = 8
    image: int = 16


FULL_MEGA = MegaSizes(2048, 4096, 24, 50272, 16416, 64, 256)


def mega_shapes(side: str, sizes: MegaSizes) -> dict[str, tuple[int, ...]]:
    """``encoder.pt`` or ``decoder.pt``: bare state dicts, attentions without biases."""
    dim, glu = sizes.dim, sizes.glu
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int = dim) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def attention(name: str) -> None:
        norm(f"{name[: name.rindex('.') + 1]}pre_{name.rpartition('.')[2]}_layer_norm")
        shapes.update({f"{name}.{part}_proj.weight": (dim, dim) for part in ("k", "v", "q", "out")})
        norm(f"{name}_layer_norm")

    is_encoder = side == "encoder"
    shapes["embed_tokens.weight"] = (sizes.words if is_encoder else sizes.rows, dim)
    shapes["embed_positions.weight"] = (sizes.text if is_encoder else sizes.image, dim)
    norm("layernorm_embedding")
    norm("final_ln")
    for i in range(sizes.depth):
        attention(f"layers.{i}.self_attn")
        if not is_encoder:
            attention(f"layers.{i}.encoder_attn")
        norm(f"layers.{i}.glu.ln0")
        norm(f"layers.{i}.glu.ln1", glu)
        shapes |= {f"layers.{i}.glu.{name}.weight": (glu, dim) for name in ("fc0", "fc1")}
        shapes |= {f"layers.{i}.glu.fc2.weight": (dim, glu)}
    if not is_encoder:
        shapes["lm_head.weight"] = (sizes.rows, dim)
    return shapes
