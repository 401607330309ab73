"""bench=growth: time and memory against story length, candidates, batch, model size and data set size.

Along each axis everything else stays, and an exponent is fitted: time is proportional to size ** exponent. Memory is
that of the tensors that were made, without the weights.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storydalle.bench.decode_speed import SAMPLING
from storydalle.bench.measuring import in_turn, seconds_of
from storydalle.bench.peak_memory import PeakMemory
from storydalle.bench.random_models import random_model, random_prompt
from storydalle.bench.rows import BenchRow, Measured, spread_note, table
from storydalle.bench.shapes import Shape
from storydalle.bench.shipped import SHIPPED, opened, stories_for
from storydalle.bench.train_speed import encoded, our_training, unheard
from storydalle.evaluation.toon_table import markdown
from storydalle.models import kinds
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import sample
from storydalle.stories.toon import ToonSV
from storydalle.tokens.encoding import build_cache
from storydalle.training.quiet import quieten

Run = Callable[[], object]


class Axis(NamedTuple):
    """An axis that grows, and the run at each size."""

    name: str
    runs: Mapping[int, Run]


class Exponents(NamedTuple):
    time: float | None
    memory: float | None


def bench_growth(shape: Shape) -> Measured:
    quieten()
    rows, fitted = list[BenchRow](), dict[str, Exponents]()
    for axis in axes(shape):
        found = rows_along(axis, shape)
        rows += found
        sizes = list(axis.runs)
        times, peaks = [row.timing.median for row in found], [float(row.peak_bytes or 0) for row in found]
        fitted[axis.name] = Exponents(exponent(sizes, times), exponent(sizes, peaks))
    lines = [[name, *("-" if value is None else f"{value:.2f}" for value in found)] for name, found in fitted.items()]
    text = (
        f"Growth; medians of {shape.rounds} rounds\n\n{markdown(['exponent of', 'time', 'peak memory'], lines)}\n\n"
        f"{table(rows)}\n\n{spread_note(rows)}"
    )
    return Measured(text, {"exponents": {name: found._asdict() for name, found in fitted.items()}}, rows)


def rows_along(axis: Axis, shape: Shape) -> list[BenchRow]:
    measures = {str(size): seconds_of(run) for size, run in axis.runs.items()}
    found = in_turn(measures, shape.rounds, shape.seconds)
    rows = []
    for size, run in axis.runs.items():
        with PeakMemory([]) as memory:
            run()
        rows.append(BenchRow(axis.name, f"{size:,}", found[str(size)], peak_bytes=memory.peak))
    return rows


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float | None:
    """The slope of a line through the logarithms; None if nothing was used."""
    if min(values) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


# ------------------------------------------------------------------------------------------------ what grows


def axes(shape: Shape) -> Iterator[Axis]:
    """Each axis is built when its turn comes."""
    growth, network = shape.growth, shape.decode.network
    length, num_frames = shape.decode.drawings[0].image_length, shape.decode.num_frames
    model = random_model(network, length, shape.seed)

    def drawn(model: RetrofittedDALLE, num_frames: int, num_candidates: int = 1) -> Run:
        return partial(sample, model, random_prompt(model, num_frames, shape.seed, length), num_candidates, SAMPLING)

    yield Axis("drawing, by frames of the story", {number: drawn(model, number) for number in growth.frames})
    yield Axis("drawing, by candidates", {number: drawn(model, num_frames, number) for number in growth.candidates})
    models = [random_model(replace(network, dim=width), length, shape.seed) for width in growth.widths]
    sized = {sum(parameter.numel() for parameter in each.backbone.parameters()): each for each in models}
    yield Axis(
        "drawing, by weights of the transformer", {size: drawn(each, num_frames) for size, each in sized.items()}
    )
    shipped = opened(kinds.locate(shape.model or SHIPPED))
    steps = {number: trained(shipped, number, shape) for number in growth.stories}
    yield Axis("training, by stories of the batch", steps)
    with tempfile.TemporaryDirectory() as name:
        runs = {number: prepared(shipped, number, Path(name), shape) for number in growth.set_sizes}
        yield Axis("preparing, by stories of the data set", runs)


def trained(model: StoryDALLE, num_stories: int, shape: Shape) -> Run:
    """Forward and backward of one batch, as the training makes them."""
    system = our_training(model, shape.seed)
    batch = encoded(model, stories_for(model, "train", num_stories))

    def step() -> None:
        with unheard(system):
            system.training_step(batch, 0).backward()
        system.zero_grad()

    return step


def prepared(model: StoryDALLE, num_stories: int, folder: Path, shape: Shape) -> Run:
    """Encode the stories of a data set into a new cache."""
    stories = ToonSV("train", num_stories, resolution=model.resolution)

    def prepare() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            build_cache(stories, model.image_tokenizer, model.caption_tokenizer, Path(name), shape.workers)

    return prepare
