"""bench=story_gan: a training step of StoryGANc beside the same step written plainly."""

from functools import partial

from storydalle.bench.measuring import in_turn
from storydalle.bench.plain_story_gan import PlainTraining
from storydalle.bench.rows import BenchRow, Measured, spread_note, table
from storydalle.bench.shapes import Shape
from storydalle.bench.trained_steps import seconds_of_steps
from storydalle.mistakes import UserError
from storydalle.models import kinds
from storydalle.models.story_gan.model import StoryGANc
from storydalle.stories.story import StoryBatch, batch_of
from storydalle.stories.toon import ToonSV
from storydalle.training import precision
from storydalle.training.quiet import quieten
from storydalle.training.story_gan_training import StoryGANTraining

PLAIN, OURS = "plain loop", "ours"
STEPS = 3  # a round; the first is not counted


def bench_story_gan(shape: Shape) -> Measured:
    """Steps of both, in float32 and in bfloat16, if this processor is fast at it, in turn."""
    quieten()
    chosen, reason = precision.resolved(precision.AUTO, "cpu")
    precisions = {"float32": precision.SINGLE} | ({"bfloat16": chosen} if chosen == precision.HALF else {})
    story_gan = opened(shape.model or "storyganc")
    batch = batch_of(list(ToonSV("train", shape.batch_size, resolution=story_gan.resolution)))
    variants = {PLAIN: PlainTraining, OURS: StoryGANTraining}
    steps = {
        f"{name}, {dtype}": partial(step_seconds, variant, story_gan, batch, lightning_name)
        for dtype, lightning_name in precisions.items()
        for name, variant in variants.items()
    }
    timings = in_turn(steps, shape.rounds, shape.seconds)
    found = {name: timing.median for name, timing in timings.items()}
    case = f"{shape.batch_size} stories of {batch.mask.shape[1]} frames of {story_gan.resolution} pixels"
    floor = found[f"{PLAIN}, float32"]
    rows = [BenchRow(case, name, timing, floor / timing.median, "ms a step") for name, timing in timings.items()]
    ratios = {name: found[f"{PLAIN}, {name}"] / found[f"{OURS}, {name}"] for name in precisions}
    text = (
        f"Training StoryGANc; medians of {shape.rounds} rounds of {STEPS - 1} steps\n\n"
        f"{table(rows)}\n\n{spread_note(rows)} "
        + ", ".join(f"In {name} ours is {ratio:.2f} times as fast as the plain loop" for name, ratio in ratios.items())
        + f". {reason}."
    )
    return Measured(text, {"seconds_a_step": found, "ratio_at_equal_precision": ratios}, rows)


def opened(model: str) -> StoryGANc:
    """The StoryGANc of a name, which knows ToonSV's characters."""
    story_gan = kinds.open_model(kinds.locate(model))
    if not isinstance(story_gan, StoryGANc):
        raise UserError(f"model={model} is a {type(story_gan).__name__}: bench=story_gan takes a StoryGANc")
    known = ToonSV("train", 1).outline(0).labels["characters"].shape[-1]
    if story_gan.num_characters != known:
        raise UserError(
            f"model={model} names {story_gan.num_characters} characters and ToonSV has {known}: "
            "bench=story_gan takes a model trained on ToonSV"
        )
    return story_gan


def step_seconds(
    variant: type[StoryGANTraining], story_gan: StoryGANc, batch: StoryBatch, lightning_name: str
) -> list[float]:
    """Seconds of the steps of a round but for the first."""
    return seconds_of_steps(variant(story_gan).train(), batch, STEPS, lightning_name)
