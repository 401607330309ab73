"""bench=decode: the codes of one story, drawn by our loop and by that of the released program, with equal weights."""

from functools import partial
from typing import NamedTuple

import torch

from storydalle.bench.measuring import Measure, medians, seconds_of
from storydalle.bench.released_loop import released_sample
from storydalle.bench.rows import Measured
from storydalle.bench.shapes import Shape
from storydalle.evaluation.toon_table import markdown
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt, sample

RELEASED, OURS = "released loop", "ours"
SAMPLING = CodeSampling(top_k=64, top_p=0.9)
NUM_FRAMES = 4


class Case(NamedTuple):
    """One story of four frames, drawn by a model of 6 M random weights."""

    name: str
    image_length: int  # codes a frame
    num_candidates: int


CASES = (Case("64 codes", 64, 1), Case("256 codes", 256, 1), Case("64 codes, best of 16", 64, 16))
SOURCES = {"with source": True, "without": False}


def bench_decode(shape: Shape) -> Measured:
    """Both loops in turn, with and without attention to the source frame: most of the gain is there."""
    measures: dict[str, Measure] = {}
    equal: dict[str, float] = {}
    for case in CASES:
        for source, has_source in SOURCES.items():
            model = random_model(case.image_length, has_source, shape.seed)
            drawing = (model, random_prompt(model, shape.seed), case.num_candidates, SAMPLING)
            released, ours = partial(released_sample, *drawing), partial(sample, *drawing)
            name = f"{case.name}, {source}"
            equal[name] = (released() == ours().codes).float().mean().item()  # both are warm now
            measures |= {f"{name}, {RELEASED}": seconds_of(released), f"{name}, {OURS}": seconds_of(ours)}
    seconds = medians(measures, shape.rounds)
    ratios = {name: seconds[f"{name}, {RELEASED}"] / seconds[f"{name}, {OURS}"] for name in equal}
    columns = (f"{RELEASED}, ms", f"{OURS}, ms", "ratio")
    head = ["", *(f"{source}: {column}" for source in SOURCES for column in columns)]
    least = 100 * min(equal.values())
    text = (
        f"The codes of a story of {NUM_FRAMES} frames; 6 M random weights in float32; medians of {shape.rounds} "
        f"rounds\n\n{markdown(head, [row_of(case, seconds, ratios) for case in CASES])}\n\n"
        f"In each row both draw the same codes, but for {100 - least:.1f} % at most."
    )
    return Measured(text, {"seconds_a_story": seconds, "ratio": ratios, "share_of_equal_codes": equal})


def row_of(case: Case, seconds: dict[str, float], ratios: dict[str, float]) -> list[str]:
    """Milliseconds of both loops and their ratio, with the source and without."""
    cells = [case.name]
    for name in (f"{case.name}, {source}" for source in SOURCES):
        cells += [f"{1000 * seconds[f'{name}, {loop}']:.0f}" for loop in (RELEASED, OURS)] + [f"{ratios[name]:.2f}"]
    return cells


def random_model(image_length: int, has_source: bool, seed: int) -> RetrofittedDALLE:
    """A retrofitted minDALL-E of 6 M weights, drawn at random."""
    sizes = {"text_vocab_size": 1024, "image_vocab_size": 2048, "text_length": 32, "image_length": image_length}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = DALLE(**sizes, dim=256, depth=6, num_heads=8)
        return retrofit(backbone, source_blocks="all" if has_source else "none", source_start="random").eval()


def random_prompt(model: RetrofittedDALLE, seed: int) -> Prompt:
    """Captions of random words for one story, and a source if the model reads it."""
    backbone, generator = model.backbone, torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, backbone.text_vocab_size, (1, NUM_FRAMES, backbone.text_length), generator=generator)
    source = torch.randint(backbone.num_codes, (1, 1, backbone.image_length), generator=generator)
    with torch.inference_mode():
        story = model.encode_story(tokens, torch.ones(1, NUM_FRAMES, dtype=torch.bool))
    keys = [FrameKey(seed, 0, frame) for frame in range(NUM_FRAMES)]
    return Prompt(tokens, story, source if len(model.source_attention) else None, keys)
