"""DALL-E Mega: a bidirectional encoder reads the caption, a causal decoder writes codes and attends to the caption.

BART with the norms of NormFormer and gated feed-forward networks, as in min-dalle (dalle-mini). ``prefix`` embeddings
enter ahead of the text in the encoder; a decoder layer calls its ``hook`` after it has read the caption. Every decoder
position predicts a code, so hooks act on all of them. Only the image is predicted: there are no text logits.
Parameter names are the keys of min-dalle's ``encoder.pt`` and ``decoder.pt``, after ``encoder.`` and ``decoder.``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from storydalle.configured import NetworkSettings
from storydalle.models.backbones.backbone import Backbone, Codes, Hook, Logits, Words, init_weights, through
from storydalle.models.backbones.mega_cache import MegaCache, Memory, Text
from storydalle.models.kept import KeptByBlock, StepSizes, trains
from storydalle.models.layers import KeyValues, attend, seen_from


class Attention(nn.Module):
    """Multi-head attention without biases."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def remember(self, x: Float[Tensor, "b m d"]) -> Memory:
        split = "b m (h k) -> b h m k"  # k: head_dim
        key = rearrange(self.k_proj(x), split, h=self.num_heads)
        return Memory(key, rearrange(self.v_proj(x), split, h=self.num_heads))

    def forward(
        self,
        x: Float[Tensor, "r n d"],
        memory: Memory,
        visible: Bool[Tensor, "#b 1 #n m"] | Float[Tensor, "r 1 n m"] | None,
        attention: Callable[..., Tensor] = attend,
    ) -> Float[Tensor, "r n d"]:
        """``r`` rows read ``b`` memories: one each, or several rows (candidates, side by side) read the same one."""
        # Candidates become more queries of one attention: their memory is not copied for each.
        query = self.q_proj(x).view(len(memory.key), -1, self.num_heads, memory.key.shape[-1])  # b (r n) h k
        out = attention(query.transpose(1, 2), memory.key, memory.value, visible)  # b h (r n) k
        return self.out_proj(out.transpose(1, 2).reshape(x.shape))


class GLU(nn.Module):
    """A gated feed-forward network with a norm after the gate: W2 LN(GELU(W0 LN(x)) * W1 LN(x)); GELU by erf."""

    def __init__(self, dim: int, glu_dim: int) -> None:
        super().__init__()
        self.ln0 = nn.LayerNorm(dim)
        self.ln1 = nn.LayerNorm(glu_dim)
        self.fc0 = nn.Linear(dim, glu_dim, bias=False)
        self.fc1 = nn.Linear(dim, glu_dim, bias=False)
        self.fc2 = nn.Linear(glu_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = self.ln0(x)  # b n d
        return self.fc2(self.ln1(F.gelu(self.fc0(x)) * self.fc1(x)))


class EncoderLayer(nn.Module):
    """Attention between norms, then the gated network, each added to the residual stream."""

    def __init__(self, dim: int, glu_dim: int, num_heads: int) -> None:
        super().__init__()
        self.pre_self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.glu = GLU(dim, glu_dim)

    def forward(self, x: Float[Tensor, "b n d"], visible: Bool[Tensor, "b 1 1 n"]) -> Float[Tensor, "b n d"]:
        normed = self.pre_self_attn_layer_norm(x)
        # NormFormer: a norm before and one after attention, both inside the residual branch.
        x = x + self.self_attn_layer_norm(self.self_attn(normed, self.self_attn.remember(normed), visible))
        return x + self.glu(x)

    def kept(self, num_rows: int, columns: int, step: StepSizes) -> KeptByBlock:
        return kept_by_layer(self, num_rows, columns, step)


class DecoderLayer(nn.Module):
    """An encoder layer, causal, that also attends to the caption; ``hook`` adds to the stream before the network."""

    def __init__(self, dim: int, glu_dim: int, num_heads: int) -> None:
        super().__init__()
        self.pre_self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.pre_encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.encoder_attn = Attention(dim, num_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.glu = GLU(dim, glu_dim)

    def forward(
        self,
        x: Float[Tensor, "r n d"],
        causal: Bool[Tensor, "1 1 n m"] | Float[Tensor, "r 1 n m"] | None,
        text: Memory,
        text_visible: Bool[Tensor, "b 1 1 t"],
        hook: Hook | None = None,
        cache: KeyValues | None = None,
    ) -> Float[Tensor, "r n d"]:
        normed = self.pre_self_attn_layer_norm(x)
        own = self.self_attn.remember(normed)
        attention = attend if cache is None else cache.attend  # to all columns before, too
        x = x + self.self_attn_layer_norm(self.self_attn(normed, own, causal, attention))
        read = self.encoder_attn(self.pre_encoder_attn_layer_norm(x), text, text_visible)  # r n d
        x = x + self.encoder_attn_layer_norm(read)
        if hook is not None:
            x = x + hook(x)  # at every position: each predicts a code
        return x + self.glu(x)

    def kept(self, num_rows: int, columns: int, text: int, step: StepSizes) -> KeptByBlock:
        """As an encoder layer, and for reading ``text`` columns of the caption the queries and the result (2)."""
        dim, precision = self.glu.fc2.out_features, step.precision
        own = kept_by_layer(self, num_rows, columns, step)
        copies = 2 * dim**2 if precision.is_mixed else 0
        memory = num_rows * text * dim * (4 if precision.is_mixed else 2)
        return own._replace(
            stream=3,
            inside=own.inside + 2 + (2 if trains(self) else 0),
            scores=own.scores + (num_rows * self.encoder_attn.num_heads * columns * text if step.keeps_scores else 0),
            copies=own.copies + copies,
            apart=(memory + copies) * precision.inside,
        )


def kept_by_layer(layer: "EncoderLayer | DecoderLayer", num_rows: int, columns: int, step: StepSizes) -> KeptByBlock:
    """Inside: queries, keys, values (3), the result of attention (1), four tensors as wide as the gated network.

    To train weights also the input of each product, which autocast copies for each of them.
    """
    dim, glu_dim = layer.glu.fc2.out_features, layer.glu.fc2.in_features
    ratio, mixed = glu_dim / dim, step.precision.is_mixed
    read = (3 + 1 + 2 + ratio if mixed else 1 + 1 + 1 + ratio) if trains(layer) else 0
    return KeptByBlock(
        positions=num_rows * columns,
        stream=2,
        inside=4 + 4 * ratio + read,
        scores=num_rows * layer.self_attn.num_heads * columns**2 if step.keeps_scores else 0,
        copies=4 * dim**2 + 3 * dim * glu_dim if mixed else 0,
        apart=0,
        widest=2 * ratio,
    )


class MegaEncoder(nn.Module):
    """Reads the caption, both ways."""

    def __init__(self, settings: "MegaSettings") -> None:
        super().__init__()
        dim, sizes = settings.dim, (settings.dim, settings.glu_dim, settings.num_heads)
        self.embed_tokens = nn.Embedding(settings.text_vocab_size, dim)
        self.embed_positions = nn.Embedding(settings.text_length, dim)
        self.layernorm_embedding = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(settings.depth))
        self.final_ln = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        columns: Int[Tensor, " t"],
        visible: Bool[Tensor, "b 1 1 n"],
        prefix: Float[Tensor, "b p d"] | None = None,
        recompute: bool = False,
    ) -> Float[Tensor, "b n d"]:
        """The state of ``[prefix | tokens]``; ``columns`` says where in the caption the tokens stand.

        A prefix is a token without a position. It enters before the norm of the embeddings, so the layers see it at the
        scale that they were trained on, however large the vectors of a fresh story encoder are.
        """
        x = self.embed_tokens(tokens) + self.embed_positions(columns)
        if prefix is not None:
            x = torch.cat([prefix, x], 1)  # b (p + t) d
        x = self.layernorm_embedding(x)
        for layer in self.layers:
            x = through(layer, x, visible, recompute=recompute)
        return self.final_ln(x)


class MegaDecoder(nn.Module):
    """Writes codes, each from those before it and the caption."""

    def __init__(self, settings: "MegaSettings") -> None:
        super().__init__()
        dim, sizes = settings.dim, (settings.dim, settings.glu_dim, settings.num_heads)
        self.embed_tokens = nn.Embedding(settings.num_rows, dim)
        self.embed_positions = nn.Embedding(settings.image_length, dim)
        self.layernorm_embedding = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(DecoderLayer(*sizes) for _ in range(settings.depth))
        self.final_ln = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, settings.num_rows, bias=False)

    def remember(self, state: Float[Tensor, "b m d"]) -> list[Memory]:
        """Keys and values of an encoded caption in each layer, computed once for all steps and candidates."""
        return [cast(DecoderLayer, layer).encoder_attn.remember(state) for layer in self.layers]

    def embed(self, codes: Int[Tensor, "b l"], start: int = 0) -> Float[Tensor, "b l d"]:
        return self.embed_tokens(codes) + self.embed_positions.weight[start : start + codes.shape[1]]

    def forward(
        self,
        inputs: Int[Tensor, "r n"],
        text: Text,
        hooks: Sequence[Hook | None] | None = None,
        cache: MegaCache | None = None,
        recompute: bool = False,
    ) -> Float[Tensor, "r n v"]:
        """Logits of the code after each input, over all rows of the head."""
        x, causal = self._embed(inputs, cache)
        x = self.layernorm_embedding(x)
        for i, layer in enumerate(self.layers):
            hook = None if hooks is None else hooks[i]
            own = None if cache is None else cache.layers[i]
            inputs_of = (x, causal, text.memories[i], text.visible, hook, own)
            x = through(layer, *inputs_of, recompute=recompute)
        return self.lm_head(self.final_ln(x))

    def _embed(self, inputs: Tensor, cache: MegaCache | None) -> tuple[Tensor, Tensor | None]:
        """Embed the inputs where they stand; return them, and the columns that each one sees."""
        if cache is not None and cache.columns is not None:
            x = self.embed_tokens(inputs) + self.embed_positions(cache.columns)
            return x, seen_from(cache.columns, like=x)
        start, num_columns = 0 if cache is None else cache.length, inputs.shape[1]
        if cache is not None:
            cache.length += num_columns
        causal = None  # a single new column sees all
        if num_columns > 1:  # the first of the n new columns is column ``start`` of m, and sees itself
            shape = (1, 1, num_columns, start + num_columns)
            causal = torch.ones(shape, dtype=torch.bool, device=inputs.device).tril(start)
        return self.embed(inputs, start), causal


@dataclass(frozen=True)
class MegaSettings(NetworkSettings):
    """The defaults are DALL-E Mega's.

    Tables and head have one row more than ``image_vocab_size``, as in the released files; ``num_codes`` of the rows are
    codes of the image tokenizer. ``start_code`` is read ahead of the first code: 16383, which is also a code.
    """

    text_vocab_size: int = 50272
    image_vocab_size: int = 16415
    num_codes: int = 16384
    text_length: int = 64
    image_length: int = 256
    dim: int = 2048
    glu_dim: int = 4096
    depth: int = 24
    num_heads: int = 32
    pad_id: int = 1
    start_code: int = 16383
    codes_of: str | None = None

    def __post_init__(self) -> None:
        dim, num_heads, num_rows = self.dim, self.num_heads, self.num_rows
        if dim % num_heads:
            raise ValueError(f"width {dim} is no multiple of {num_heads} heads; choose dim = num_heads * head_dim")
        if self.num_codes > num_rows or not 0 <= self.start_code < num_rows:
            told = f"num_codes={self.num_codes} and start_code={self.start_code}"
            raise ValueError(f"{told} must lie in {num_rows} rows of codes")

    @property
    def num_rows(self) -> int:
        return self.image_vocab_size + 1


class MegaDALLE(Backbone):
    """The text-to-image transformer of min-dalle, of ``MegaSettings``."""

    kind = "mega"
    predicts_text = False
    pad_id: int
    settings: MegaSettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = MegaSettings.of(*values, **named)
        self.text_vocab_size, self.num_codes = settings.text_vocab_size, settings.num_codes
        self.text_length, self.image_length = settings.text_length, settings.image_length
        self.dim, self.depth, self.num_heads = settings.dim, settings.depth, settings.num_heads
        self.pad_id, self.start_code, self.codes_of = settings.pad_id, settings.start_code, settings.codes_of
        self.encoder = MegaEncoder(settings)
        self.decoder = MegaDecoder(settings)
        self._init_weights()

    def _init_weights(self) -> None:
        """minDALL-E's initialisation; the released weights replace it."""
        self.apply(init_weights)

    @classmethod
    def sized(cls, words: Words, codes: Codes, **sizes: object) -> "MegaDALLE":
        """The start code has a row of its own, after the codes."""
        rows = codes.num_codes
        return cls(**words._asdict(), **codes._asdict(), image_vocab_size=rows, start_code=rows, **sizes)

    @property
    def word_tables(self) -> list[nn.Embedding | nn.Linear]:
        return [self.encoder.embed_tokens]

    @property
    def code_table(self) -> Float[Tensor, "v d"]:
        return self.decoder.embed_tokens.weight[: self.num_codes]

    @property
    def all_blocks(self) -> list[nn.Module]:
        return [*self.encoder.layers, *self.decoder.layers]

    def kept(self, step: StepSizes, num_prefix: int) -> list[KeptByBlock]:
        rows, text, codes = step.num_rows, num_prefix + step.text_columns, self.image_length
        read = [cast(EncoderLayer, layer).kept(rows, text, step) for layer in self.encoder.layers]
        return read + [cast(DecoderLayer, layer).kept(rows, codes, text, step) for layer in self.decoder.layers]

    @property
    def step_layers(self) -> list[tuple[nn.Linear, ...]]:
        found = [self.decoder.lm_head]
        for each in self.decoder.layers:
            layer = cast(DecoderLayer, each)
            own, text, glu = layer.self_attn, layer.encoder_attn, layer.glu
            found += [own.q_proj, own.k_proj, own.v_proj, own.out_proj, text.q_proj, text.out_proj]
            found += [glu.fc0, glu.fc1, glu.fc2]
        return [(layer,) for layer in found]

    @property
    def hidden_tensors(self) -> float | int:
        return 3 * self.settings.glu_dim / self.dim  # gate, value and their product

    def new_cache(self, num_rows: int, num_columns: int) -> MegaCache:
        """The cache takes the caption and its prefix from the prefill, whatever ``num_columns`` is."""
        weights = [cast(DecoderLayer, layer).self_attn.q_proj.weight for layer in self.decoder.layers]
        return MegaCache(num_rows, self.num_heads, self.image_length, weights)

    def embed_tokens(self, tokens: Int[Tensor, "*b t"]) -> Float[Tensor, "*b t d"]:
        return self.encoder.embed_tokens(tokens)

    def embed_codes(self, codes: Int[Tensor, "b l"], start: int = 0) -> Float[Tensor, "b l d"]:
        """As the decoder embeds its inputs, ahead of their norm (the source frame's context in the released code)."""
        return self.decoder.embed(codes, start)

    def used_columns(self, tokens: Int[Tensor, "b t"]) -> Int[Tensor, " t_used"]:
        """Indices of the text columns that have to be computed: those with a token in some row, and the first one."""
        used = (tokens != self.pad_id).any(0)
        used[0] = True
        return used.nonzero().squeeze(1)

    def forward(
        self,
        tokens: Int[Tensor, "b t"] | None,
        codes: Int[Tensor, "b l"] | None = None,
        prefix: Float[Tensor, "b p d"] | None = None,
        hooks: Sequence[Hook | None] | None = None,
        cache: MegaCache | None = None,
    ) -> Logits:
        # Differs from the paper's released code: logits are cut to the codes that exist in training too, not only in
        # sampling. The other rows of the head stand for no code, so the loss is of what can be sampled.
        if tokens is None:
            assert codes is not None and cache is not None and cache.text is not None, "this is a decoding step"
            return Logits(None, self.decoder(codes, cache.text, hooks, cache)[..., : self.num_codes], None)
        text = self._read(tokens, prefix)  # keys and values of [prefix | text] in every decoder layer
        inputs = torch.full_like(tokens[:, :1], self.start_code)  # b 1
        if codes is not None:
            inputs = torch.cat([inputs, codes if cache is not None else codes[:, :-1]], 1)  # shifted right by one
        if cache is not None:
            cache.text = text
        recompute = self.activation_checkpointing and cache is None
        return Logits(None, self.decoder(inputs, text, hooks, cache, recompute)[..., : self.num_codes], None)

    def _read(self, tokens: Int[Tensor, "b t"], prefix: Float[Tensor, "b p d"] | None) -> Text:
        """Encode captions; nothing attends to padding, and columns that are padding in every row are dropped."""
        self.check_captions(tokens)
        columns = self.used_columns(tokens)
        tokens = tokens[:, columns]
        visible = tokens != self.pad_id
        # A row that is all padding needs something to attend to: its first column is read.
        visible[:, 0] |= ~visible.any(1)
        if prefix is not None:
            visible = torch.cat([visible.new_ones(prefix.shape[:2]), visible], 1)  # b (p + t)
        visible = rearrange(visible, "b n -> b 1 1 n")
        state = self.encoder(tokens, columns, visible, prefix, self.activation_checkpointing)
        return Text(self.decoder.remember(state), visible)
