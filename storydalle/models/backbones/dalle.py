"""minDALL-E's transformer: caption tokens and image codes in one causal sequence, ``[prefix | text | image]``.

Two vocabularies with an embedding table, a position table and a bias-free head each; pre-LN GPT blocks.
It knows nothing of stories. A story enters in two places: ``prefix`` embeddings ahead of the text, and one ``hook`` a
block, called after the self-attention residual at the positions that predict a code.
Parameter names are the keys of the released checkpoint (minDALL-E 1.3B, stage 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from storydalle.configured import NetworkSettings
from storydalle.models.backbones.backbone import Backbone, Codes, Hook, Logits, Words, init_weights, through
from storydalle.models.kept import KeptByBlock, StepSizes, trains
from storydalle.models.layers import KeyValues, attend, hidden, seen_from
from storydalle.models.packing import Fusable


class Cache:
    """The decoding state: what every block has computed so far, and which columns of the prompt may be seen."""

    def __init__(self, backbone: "DALLE", num_rows: int, length: int) -> None:
        weights = [cast(Block, block).attn.proj.weight for block in backbone.blocks]
        self.blocks = [KeyValues(num_rows, backbone.num_heads, length, weight) for weight in weights]
        self.hidden: Float[Tensor, "b 1 1 m"] | None = None  # added to the scores of a prompt's columns
        self.num_codes = 0  # codes read
        self.positions: Int[Tensor, "r n"] | None = None  # of the next codes; by default one code follows the last

    def place(self, positions: Int[Tensor, "r n"]) -> None:
        self.positions = positions
        for block in self.blocks:
            block.place(block.length + positions)

    def visible(self, like: Tensor) -> Float[Tensor, "r 1 n m"] | None:
        """The columns that the next codes see, as ``attend`` takes them."""
        columns = self.blocks[0].columns
        if columns is None:  # the newest code sees all codes so far, and the columns of the prompt that are not hidden
            return self.hidden
        seen = seen_from(columns, like)
        return seen if self.hidden is None else seen + self.hidden[..., : seen.shape[-1]]

    def repeat(self, num_candidates: int) -> None:
        """Give every row ``num_candidates`` rows: the prompt is prefilled once and shared by its candidates."""
        for block in self.blocks:
            block.repeat(num_candidates)


class SelfAttention(Fusable):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is no multiple of {num_heads} heads; choose dim = num_heads * head_dim")
        self.num_heads = num_heads
        self.key = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.fused: nn.Linear | None = None  # the three in one, in a view for decoding

    @property
    def joined(self) -> tuple[nn.Linear, ...]:
        return self.query, self.key, self.value

    def fuse(self) -> None:
        self.fused = nn.Linear(1, 1, device="meta")
        weight, bias = self.fused_projection()
        self.fused.weight, self.fused.bias = nn.Parameter(weight), nn.Parameter(bias)

    def fused_projection(self) -> tuple[Tensor, Tensor]:
        """Join weight and bias of query, key and value: one product instead of three, and one read of the input."""
        weights, biases = zip(*((layer.weight, layer.bias) for layer in self.joined), strict=True)
        return torch.cat(weights), torch.cat(biases)  # (3 d) d, and 3 d

    def forward(self, x: Tensor, visible: Tensor | None, cache: KeyValues | None = None) -> Tensor:
        projected = F.linear(x, *self.fused_projection()) if self.fused is None else self.fused(x)  # b n (3 d)
        by_head = projected.unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3)  # b heads 3 n head_dim
        query, key, value = by_head.unbind(2)
        attention = attend if cache is None else cache.attend
        return self.proj(attention(query, key, value, visible).transpose(1, 2).flatten(2))  # b n d


class Block(nn.Module):
    """A pre-LN GPT block; ``hook`` adds to the residual stream from column ``first`` on, before the MLP."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(dim)
        self.ln2 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        visible: Tensor | None,
        hook: Hook | None = None,
        first: int = 0,
        cache: KeyValues | None = None,
    ) -> Float[Tensor, "b n d"]:
        """``visible`` as ``attend`` takes it."""
        x = x + self.attn(self.ln1(x), visible, cache)
        if hook is not None:
            predicting = x[:, first:]  # the positions whose output predicts a code
            hooked = predicting + hook(predicting)
            x = torch.cat([x[:, :first], hooked], 1) if first else hooked
        return x + self.mlp(self.ln2(x))

    def kept(self, num_rows: int, columns: int, step: StepSizes) -> KeptByBlock:
        """Inside: queries, keys, values (3) and the hidden layer (4); to train weights also the input of each product
        (7). The weights of query, key and value are copied when they are joined.
        """
        square, is_trained = self.attn.proj.weight.numel(), trains(self)
        return KeptByBlock(
            positions=num_rows * columns,
            stream=2,
            inside=14 if is_trained else 7,
            scores=num_rows * self.attn.num_heads * columns**2 if step.keeps_scores else 0,
            copies=12 * square if step.precision.is_mixed else 3 * square,
            apart=0,
            widest=4 if is_trained else 8,
        )


@dataclass(frozen=True)
class DALLESettings(NetworkSettings):
    """The defaults are minDALL-E 1.3B.

    ``pad_id`` makes padding invisible to every other position, and drops columns that hold nothing but padding
    (except the last one, which predicts the first code). minDALL-E attends to its padding: leave it None there.
    ``tie_codes`` uses one table for the embedding and the head of the codes. Source attention must learn to copy codes;
    with one table a single linear map copies all of them. minDALL-E has two tables.
    ``codes_of`` is the kind of image tokenizer whose codes these are.
    ``prefix_positions`` adds the text's first positions to the prefix, as the released StoryDALL-E does.
    """

    text_vocab_size: int = 16384
    image_vocab_size: int = 16384
    text_length: int = 64
    image_length: int = 256
    dim: int = 1536
    depth: int = 42
    num_heads: int = 24
    pad_id: int | None = None
    tie_codes: bool = False
    codes_of: str | None = None
    prefix_positions: bool = False


class DALLE(Backbone):
    """The text-to-image transformer, of ``DALLESettings``."""

    kind = "dalle"
    predicts_text = True
    settings: DALLESettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = DALLESettings.of(*values, **named)
        self.text_vocab_size, self.num_codes = settings.text_vocab_size, settings.image_vocab_size
        self.text_length, self.image_length = settings.text_length, settings.image_length
        self.pad_id, self.codes_of = settings.pad_id, settings.codes_of
        self.dim, self.depth, self.num_heads = settings.dim, settings.depth, settings.num_heads
        self.tok_emb_img = nn.Embedding(self.num_codes, self.dim)
        self.tok_emb_txt = nn.Embedding(self.text_vocab_size, self.dim)
        self.pos_emb_img = nn.Embedding(self.image_length, self.dim)
        self.pos_emb_txt = nn.Embedding(self.text_length, self.dim)
        self.blocks = nn.ModuleList(Block(self.dim, self.num_heads) for _ in range(self.depth))
        self.ln_f = nn.LayerNorm(self.dim)
        self.head_img = nn.Linear(self.dim, self.num_codes, bias=False)
        self.head_txt = nn.Linear(self.dim, self.text_vocab_size, bias=False)
        self._init_weights()

    def _init_weights(self) -> None:
        """minDALL-E's initialisation; one table of codes instead of two where they are tied."""
        self.apply(init_weights)
        if self.settings.tie_codes:
            self.head_img.weight = self.tok_emb_img.weight

    @classmethod
    def sized(cls, words: Words, codes: Codes, **sizes: object) -> "DALLE":
        settings = {**words._asdict(), **codes._asdict()}
        return cls(image_vocab_size=settings.pop("num_codes"), **settings, **sizes)

    @property
    def word_tables(self) -> list[nn.Embedding | nn.Linear]:
        return [self.tok_emb_txt, self.head_txt]

    @property
    def code_table(self) -> Float[Tensor, "v d"]:
        return self.tok_emb_img.weight

    @property
    def all_blocks(self) -> list[nn.Module]:
        return list(self.blocks)

    def kept(self, step: StepSizes, num_prefix: int) -> list[KeptByBlock]:
        columns = num_prefix + step.text_columns + self.image_length - 1  # the last code is not read
        return [cast(Block, block).kept(step.num_rows, columns, step) for block in self.blocks]

    @property
    def step_layers(self) -> list[tuple[nn.Linear, ...]]:
        found: list[tuple[nn.Linear, ...]] = [(self.head_img,)]
        for block in self.blocks:
            attention, mlp = cast(Block, block).attn, cast(Block, block).mlp
            found.append(attention.joined)
            found += [(layer,) for layer in (attention.proj, *mlp) if isinstance(layer, nn.Linear)]
        return found

    @property
    def hidden_tensors(self) -> int:
        return 8  # four times as wide, before and after its activation

    def new_cache(self, num_rows: int, num_columns: int) -> Cache:
        return Cache(self, num_rows, num_columns + self.image_length)

    def embed_tokens(self, tokens: Int[Tensor, "*b t"]) -> Float[Tensor, "*b t d"]:
        return self.tok_emb_txt(tokens)

    def embed_codes(self, codes: Int[Tensor, "b l"], start: int = 0) -> Float[Tensor, "b l d"]:
        return self.tok_emb_img(codes) + self.pos_emb_img.weight[start : start + codes.shape[1]]

    def used_columns(self, tokens: Int[Tensor, "b t"]) -> Int[Tensor, " t_used"]:
        """Indices of the text columns that have to be computed: those with a token in some row, and the last one."""
        if self.pad_id is None:
            return torch.arange(tokens.shape[1], device=tokens.device)
        used = (tokens != self.pad_id).any(0)
        used[-1] = True
        return used.nonzero().squeeze(1)

    def forward(
        self,
        tokens: Int[Tensor, "b t"] | None,
        codes: Int[Tensor, "b l"] | None = None,
        prefix: Float[Tensor, "b p d"] | None = None,
        hooks: Sequence[Hook | None] | None = None,
        cache: Cache | None = None,
    ) -> Logits:
        x, mask, first, targets = self._embed(tokens, codes, prefix, cache)
        recompute = self.activation_checkpointing and cache is None
        for i, block in enumerate(self.blocks):
            hook = hooks[i] if hooks is not None else None
            memory = None if cache is None else cache.blocks[i]
            x = through(block, x, mask, hook, first, memory, recompute=recompute)
        x = self.ln_f(x)
        num_prefix = 0 if prefix is None else prefix.shape[1]
        # Text is only trained on, never sampled: with a cache its logits are not computed.
        text = self.head_txt(x[:, num_prefix:first]) if cache is None else None  # b (t - 1) v_text
        return Logits(text, self.head_img(x[:, first:]), targets)  # column i of x predicts column i + 1

    def _embed(
        self, tokens: Tensor | None, codes: Tensor | None, prefix: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor | None, int, Tensor | None]:
        """Embed the sequence; return it, its mask, the first column that predicts a code, and text targets."""
        if tokens is None:
            assert codes is not None and cache is not None, "without tokens this is a decoding step"
            return self._embed_next(codes, cache), cache.visible(self.code_table), 0, None
        self.check_captions(tokens)
        columns = self.used_columns(tokens)
        tokens = tokens[:, columns]  # the columns that are left keep their own positions
        parts = [self.tok_emb_txt(tokens) + self.pos_emb_txt(columns)]
        seen = [torch.ones_like(tokens, dtype=torch.bool) if self.pad_id is None else tokens != self.pad_id]
        if prefix is not None:
            parts.insert(0, self._placed(prefix))
            seen.insert(0, seen[0].new_ones(prefix.shape[:2]))
        first = sum(part.shape[1] for part in parts) - 1  # the last text column predicts the first code
        if codes is not None and cache is None:
            codes = codes[:, :-1]  # nothing follows the last code
        if codes is not None:
            parts.append(self.embed_codes(codes))
            seen.append(seen[0].new_ones(codes.shape))
        x, visible = torch.cat(parts, 1), torch.cat(seen, 1)  # b n d, b n
        if cache is not None:
            cache.hidden = hidden(F.pad(visible, (0, self.image_length), value=True), like=x)
        return x, causal_mask(visible), first, tokens[:, 1:]  # the text targets are the text, shifted by one

    def _embed_next(self, codes: Int[Tensor, "r n"], cache: Cache) -> Float[Tensor, "r n d"]:
        if cache.positions is not None:
            return self.tok_emb_img(codes) + self.pos_emb_img(cache.positions)
        cache.num_codes += 1
        return self.embed_codes(codes, cache.num_codes - 1)

    def _placed(self, prefix: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
        """The prefix as it enters the first block."""
        if not self.settings.prefix_positions:
            return prefix
        if prefix.shape[1] > self.text_length:
            raise ValueError(f"a prefix of {prefix.shape[1]} has no positions beyond the text's {self.text_length}")
        return prefix + self.pos_emb_txt.weight[: prefix.shape[1]]


def causal_mask(visible: Bool[Tensor, "b n"]) -> Bool[Tensor, "b 1 n n"]:
    """Each column sees the visible ones before it, and always itself: a softmax over nothing would be nan."""
    seen = torch.ones(visible.shape[1], visible.shape[1], dtype=torch.bool, device=visible.device).tril(-1)
    itself = torch.eye(len(seen), dtype=torch.bool, device=visible.device)
    return (seen & visible[:, None] | itself)[:, None]  # one mask for all heads
