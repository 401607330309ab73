"""DALL-E Mega: min-dalle's keys and arithmetic, its cache, and where the retrofit attaches."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from storydalle.models.backbones.mega import Attention, DecoderLayer, EncoderLayer, MegaDALLE, Memory
from storydalle.models.story_dalle.retrofit import is_trained, retrofit
from tests.conformance_backbones import awake, differs, retrofitted
from tests.tiny_backbones import CODES, DEPTH, DIM, HEADS, LENGTH, PAD, START, WORDS, tiny_mega


def small(**options: Any) -> MegaDALLE:
    torch.manual_seed(0)
    backbone = tiny_mega(**options).eval()
    awake(backbone)
    return backbone


def inputs(num_rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, WORDS, (num_rows, 7), generator=generator)
    for row in range(num_rows):
        tokens[row, 3 + row :] = PAD
    return tokens, torch.randint(0, CODES, (num_rows, LENGTH), generator=generator)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


# -------------------------------------------------------------------- min-dalle's arithmetic, restated without modules


class Weights:
    """The entries of a state dict below a name."""

    def __init__(self, module: nn.Module, name: str = "") -> None:
        self.values, self.name = module.state_dict(), name

    def __getitem__(self, name: str) -> Tensor:
        return self.values[self.name + name]

    def under(self, name: str) -> "Weights":
        weights = object.__new__(Weights)
        weights.values, weights.name = self.values, f"{self.name}{name}."
        return weights


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(weights: Weights, x: Tensor, context: Tensor, seen: list[list[int]]) -> Tensor:
    """Row i of ``x`` reads the rows ``seen[i]`` of ``context``, head by head."""
    query, key, value = (
        source @ weights[f"{name}_proj.weight"].T for name, source in (("q", x), ("k", context), ("v", context))
    )
    size = x.shape[1] // HEADS
    rows = []
    for i, columns in enumerate(seen):
        heads = []
        for part in (slice(h * size, (h + 1) * size) for h in range(HEADS)):
            scores = torch.stack([(query[i, part] / math.sqrt(size)) @ key[j, part] for j in columns])
            heads.append(scores.softmax(0) @ value[columns, part])
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ weights["out_proj.weight"].T


def glu(weights: Weights, x: Tensor) -> Tensor:
    x = norm(weights, "ln0", x)
    gate = x @ weights["fc0.weight"].T
    gate = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
    return norm(weights, "ln1", gate * (x @ weights["fc1.weight"].T)) @ weights["fc2.weight"].T


def read_and_add(weights: Weights, kind: str, x: Tensor, context: Tensor | None, seen: list[list[int]]) -> Tensor:
    """The residual stream after one attention between its two norms; without a context it reads itself."""
    normed = norm(weights, f"pre_{kind}_attn_layer_norm", x)
    out = attention(weights.under(f"{kind}_attn"), normed, normed if context is None else context, seen)
    return x + norm(weights, f"{kind}_attn_layer_norm", out)


def encoder_layer(weights: Weights, x: Tensor, visible: list[int]) -> Tensor:
    x = read_and_add(weights, "self", x, None, [visible] * len(x))
    return x + glu(weights.under("glu"), x)


def decoder_layer(weights: Weights, x: Tensor, state: Tensor, visible: list[int]) -> Tensor:
    x = read_and_add(weights, "self", x, None, [list(range(i + 1)) for i in range(len(x))])
    x = read_and_add(weights, "encoder", x, state, [visible] * len(x))
    return x + glu(weights.under("glu"), x)


def embed(weights: Weights, ids: list[int]) -> Tensor:
    rows = [weights["embed_tokens.weight"][one] + weights["embed_positions.weight"][i] for i, one in enumerate(ids)]
    return norm(weights, "layernorm_embedding", torch.stack(rows))


def visible_in(tokens: Tensor) -> list[int]:
    return [i for i, token in enumerate(tokens.tolist()) if token != PAD]


def encoder_state(backbone: MegaDALLE, tokens: Tensor) -> Tensor:
    """All 7 columns of one caption; those of padding are computed too."""
    weights = Weights(backbone.encoder)
    x = embed(weights, tokens.tolist())
    for i in range(DEPTH):
        x = encoder_layer(weights.under(f"layers.{i}"), x, visible_in(tokens))
    return norm(weights, "final_ln", x)


def image_logits(backbone: MegaDALLE, tokens: Tensor, codes: Tensor) -> Tensor:
    weights, state = Weights(backbone.decoder), encoder_state(backbone, tokens)
    x = embed(weights, [START, *codes[:-1].tolist()])
    for i in range(DEPTH):
        x = decoder_layer(weights.under(f"layers.{i}"), x, state, visible_in(tokens))
    return (norm(weights, "final_ln", x) @ weights["lm_head.weight"].T)[:, :CODES]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_attention_equals_the_slow_reference():
    module, x, context = Attention(DIM, HEADS), random(5, DIM), random(6, DIM)
    nn.init.normal_(module.q_proj.weight)
    visible = torch.tensor([True, True, False, True, False, True])
    ours = module(x[None], module.remember(context[None]), visible[None, None, None])[0]
    close(ours, attention(Weights(module), x, context, [[0, 1, 3, 5]] * 5))


@torch.no_grad()
def test_the_gated_network_equals_the_slow_reference():
    module, x = small().encoder.layers[0].glu, random(5, DIM)
    close(module(x[None])[0], glu(Weights(module), x))


@torch.no_grad()
def test_an_encoder_layer_equals_the_slow_reference():
    module, x = small().encoder.layers[1], random(5, DIM)
    assert isinstance(module, EncoderLayer)
    visible = torch.tensor([True, True, False, True, False])
    close(module(x[None], visible[None, None, None])[0], encoder_layer(Weights(module), x, [0, 1, 3]))


@torch.no_grad()
def test_a_decoder_layer_equals_the_slow_reference_and_hooks_between_caption_and_network():
    module, x, state = small().decoder.layers[1], random(5, DIM), random(4, DIM)
    assert isinstance(module, DecoderLayer)
    causal = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    text = module.encoder_attn.remember(state[None])
    visible = torch.tensor([True, False, True, True])[None, None, None]
    close(module(x[None], causal, text, visible)[0], decoder_layer(Weights(module), x, state, [0, 2, 3]))
    heard, added = [], random(6, DIM)[1:]
    hooked = module(x[None], causal, text, visible, lambda y: heard.append(y) or added[None])[0]
    read = read_and_add(Weights(module), "self", x, None, [list(range(i + 1)) for i in range(5)])
    read = read_and_add(Weights(module), "encoder", read, state, [[0, 2, 3]] * 5)
    close(heard[0][0], read)
    close(hooked, read + added + glu(Weights(module, "glu."), read + added))


@torch.no_grad()
def test_encoder_states_and_logits_equal_the_slow_reference():
    backbone = small()
    tokens, codes = inputs()
    columns, visible = torch.arange(7), (tokens != PAD)[:, None, None]
    states = backbone.encoder(tokens, columns, visible)
    logits = backbone(tokens, codes)
    assert logits.text is None and logits.text_targets is None
    assert logits.image.shape == (3, LENGTH, CODES)
    for row in range(len(tokens)):
        close(states[row], encoder_state(backbone, tokens[row]))
        close(logits.image[row], image_logits(backbone, tokens[row], codes[row]))


# ------------------------------------------------------------------------------------------- the released files


def layer_shapes(kinds: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for kind in kinds:
        for place in (f"pre_{kind}_attn_layer_norm", f"{kind}_attn_layer_norm"):
            shapes |= {f"{place}.weight": (2048,), f"{place}.bias": (2048,)}
        shapes |= {f"{kind}_attn.{name}_proj.weight": (2048, 2048) for name in "kvq"}
        shapes[f"{kind}_attn.out_proj.weight"] = (2048, 2048)
    for name, size in (("ln0", 2048), ("ln1", 4096)):
        shapes |= {f"glu.{name}.weight": (size,), f"glu.{name}.bias": (size,)}
    return shapes | {"glu.fc0.weight": (4096, 2048), "glu.fc1.weight": (4096, 2048), "glu.fc2.weight": (2048, 4096)}


@pytest.mark.parametrize(
    ("part", "kinds", "rows", "length", "millions"),
    [("encoder", ("self",), 50272, 64, 1110.2), ("decoder", ("self", "encoder"), 16416, 256, 1477.7)],
)
def test_default_sizes_and_keys_are_those_of_the_released_files(part, kinds, rows, length, millions):
    with torch.device("meta"):
        backbone = MegaDALLE()
    state = {name: value for name, value in backbone.state_dict().items() if name.startswith(f"{part}.")}
    expected = {"embed_tokens.weight": (rows, 2048), "embed_positions.weight": (length, 2048)}
    for name in ("layernorm_embedding", "final_ln"):
        expected |= {f"{name}.weight": (2048,), f"{name}.bias": (2048,)}
    if part == "decoder":
        expected["lm_head.weight"] = (16416, 2048)
    for i in range(24):
        expected |= {f"layers.{i}.{name}": shape for name, shape in layer_shapes(kinds).items()}
    assert {name.removeprefix(f"{part}."): tuple(value.shape) for name, value in state.items()} == expected
    assert {name.partition(".")[0] for name in backbone.state_dict()} == {"encoder", "decoder"}
    assert round(sum(value.numel() for value in state.values()) / 1e6, 1) == millions
    assert (backbone.pad_id, backbone.start_code, backbone.num_codes) == (1, 16383, 16384)


def test_sizes_that_do_not_fit_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match="width 32 is no multiple of 5"):
        small(num_heads=5)
    with pytest.raises(ValueError, match="start_code=32 must lie in 32 rows"):
        small(start_code=32)
    with pytest.raises(ValueError, match="num_codes=33"):
        small(num_codes=33)


# ------------------------------------------------------------------------------------------------ what sees what


@torch.no_grad()
def test_the_embedding_of_padding_is_seen_by_nobody():
    backbone = small()
    tokens, codes = inputs()
    before = backbone(tokens, codes).image
    nn.init.normal_(backbone.encoder.embed_tokens.weight[PAD])
    assert torch.equal(backbone(tokens, codes).image, before)


@torch.no_grad()
def test_a_prefix_is_a_token_without_a_place_and_always_visible():
    """It equals a token whose embedding, position included, is the prefix: also ahead of nothing but padding."""
    backbone = small()
    tokens, codes = inputs()
    tokens[1] = PAD
    prefix = random(3, 1, DIM)
    with_prefix = backbone(tokens, codes, prefix).image
    assert differs(with_prefix, backbone(tokens, codes).image).all()
    other = prefix.clone()
    other[1] *= -1  # a constant added to it is what layer norm takes away
    moved = differs(with_prefix, backbone(tokens, codes, other).image)
    assert moved[1].all() and not moved[[0, 2]].any()
    twin = small(text_vocab_size=WORDS + 1, text_length=8)
    weights = backbone.state_dict()
    words, places = (weights[f"encoder.embed_{name}.weight"] for name in ("tokens", "positions"))
    weights["encoder.embed_positions.weight"] = torch.cat([torch.zeros(1, DIM), places])
    for row in (0, 2):
        weights["encoder.embed_tokens.weight"] = torch.cat([words, prefix[row]])
        twin.load_state_dict(weights)
        text = torch.cat([torch.tensor([WORDS]), tokens[row]])[None]
        close(twin(text, codes[row : row + 1]).image[0], with_prefix[row])


# ------------------------------------------------------------------------------------------------------ the cache


@torch.no_grad()
def test_known_codes_are_prefilled_with_the_caption():
    backbone = small()
    tokens, codes = inputs()
    cache = backbone.new_cache(3, 0)
    first = backbone(tokens, codes[:, :4], cache=cache).image
    rest = backbone(None, codes[:, 4:8], cache=cache).image
    close(torch.cat([first, rest], 1), backbone(tokens, codes).image)


@torch.no_grad()
def test_the_caption_is_read_once_for_all_steps_and_candidates():
    backbone = small()
    tokens, codes = inputs()
    calls = {"encoder": 0, "keys": 0}
    backbone.encoder.register_forward_hook(lambda *_: calls.update(encoder=calls["encoder"] + 1))
    layer = backbone.decoder.layers[0]
    layer.encoder_attn.k_proj.register_forward_hook(lambda *_: calls.update(keys=calls["keys"] + 1))
    cache = backbone.new_cache(3, 0)
    backbone(tokens, None, cache=cache)
    cache.repeat(2)
    for i in range(LENGTH - 1):
        backbone(None, codes[:, i : i + 1].repeat_interleave(2, 0), cache=cache)
    assert calls == {"encoder": 1, "keys": 1}
    assert all(isinstance(memory, Memory) and len(memory.key) == 3 for memory in cache.text.memories)


@torch.no_grad()
def test_a_row_keeps_the_bytes_of_its_columns():
    made, _ = retrofitted(tiny_mega)
    tokens, _ = inputs(1)
    tokens[:] = 5
    cache = made.backbone.new_cache(1, 1)
    made.backbone(tokens, None, random(1, 1, DIM), cache=cache)
    kept = [*cache.text.memories, *((layer.keys, layer.values) for layer in cache.layers)]
    columns = 1 + tokens.shape[1] + made.backbone.image_length
    assert columns * made.backbone.column_bytes == sum(part.nbytes for pair in kept for part in pair)


# --------------------------------------------------------------------------------------------------- the retrofit


def test_the_sources_context_is_the_decoders_embedding_without_its_norm():
    (made, inputs), heard = retrofitted(tiny_mega), []
    made.source_attention["0"].ln2.register_forward_hook(lambda _module, given, _out: heard.append(given[0]))
    inputs.logits(made)
    tables = made.backbone.decoder
    expected = tables.embed_tokens.weight[inputs.source[:, 0]] + tables.embed_positions.weight
    assert torch.equal(heard[0], expected)


def test_the_released_choice_of_layers_is_every_third():
    with torch.device("meta"):
        made = retrofit(MegaDALLE(dim=64, glu_dim=64), "third")
    assert [int(i) for i in made.source_attention] == [2, 5, 8, 11, 14, 17, 20, 23]


def test_prompt_tuning_trains_the_embedding_tables_of_encoder_and_decoder():
    names = [f"backbone.{name}" for name, _ in small().named_parameters()]
    tables = {f"backbone.{a}coder.embed_{b}.weight" for a in ("en", "de") for b in ("tokens", "positions")}
    assert {name for name in names if is_trained(name, "prompt")} == tables
    assert not any(is_trained(name, "retrofit") for name in names)
