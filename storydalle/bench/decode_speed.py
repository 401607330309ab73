"""bench=decode: the codes of one story, drawn by our loop and by that of the released program, with equal weights."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, cast

import torch

from storydalle.bench.cases import Case, rows_of
from storydalle.bench.floors import Floor
from storydalle.bench.measuring import seconds_of
from storydalle.bench.released_loop import released_sample
from storydalle.bench.rows import Measured, spread_note, table
from storydalle.bench.shapes import Drawing, Network, Shape
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt, Sampled, cache_bytes, sample

RELEASED = "released loop"
SAMPLING = CodeSampling(top_k=64, top_p=0.9)
SOURCES = {"with source": True, "without": False}


class Variant(NamedTuple):
    """One way of ours to draw codes."""

    draw: Callable[..., Sampled]  # as ``sampling.sample``
    bytes_a_weight: float


OURS = {"ours": Variant(sample, 4.0)}


def bench_decode(shape: Shape) -> Measured:
    """All loops in turn, with and without attention to the source frame: most of the gain is there."""
    rows = [row for case in story_cases(shape) for row in rows_of(case, shape)]
    equal = {row.case: row.agreement for row in rows if row.agreement is not None}
    text = (
        f"Codes of a story of {shape.decode.num_frames} frames; random weights in float32; medians of {shape.rounds} "
        f"rounds\n\n{table(rows)}\n\n{spread_note(rows)} The floor reads all weights once for each code of a frame, "
        "and makes the multiplications; a path's own floor also reads its cache, and weights as this path keeps them."
    )
    return Measured(text, {"share_of_equal_codes": equal}, rows)


def story_cases(shape: Shape) -> Iterator[Case]:
    """Whole stories, each case built when its turn comes."""
    for drawing in shape.decode.drawings:
        for source, has_source in SOURCES.items():
            model = random_model(shape.decode.network, drawing.image_length, has_source, shape.seed)
            yield story_case(model, drawing, shape, source)


def story_case(model: RetrofittedDALLE, drawing: Drawing, shape: Shape, source: str) -> Case:
    prompt = random_prompt(model, shape.decode.num_frames, shape.seed)
    given = (model, prompt, drawing.num_candidates, SAMPLING)
    draws = {RELEASED: partial(released_sample, *given)}
    draws |= {name: partial(lambda draw: draw(*given).codes, variant.draw) for name, variant in OURS.items()}
    codes = draws[RELEASED]()
    candidates = f", best of {drawing.num_candidates}" if drawing.num_candidates > 1 else ""
    floor = partial(own_floor, model, prompt, drawing.num_candidates)
    return Case(
        f"{size_of(model)}, {drawing.image_length} codes{candidates}, {source}",
        {name: seconds_of(draw) for name, draw in draws.items()},
        "ms a story",
        {name: (codes == draws[name]()).float().mean().item() for name in OURS},
        floor_of(model, prompt, drawing.num_candidates),
        {name: floor(variant.bytes_a_weight) for name, variant in OURS.items()},
        4 * numbers_a_step(model),
    )


def size_of(model: RetrofittedDALLE) -> str:
    """Weights of the backbone, in words."""
    millions = sum(parameter.numel() for parameter in model.backbone.parameters()) / 1e6
    return f"{millions / 1000:.1f} B" if millions >= 1000 else f"{millions:.2g} M"


# ------------------------------------------------------------------------------------------------ floors


def numbers_a_step(model: RetrofittedDALLE) -> int:
    """Weights that every step needs: those of the blocks, the queries and outputs to the source, the codes' head."""
    backbone = cast(DALLE, model.backbone)
    own = sum(parameter.numel() for parameter in [*backbone.blocks.parameters(), *backbone.head_img.parameters()])
    return own + 2 * len(model.source_attention) * backbone.dim**2


def floor_of(model: RetrofittedDALLE, prompt: Prompt, num_candidates: int) -> Floor:
    """Each weight is read once a step in float32, and multiplied with the columns of every row."""
    num_frames, length = len(prompt.keys), model.backbone.image_length
    columns = num_frames * prompt.tokens.shape[-1] + num_frames * num_candidates * (length - 1)
    return Floor(4 * numbers_a_step(model) * length, 2 * numbers_a_step(model) * columns)


def own_floor(model: RetrofittedDALLE, prompt: Prompt, num_candidates: int, bytes_a_weight: float) -> Floor:
    """The weights as they are kept, and the keys and values that are there: half of a frame's in the mean step."""
    weights, backbone = floor_of(model, prompt, num_candidates), model.backbone
    num_prefix = 0 if prompt.story is None else prompt.story.shape[2]
    columns = num_prefix + prompt.tokens.shape[-1] + backbone.image_length
    share = 1 - backbone.image_length / 2 / columns
    cache = share * cache_bytes(model, num_prefix) * len(prompt.keys) * num_candidates
    source = 0 if prompt.source is None else 4 * 2 * prompt.source.numel() * backbone.dim * len(model.source_attention)
    read = weights.num_bytes * bytes_a_weight / 4 + (cache + source) * backbone.image_length
    return Floor(read, weights.operations)


# ------------------------------------------------------------------------------------------------ what is drawn


def random_model(network: Network, image_length: int, has_source: bool, seed: int) -> RetrofittedDALLE:
    """A retrofitted minDALL-E of random weights, each a number of float16, as those of saved models are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = DALLE(
            text_vocab_size=network.text_vocab_size,
            image_vocab_size=network.image_vocab_size,
            text_length=network.text_length,
            image_length=image_length,
            dim=network.dim,
            depth=network.depth,
            num_heads=network.num_heads,
        )
        blocks = network.source_blocks if has_source else "none"
        model = retrofit(backbone, source_blocks=blocks, source_start="random").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


def random_prompt(model: RetrofittedDALLE, num_frames: int, seed: int) -> Prompt:
    """Captions of random words for one story, and a source if the model reads it."""
    backbone, generator = model.backbone, torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, backbone.text_vocab_size, (1, num_frames, backbone.text_length), generator=generator)
    source = torch.randint(backbone.num_codes, (1, 1, backbone.image_length), generator=generator)
    with torch.inference_mode():
        story = model.encode_story(tokens, torch.ones(1, num_frames, dtype=torch.bool))
    keys = [FrameKey(seed, 0, frame) for frame in range(num_frames)]
    return Prompt(tokens, story, source if len(model.source_attention) else None, keys)
