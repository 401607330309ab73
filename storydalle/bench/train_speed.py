"""bench=train: a training step of the shipped model, beside the step of the released program, on the same batch."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import numpy as np
import torch

from storydalle.bench.cases import Case, rows_of
from storydalle.bench.floors import Floor
from storydalle.bench.measuring import Measure
from storydalle.bench.released_training import BETAS, CLIP, DECAY, LEARNING_RATE, ReleasedTraining
from storydalle.bench.rows import Measured, spread_note, table
from storydalle.bench.shapes import Shape
from storydalle.bench.shipped import SHIPPED, opened, stories_for
from storydalle.bench.trained_steps import seconds_of_steps
from storydalle.models import kinds
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.training import precision
from storydalle.training.quiet import quieten
from storydalle.training.story_dalle_training import StoryDALLETraining

RELEASED, SINGLE = "released style, float32", "ours, float32"
TEXT_WEIGHT = 0.1
STEPS = 3  # a round; the first is not counted


def bench_train(shape: Shape) -> Measured:
    """Steps in float32, and ours in the precision that ``precision: auto`` takes on this machine."""
    quieten()
    model = opened(kinds.locate(shape.model or SHIPPED))
    batch = encoded(model, stories_for(model, "train", shape.batch_size))
    chosen, reason = precision.resolved(precision.AUTO, "cpu")
    auto = f"ours, precision auto: {chosen}"
    released, systems = ReleasedTraining(copy.deepcopy(model.model), TEXT_WEIGHT), {}
    measures: dict[str, Measure] = {RELEASED: partial(released.seconds_of_steps, batch, STEPS)}
    losses = {RELEASED: released.loss(batch).item()}
    for name, precise in ((SINGLE, precision.SINGLE), (auto, chosen)):
        systems[name] = system = our_training(copy.deepcopy(model), shape.seed)
        measures[name] = partial(seconds_of_steps, system, batch, STEPS, precise)
    losses[SINGLE] = loss_of(systems[SINGLE], batch)
    case = f"a step of {shape.batch_size} stories of {batch.mask.shape[1]} frames"
    rows = rows_of(Case(case, measures, "ms a step", floor=floor_of(model, batch)), shape)
    text = (
        f"Training of {shape.model or SHIPPED}, optimiser included; medians of {shape.rounds} rounds of {STEPS - 1} "
        f"steps\n\n{table(rows)}\n\n{spread_note(rows)} Before the first step the loss is {losses[RELEASED]:.4f} in "
        f"released style and {losses[SINGLE]:.4f} in ours. {reason}. The floor makes the multiplications in float32."
    )
    return Measured(text, {"loss": losses, "precision": {"auto": chosen, "reason": reason}}, rows)


def our_training(model: StoryDALLE, seed: int) -> StoryDALLETraining:
    """Training with the loss of the released program alone: no code weighs more, and no bags of codes are learned."""
    return StoryDALLETraining(
        model,
        learning_rate=LEARNING_RATE,
        source_learning_rate=LEARNING_RATE,
        story_learning_rate=LEARNING_RATE,
        weight_decay=DECAY,
        warmup_steps=1,
        bag_weight=0.0,
        changed_weight=1.0,
        text_weight=TEXT_WEIGHT,
        clip=CLIP,
        seed=seed,
        betas=BETAS,
        schedule="constant",
    ).train()


@contextmanager
def unheard(system: StoryDALLETraining) -> Iterator[None]:
    """Let a step run outside of a trainer, which it otherwise logs to."""
    system.log = system.log_dict = lambda *_, **__: None  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        del system.log, system.log_dict


@torch.no_grad()
def loss_of(system: StoryDALLETraining, batch: EncodedStories) -> float:
    """The loss of a step, outside of a training."""
    with unheard(system):
        return system.training_step(batch, 0).item()


@torch.no_grad()
def encoded(model: StoryDALLE, stories: Sequence[Story]) -> EncodedStories:
    """Stories of one length as a training reads them."""
    captions = [caption for story in stories for caption in story.captions]
    tokens = model.caption_tokenizer.encode(captions).tokens.unflatten(0, (len(stories), -1))
    pictures = to_tensor(np.stack([frame for story in stories for frame in (story.source, *story.frames)]))
    codes = torch.cat([model.image_tokenizer.encode(part) for part in pictures.split(32)])
    codes = codes.unflatten(0, (len(stories), -1))  # b (1 + f) l
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    return EncodedStories(
        tokens.clone(), tokens[:, :0].clone(), codes[:, 0].clone(), codes[:, 1:].clone(), mask, {}, {}
    )


def floor_of(model: StoryDALLE, batch: EncodedStories) -> Floor:
    """Forward, and twice as much backward: two operations for a weight and a column that it is multiplied with."""
    backbone, source_attention = cast(DALLE, model.model.backbone), model.model.source_attention
    num_codes, num_rows = batch.codes.shape[-1], batch.mask.numel()
    columns = len(backbone.used_columns(batch.tokens.flatten(0, 1))) + num_codes - 1
    in_blocks = sum(parameter.numel() for parameter in backbone.blocks.parameters())
    at_codes = backbone.head_img.weight.numel() + 2 * len(source_attention) * backbone.dim**2
    weights = sum(parameter.numel() for parameter in model.model.parameters())
    return Floor(4.0 * weights, 6.0 * num_rows * (in_blocks * columns + at_codes * num_codes))
