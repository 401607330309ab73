"""bench=decode: codes drawn by our loop and by that of the released program, with equal weights.

Whole stories of a small model, and steps of one of minDALL-E's size. Most of the gain is in the attention to the
source, so everything is measured with and without it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from storydalle.bench import hugging_face
from storydalle.bench.cases import Case, rows_of
from storydalle.bench.decode_floors import step_floor, story_floor, weights_a_step
from storydalle.bench.floors import Floor
from storydalle.bench.measuring import Measure, seconds_of, steps_of
from storydalle.bench.random_models import num_weights, random_model, random_prompt
from storydalle.bench.released_loop import released_sample
from storydalle.bench.rows import DEFAULT, BenchRow, Measured, spread_note, table
from storydalle.bench.shapes import Drawing, LargeShape, Shape
from storydalle.files.process_memory import free_bytes, told_bytes
from storydalle.models import packing
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import CodeSampling, Prompt, sample

RELEASED = "released loop"
SAMPLING = CodeSampling(top_k=64, top_p=0.9)
Work = Callable[[], object]
NO_WORKS: Mapping[str, Work] = MappingProxyType({})
COPIES = 2  # of the weights of a large model: as they are opened, and as a loop joins or packs them


class Way(NamedTuple):
    """One way of ours to draw codes."""

    sampling: CodeSampling
    bytes_a_weight: float  # as it keeps and reads them


class Draw:
    """A loop that draws codes, and the codes that it drew last."""

    def __init__(self, loop: Callable[..., Int[Tensor, "r k l"]]) -> None:
        self.loop = loop
        self.codes: Int[Tensor, "r k l"] | None = None

    def __call__(self, **watched: object) -> None:
        """``progress`` may be given."""
        self.codes = self.loop(**watched)


def ways(model: RetrofittedDALLE) -> dict[str, Way]:
    """The default, and the other layouts of the weights for which this processor has fast kernels.

    The weights of all benches are numbers of 16 bits, as those of files are, so that the default packs them as such.
    """
    fast = [name for name in ("fp16", "bf16") if packing.resolved(name)[0] == name]
    is_half = "fp16" in fast and model.backbone.dim**2 >= packing.smallest_half()
    found = {
        DEFAULT: Way(SAMPLING, 2.0 if is_half else 4.0),
        "ours, plain": Way(replace(SAMPLING, packing="plain"), 4.0),
    }
    others = [name for name in fast if name != "fp16" or not is_half]
    return found | {f"ours, {name}": Way(replace(SAMPLING, packing=name), 2.0) for name in others}


class RandomStory(NamedTuple):
    """Frames of a story, to be drawn with a model of random weights."""

    model: RetrofittedDALLE
    prompt: Prompt
    num_candidates: int

    def draws(self) -> dict[str, Draw]:
        """The released loop, and each way of ours, for the same codes."""

        def ours(way: Way) -> Draw:
            return Draw(lambda **watched: sample(*self, way.sampling, **watched).codes)

        found = {RELEASED: Draw(partial(released_sample, *self, SAMPLING))}
        return found | {name: ours(way) for name, way in ways(self.model).items()}

    def case(
        self,
        name: str,
        unit: str,
        measure: Callable[[Work], Measure],
        floor: Callable[..., Floor],
        others: Mapping[str, Work] = NO_WORKS,
        **more: Any,
    ) -> Case:
        """All of them as ``measure`` measures them, beside the floor in float32 and that of each way of ours."""
        draws = self.draws()
        works: dict[str, Work] = {**draws, **others}
        return Case(
            name,
            {each: measure(work) for each, work in works.items()},
            unit,
            partial(agreement, draws),
            floor(*self),
            {each: floor(*self, way.bytes_a_weight) for each, way in ways(self.model).items()},
            4 * weights_a_step(self.model, self.prompt),
            **more,
        )


def bench_decode(shape: Shape) -> Measured:
    rows = [row for case in story_cases(shape) for row in rows_of(case, shape)]
    notes = [] if hugging_face.is_there() else [hugging_face.MISSING]
    if refusal := too_large(shape.large):
        notes.append(refusal)
    else:
        rows += [row for case in step_cases(shape) for row in rows_of(case, shape)]
    faster = beside_generate(rows)
    notes += [f"{name}: ours is {ratio:.2f} times as fast as {hugging_face.NAME}." for name, ratio in faster.items()]
    text = (
        f"Drawing codes; random weights in float32, numbers of float16; medians of {shape.rounds} rounds\n\n"
        f"{table(rows)}\n\n{spread_note(rows)} The floor reads all weights once for each code of a frame, and makes "
        "the multiplications; a path's own floor reads weights as this path keeps them, and its keys and values."
    )
    return Measured("\n\n".join([text, *notes]), {"times_as_fast_as_generate": faster}, rows)


def story_cases(shape: Shape) -> Iterator[Case]:
    """Whole stories of a small model."""
    network, num_frames = shape.decode.network, shape.decode.num_frames
    for drawing in shape.decode.drawings:
        model, num_candidates = random_model(network, drawing.image_length, shape.seed), drawing.num_candidates
        for source, prompt in prompts_of(model, num_frames, shape.seed, drawing.image_length).items():
            others: Mapping[str, Work] = {}
            if prompt.source is None and hugging_face.is_there():
                num_rows = num_frames * num_candidates
                others = hugging_face.generating(network, drawing.image_length, num_rows, SAMPLING, shape.seed)
            name = f"{size_of(model)}, {told(drawing)}, {source}"
            drawn = RandomStory(model, prompt, num_candidates)
            yield drawn.case(name, "ms a story", seconds_of, story_floor, others)


def step_cases(shape: Shape) -> Iterator[Case]:
    """Steps of a model of minDALL-E's size: one round, of so many steps that they tell their spread."""
    large = shape.large
    model = random_model(large.network, large.num_steps, shape.seed)
    for source, prompt in prompts_of(model, large.num_frames, shape.seed, large.source_length).items():
        name = f"{size_of(model)} ({large.network.depth} blocks), a step of {large.num_frames} rows, {source}"
        drawn = RandomStory(model, prompt, num_candidates=1)
        yield drawn.case(name, "ms a step", steps_of, step_floor, warm=ways(model).keys() | {RELEASED}, rounds=1)


def prompts_of(model: RetrofittedDALLE, num_frames: int, seed: int, source_length: int) -> dict[str, Prompt]:
    """The same captions with a source and without one."""
    prompt = random_prompt(model, num_frames, seed, source_length)
    return {"with source": prompt, "without": prompt._replace(source=None)}


def agreement(draws: Mapping[str, Draw]) -> dict[str, float]:
    """Of each way of ours, the share of codes that are those of the released loop."""
    codes = {name: draw.codes for name, draw in draws.items() if draw.codes is not None}
    released = codes.pop(RELEASED)
    return {name: (drawn == released).float().mean().item() for name, drawn in codes.items()}


def too_large(large: LargeShape) -> str | None:
    """Why the large model is not measured, if it needs more memory than there is."""
    needed, free = 4 * COPIES * num_weights(large.network), free_bytes()
    if needed <= free:
        return None
    return (
        f"{large.network.depth} blocks of width {large.network.dim} are not measured: they need {told_bytes(needed)} "
        f"of memory, and {told_bytes(free)} are free; a slice of them is measured with large.network.depth=6"
    )


def beside_generate(rows: list[BenchRow]) -> dict[str, float]:
    """How many times as fast ours is as ``transformers.generate`` with the better of its caches, in each case."""
    found: dict[str, float] = {}
    for case in dict.fromkeys(row.case for row in rows):
        seconds = {row.variant: row.timing.median for row in rows if row.case == case}
        theirs = [value for name, value in seconds.items() if name.startswith(hugging_face.NAME)]
        if theirs:
            found[case] = min(theirs) / seconds[DEFAULT]
    return found


def told(drawing: Drawing) -> str:
    candidates = f", best of {drawing.num_candidates}" if drawing.num_candidates > 1 else ""
    return f"{drawing.image_length} codes{candidates}"


def size_of(model: RetrofittedDALLE) -> str:
    """Weights of the backbone, in words."""
    millions = sum(parameter.numel() for parameter in model.backbone.parameters()) / 1e6
    if millions >= 1000:
        return f"{millions / 1000:.1f} B"
    return f"{millions:.2g} M" if millions < 100 else f"{millions:.0f} M"
