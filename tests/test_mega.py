"""DALL-E Mega: min-dalle's keys and arithmetic, the cache, and the retrofit around it."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from storydalle import StoryDALLE
from storydalle.models.backbones.mega import Attention, DecoderLayer, EncoderLayer, MegaDALLE, Memory
from storydalle.models.pretrained import CONFIG_NAME
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, is_trained, retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, cache_bytes, sample
from storydalle.training.story_dalle_training import StoryDALLETraining
from storydalle.training.text_to_image_training import TextToImageTraining
from tests.test_byte_level import tiny_tokenizer
from tests.test_retrofit import FRAMES, LENGTH, PAD, STORIES, Inputs, differs
from tests.test_sampling import draw, prompt
from tests.tiny import CODEBOOK, GRID, TinyData, felt, tiny_batch, tiny_story_dalle, trainer
from tests.tiny import FRAMES as TINY_FRAMES

VOCAB, CODES, START, DIM, GLU_DIM, HEADS, DEPTH = 40, 30, 29, 32, 48, 4, 3


def wake(module: nn.Module) -> None:
    """Draw every parameter well away from its start, norms included, so that none can be left out unseen."""
    for made in module.modules():
        if isinstance(made, nn.Linear | nn.Embedding):
            nn.init.normal_(made.weight, std=0.2)
        if isinstance(made, nn.LayerNorm):
            nn.init.normal_(made.weight, mean=1.0, std=0.3)
            nn.init.normal_(made.bias, std=0.3)


def small(awake: bool = True, **options) -> MegaDALLE:
    """Two rows of the head are beyond the codes, as 32 of Mega's are."""
    torch.manual_seed(0)
    sizes = {"text_length": 7, "image_length": LENGTH, "dim": DIM, "glu_dim": GLU_DIM, "depth": DEPTH}
    sizes |= {"num_heads": HEADS, "pad_id": PAD, "start_code": START}
    sizes |= {"text_vocab_size": VOCAB, "image_vocab_size": CODES + 1, "num_codes": CODES}
    backbone = MegaDALLE(**(sizes | options)).eval()
    if awake:
        wake(backbone)
    return backbone


def model(awake: bool = True, **options) -> RetrofittedDALLE:
    made = retrofit(small(awake=False), **options).eval()
    if awake:
        wake(made)
    return made


def inputs(num_rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCAB, (num_rows, 7), generator=generator)
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


def test_a_fresh_model_knows_nothing():
    tokens, codes = inputs()
    image = small(awake=False)(tokens, codes).image
    assert abs(nn.functional.cross_entropy(image.flatten(0, 1), codes.flatten()).item() - math.log(CODES)) < 0.1


def test_a_code_is_predicted_from_the_whole_caption_and_from_earlier_codes_only():
    backbone = small()
    tokens, codes = inputs(1)
    for position in range(LENGTH):
        embedded: dict[str, Tensor] = {}
        for name, part in (("tokens", backbone.encoder), ("codes", backbone.decoder)):
            part.embed_tokens.register_forward_hook(
                lambda _module, _inputs, out, name=name, store=embedded: store.update({name: out}) or out.retain_grad()
            )
        backbone(tokens, codes).image[0, position].sum().backward()
        reach = embedded["codes"].grad[0].abs().sum(-1) > 0
        assert reach.tolist() == [i <= position for i in range(LENGTH)]  # the start code stands first
        assert (embedded["tokens"].grad[0].abs().sum(-1) > 0).all()


def test_the_last_code_is_read_by_nobody():
    backbone = small()
    tokens, codes = inputs()
    changed = codes.clone()
    changed[:, -1] = (changed[:, -1] + 1) % CODES
    assert torch.equal(backbone(tokens, codes).image, backbone(tokens, changed).image)


@torch.no_grad()
def test_padding_changes_nothing():
    """Neither how much of it the longest caption of a batch forces on the others, nor what its embedding is."""
    backbone = small()
    tokens, codes = inputs()
    together = backbone(tokens, codes).image
    for row in range(len(tokens)):
        close(backbone(tokens[row : row + 1], codes[row : row + 1]).image[0], together[row])
    nn.init.normal_(backbone.encoder.embed_tokens.weight[PAD])
    assert torch.equal(backbone(tokens, codes).image, together)


@torch.no_grad()
def test_a_caption_of_nothing_but_padding_is_legal_and_the_same_in_any_batch():
    backbone = small()
    tokens, codes = inputs()
    tokens[1] = PAD
    together = backbone(tokens, codes).image
    assert together.isfinite().all()
    close(backbone(tokens[1:2], codes[1:2]).image[0], together[1])


def test_a_caption_of_another_length_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"5 tokens.*takes 7"):
        small()(torch.ones(1, 5, dtype=torch.long), None)


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
    twin = small(text_vocab_size=VOCAB + 1, text_length=8)
    weights = backbone.state_dict()
    words, places = (weights[f"encoder.embed_{name}.weight"] for name in ("tokens", "positions"))
    weights["encoder.embed_positions.weight"] = torch.cat([torch.zeros(1, DIM), places])
    for row in (0, 2):
        weights["encoder.embed_tokens.weight"] = torch.cat([words, prefix[row]])
        twin.load_state_dict(weights)
        text = torch.cat([torch.tensor([VOCAB]), tokens[row]])[None]
        close(twin(text, codes[row : row + 1]).image[0], with_prefix[row])


# ------------------------------------------------------------------------------------------------------ the cache


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("num_candidates", [1, 4])
@pytest.mark.parametrize("num_prefix", [0, 2])
@torch.no_grad()
def test_cached_decoding_equals_the_full_forward(num_rows: int, num_candidates: int, num_prefix: int):
    backbone = small()
    tokens, _ = inputs(num_rows)
    codes = torch.randint(0, CODES, (num_rows * num_candidates, LENGTH), generator=torch.Generator().manual_seed(3))
    prefix = random(num_rows, num_prefix, DIM) if num_prefix else None
    copies = [None if x is None else x.repeat_interleave(num_candidates, 0) for x in (tokens, prefix)]
    full = backbone(copies[0], codes, copies[1]).image
    cache = backbone.new_cache(num_rows, num_prefix)
    steps = [backbone(tokens, None, prefix, cache=cache).image.repeat_interleave(num_candidates, 0)]
    cache.repeat(num_candidates)
    for i in range(LENGTH - 1):
        steps.append(backbone(None, codes[:, i : i + 1], cache=cache).image)
    close(torch.cat(steps, 1), full)


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
def test_cache_bytes_bound_what_a_row_keeps():
    made = model()
    tokens, _ = inputs(1)
    tokens[:] = 5
    cache = made.backbone.new_cache(1, 1)
    made.backbone(tokens, None, random(1, 1, DIM), cache=cache)
    kept = [*cache.text.memories, *((layer.keys, layer.values) for layer in cache.layers)]
    assert cache_bytes(made, 1) == sum(part.nbytes for pair in kept for part in pair)


# --------------------------------------------------------------------------------------------------- the retrofit


def test_a_fresh_retrofit_leaves_the_logits_as_they_were():
    inputs, made = Inputs(), model(awake=False, story_depth=0)
    wake(made.backbone)
    backbone = made.backbone(inputs.tokens.flatten(0, 1), inputs.codes.flatten(0, 1)).image
    assert torch.equal(inputs.logits(made).flatten(0, 1), backbone)
    made = model(awake=False)
    prefix = made.encode_story(inputs.tokens, inputs.mask).flatten(0, 1)
    backbone = made.backbone(inputs.tokens.flatten(0, 1), inputs.codes.flatten(0, 1), prefix).image
    assert torch.equal(inputs.logits(made).flatten(0, 1), backbone)


@pytest.mark.parametrize("source_blocks", ["all", "third", [1]])
def test_the_source_changes_every_logit_of_its_own_story_alone(source_blocks):
    """The released code hands the caption to the attention that is to read the source frame (facts: G1)."""
    made, inputs = model(source_blocks=source_blocks), Inputs()
    source = inputs.source.clone()
    source[1] = (source[1] + 1) % CODES
    changed = differs(inputs.logits(made), inputs.logits(made, source=source))
    assert changed[1].all() and not changed[0].any()


def test_the_sources_context_is_the_decoders_embedding_without_its_norm():
    made, heard = model(), []
    made.source_attention["0"].ln2.register_forward_hook(lambda _module, given, _out: heard.append(given[0]))
    Inputs().logits(made)
    tables = made.backbone.decoder
    expected = tables.embed_tokens.weight[Inputs().source[:, 0]] + tables.embed_positions.weight
    assert torch.equal(heard[0], expected)


def test_the_released_choice_of_layers_is_every_third():
    with torch.device("meta"):
        made = retrofit(MegaDALLE(dim=64, glu_dim=64), "third")
    assert [int(i) for i in made.source_attention] == [2, 5, 8, 11, 14, 17, 20, 23]


def test_another_frames_caption_changes_every_logit_of_a_frame():
    """The released code has no story encoder (facts: G2)."""
    made, inputs = model(), Inputs()
    for changed in range(FRAMES):
        tokens = inputs.tokens.clone()
        tokens[:, changed, 0] = tokens[:, changed, 0] % 39 + 1
        assert differs(inputs.logits(made), inputs.logits(made, tokens=tokens)).all()


def test_frames_do_not_see_each_others_codes():
    made, inputs = model(), Inputs()
    codes = inputs.codes.clone()
    codes[:, 1] = (codes[:, 1] + 1) % CODES
    changed = differs(inputs.logits(made), inputs.logits(made, codes=codes))
    assert not changed[:, [0, 2]].any()
    assert changed[:, 1, 1:].all()


def test_a_story_alone_equals_its_row_of_a_batch():
    made, inputs = model(num_story_tokens=2, num_prompt_tokens=3), Inputs()
    together = inputs.logits(made)
    for row in range(STORIES):
        one = slice(row, row + 1)
        with torch.no_grad():
            alone = made(inputs.tokens[one], inputs.codes[one], inputs.source[one], inputs.mask[one]).image
        close(alone, together[row])


def test_prompt_tokens_change_every_logit():
    made, inputs = model(num_prompt_tokens=4), Inputs()
    first = inputs.logits(made)
    nn.init.normal_(made.prompt_tokens.embedding.weight)
    assert differs(first, inputs.logits(made)).all()


def test_every_parameter_gets_a_gradient():
    made, inputs = model(num_prompt_tokens=2), Inputs()
    image = made(inputs.tokens, inputs.codes, inputs.source, inputs.mask).image
    nn.functional.cross_entropy(image.flatten(0, 1), inputs.codes.flatten()).backward()
    without = [name for name, value in made.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_prompt_tuning_trains_the_embedding_tables_of_encoder_and_decoder():
    names = [f"backbone.{name}" for name, _ in small().named_parameters()]
    tables = {f"backbone.{a}coder.embed_{b}.weight" for a in ("en", "de") for b in ("tokens", "positions")}
    assert {name for name in names if is_trained(name, "prompt")} == tables
    assert not any(is_trained(name, "retrofit") for name in names)


# ------------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("num_prompt_tokens", [0, 3])
def test_greedy_codes_are_the_argmax_of_the_full_forward(num_prompt_tokens):
    made, inputs = model(num_prompt_tokens=num_prompt_tokens), Inputs()
    drawn = sample(made, prompt(made, inputs), sampling=CodeSampling(temperature=0))
    codes = drawn.codes[:, 0].view(STORIES, FRAMES, LENGTH)
    logits = inputs.logits(made, codes=codes)
    assert torch.equal(logits.argmax(-1), codes)
    likelihood = logits.log_softmax(-1).gather(-1, codes[..., None]).sum((-1, -2)).flatten()
    torch.testing.assert_close(drawn.log_likelihood[:, 0], likelihood, atol=1e-4, rtol=1e-4)


def test_sampling_is_deterministic_and_the_same_in_waves_and_for_more_candidates():
    made = model()
    codes = draw(made, 4, seed=5).codes
    assert torch.equal(codes, draw(made, 4, seed=5).codes)
    assert not torch.equal(codes, draw(made, 4, seed=6).codes)
    assert torch.equal(codes, draw(made, 4, seed=5, max_bytes=3 * cache_bytes(made, 1)).codes)
    assert torch.equal(codes[:, :2], draw(made, 2, seed=5).codes)
    assert codes.max() < CODES


def test_the_source_acts_at_the_first_and_at_the_last_step_of_decoding(monkeypatch):
    made, inputs, steps = model(), Inputs(), []
    made.backbone.decoder.lm_head.register_forward_hook(lambda _module, _inputs, out: steps.append(out[:, -1]))
    forced = torch.zeros(STORIES * FRAMES, dtype=torch.long)
    monkeypatch.setattr("storydalle.models.story_dalle.sampling.choose", lambda logits, uniform, sampling: forced)
    base = prompt(made, inputs)
    sample(made, base)
    sample(made, base._replace(source=(inputs.source + 1) % CODES))
    first, second = torch.stack(steps[:LENGTH]), torch.stack(steps[LENGTH:])
    assert differs(first, second).all()


def test_guidance_mixes_with_and_without_the_caption():
    made, inputs = model(), Inputs()
    full, empty = prompt(made, inputs), torch.full_like(inputs.tokens, PAD)
    bare = full._replace(tokens=empty, story=made.encode_story(empty, inputs.mask))
    codes = sample(made, full, sampling=CodeSampling(0, guidance=3.0), without_caption=bare).codes[:, 0]
    codes = codes.view(STORIES, FRAMES, LENGTH)
    given, without = inputs.logits(made, codes=codes), inputs.logits(made, codes=codes, tokens=empty)
    assert torch.equal((without + 3 * (given - without)).argmax(-1), codes)


# -------------------------------------------------------------------------------------------- the whole, in training


def story_dalle(folder: Path, **options) -> StoryDALLE:
    """Mega behind its own kind of caption tokenizer, whose table has three rows that no token uses."""
    base, tokenizer = tiny_story_dalle(), tiny_tokenizer(folder, spare=3)
    sizes = {"dim": DIM, "glu_dim": GLU_DIM, "depth": 2, "num_heads": 2, "start_code": CODEBOOK - 1}
    backbone = MegaDALLE(
        tokenizer.vocab_size, CODEBOOK + 2, CODEBOOK, tokenizer.text_length, GRID**2, pad_id=tokenizer.pad_id, **sizes
    )
    return StoryDALLE(base.image_tokenizer, tokenizer, retrofit(backbone, **options)).eval()


def test_all_of_it_trains_on_the_image_alone(tmp_path: Path):
    made = story_dalle(tmp_path, num_prompt_tokens=2)
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    system = StoryDALLETraining(made, max_steps=3, warmup_steps=1, text_weight=0, caption_dropout=0.3)
    run = trainer(tmp_path, 3)
    run.fit(system, TinyData(made))
    moved = {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}
    names = {name for name in before if name.startswith("model.")}
    assert felt(names) <= moved <= names
    assert "train/loss_image" in run.logged_metrics and "train/loss_text" not in run.logged_metrics


def test_captions_are_dropped_to_the_tokenizers_empty_caption(tmp_path: Path):
    made = story_dalle(tmp_path)
    system = StoryDALLETraining(made, text_weight=0, caption_dropout=1.0)
    dropped = system._drop_conditions(tiny_batch(made, [0, 1]))[0].tokens
    assert torch.equal(dropped, made.caption_tokenizer.encode([""]).tokens.expand(2, TINY_FRAMES, -1))


def test_guidance_leads_away_from_the_tokenizers_empty_caption(tmp_path: Path, monkeypatch):
    made, prompts = story_dalle(tmp_path), []
    monkeypatch.setattr(
        "storydalle.models.story_dalle.model.sample", lambda *given, **_: prompts.append(given[4]) or sample(*given)
    )
    tokens = made.caption_tokenizer.encode(["Pip waves.", "She jumps."]).tokens[None]
    made.draw(tokens, None, [FrameKey(0, 0, 0), FrameKey(0, 0, 1)], sampling=CodeSampling(guidance=2.0))
    assert torch.equal(prompts[0].tokens, made.caption_tokenizer.encode(["", ""]).tokens[None])


def test_text_to_image_learns_without_a_text_loss(tmp_path: Path):
    made = story_dalle(tmp_path, source_blocks="none", story_depth=0)
    system, data = (
        TextToImageTraining(made, learning_rate=3e-3, text_weight=0),
        TinyData(made, batch_size=4, num_items=4),
    )
    first = trainer(tmp_path, 1, limit_val_batches=1).validate(system, data, verbose=False)[0]["val/loss_image"]
    trainer(tmp_path, 120).fit(system, data)
    last = trainer(tmp_path, 1, limit_val_batches=1).validate(system, data, verbose=False)[0]
    assert set(last) == {"val/loss_image"}
    assert first == pytest.approx(math.log(CODEBOOK), abs=0.2)
    assert last["val/loss_image"] < first - 1


@pytest.mark.parametrize("system", [StoryDALLETraining, TextToImageTraining])
def test_a_text_loss_is_refused_by_name(system, tmp_path: Path):
    with pytest.raises(ValueError, match=r"text_weight=0\.1.*mega predicts no text"):
        system(story_dalle(tmp_path))


def test_saved_and_opened_again_it_draws_the_same(tmp_path: Path):
    made = story_dalle(tmp_path, num_prompt_tokens=2)
    wake(made.model)
    made.half()
    made.float()  # weights are stored in half precision
    made.card["guidance"] = True
    made.save_pretrained(tmp_path / "x")
    again = StoryDALLE.from_pretrained(tmp_path / "x")
    assert isinstance(again.model.backbone, MegaDALLE)
    captions = ["Pip waves.", "She jumps."]
    for guidance in (1.0, 4.0):
        first, second = (one.generate(captions, None, 2, guidance=guidance) for one in (made, again))
        assert [x.tobytes() for x in first.frames] == [x.tobytes() for x in second.frames]


def test_a_backbone_of_an_unknown_kind_is_named(tmp_path: Path):
    story_dalle(tmp_path).save_pretrained(tmp_path / "x")
    file = tmp_path / "x" / CONFIG_NAME
    file.write_text(file.read_text().replace('"kind": "mega"', '"kind": "giga"'))
    with pytest.raises(ValueError, match=r"config\.json.*'giga' is none of dalle, mega"):
        StoryDALLE.from_pretrained(tmp_path / "x")
