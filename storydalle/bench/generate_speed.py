"""bench=generate: a strip of four frames by the shipped model, as a call of the model and from the command's start.

The loop of the released program draws the same codes with the same weights; encoding the source, decoding the codes and
making pictures of them is the same for both.
"""

import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from storydalle.bench.cases import Case, rows_of
from storydalle.bench.commanded import IMPORTING, commanded, importing_torch
from storydalle.bench.decode_floors import story_floor, weights_a_step
from storydalle.bench.decode_speed import ways
from storydalle.bench.measuring import in_turn, seconds_of
from storydalle.bench.released_loop import released_sample
from storydalle.bench.rows import BenchRow, Measured, spread_note, table
from storydalle.bench.shapes import Shape
from storydalle.bench.shipped import SHIPPED, opened, stories_for
from storydalle.files.whole import write_text
from storydalle.models import kinds
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt
from storydalle.stories.images import from_images, to_images
from storydalle.stories.story import Story

RELEASED, OURS, COMMAND = "released loop", "ours", "storydalle generate"


def bench_generate(shape: Shape) -> Measured:
    folder = kinds.locate(shape.model or SHIPPED)
    model = opened(folder)
    [story] = stories_for(model, "test", 1)
    rows = rows_of(call_case(model, story, shape), shape)
    with tempfile.TemporaryDirectory() as name:
        rows += rows_of_process(Path(name), folder, story, shape)
    text = (
        f"A strip of {len(story.captions)} frames of {model.resolution} pixels; medians of {shape.rounds} rounds\n\n"
        f"{table(rows)}\n\n{spread_note(rows)} The floor of the model's call is that of drawing the codes."
    )
    return Measured(text, {}, rows)


# ------------------------------------------------------------------------------------------------ the model's call


def call_case(model: StoryDALLE, story: Story, shape: Shape) -> Case:
    source = Image.fromarray(story.source)
    prompt, sampling = prompt_of(model, story, shape.seed), model.sampling()
    floor = partial(story_floor, model.model, prompt, 1)
    return Case(
        f"{SHIPPED if shape.model is None else shape.model}: a call of the model",
        {
            RELEASED: seconds_of(lambda: released_strip(model, story, shape.seed)),
            OURS: seconds_of(lambda: model.generate(story.captions, source, seed=shape.seed)),
        },
        "ms a story",
        lambda: {OURS: (our_codes(model, prompt) == released_codes(model, prompt, sampling)).float().mean().item()},
        floor(),
        {OURS: floor(ways(model.model)[OURS].bytes_a_weight)},
        4 * weights_a_step(model.model, prompt),
    )


@torch.inference_mode()
def prompt_of(model: StoryDALLE, story: Story, seed: int) -> Prompt:
    tokens = model.caption_tokenizer.encode(story.captions).tokens[None]  # 1 f t
    encoded = model.model.encode_story(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
    pixels = from_images([Image.fromarray(story.source)], model.resolution)
    keys = [FrameKey(seed, 0, frame) for frame in range(tokens.shape[1])]
    return Prompt(tokens, encoded, model.image_tokenizer.encode(pixels)[:, None], keys)


def released_codes(model: StoryDALLE, prompt: Prompt, sampling: CodeSampling) -> Int[Tensor, "f l"]:
    return released_sample(model.model, prompt, 1, sampling)[:, 0]


def our_codes(model: StoryDALLE, prompt: Prompt) -> Int[Tensor, "f l"]:
    assert prompt.source is not None
    return model.draw(prompt.tokens, prompt.source[:, 0], prompt.keys).codes[:, 0]


@torch.inference_mode()
def released_strip(model: StoryDALLE, story: Story, seed: int) -> list[Image.Image]:
    """Everything that a call of the model does, with the loop of the released program in the middle."""
    codes = released_codes(model, prompt_of(model, story, seed), model.sampling())
    return to_images(model.image_tokenizer.decode(codes))


# ------------------------------------------------------------------------------------------------ a new process


def rows_of_process(folder: Path, model: Path, story: Story, shape: Shape) -> list[BenchRow]:
    """From the start of the command to the written strip, beside a process that imports torch alone."""
    Image.fromarray(story.source).save(folder / "source.png")
    write_text(folder / "captions.json", json.dumps(story.captions))
    given = ("captions=captions.json", "source=source.png", "out=strip", "overwrite=true", f"model={model.resolve()}")
    works = {IMPORTING: importing_torch(folder), COMMAND: commanded(folder, "generate", *given, f"seed={shape.seed}")}
    found = in_turn({name: seconds_of(work) for name, work in works.items()}, shape.rounds, shape.seconds)
    floor = found[IMPORTING].median
    return [BenchRow("from the start to the strip", name, timing, floor=floor) for name, timing in found.items()]
