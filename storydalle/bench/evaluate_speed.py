"""bench=evaluate: scoring the shipped model on stories of ToonSV, beside drawing the same frames alone."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from storydalle.bench.commanded import IMPORTING, commanded, importing_torch
from storydalle.bench.measuring import in_turn, seconds_of
from storydalle.bench.rows import BenchRow, Measured, spread_note, table
from storydalle.bench.shapes import Shape
from storydalle.bench.shipped import SHIPPED, opened, stories_for
from storydalle.models import kinds
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story

DRAWING, COMMAND = "drawing their frames alone", "storydalle evaluate"


def bench_evaluate(shape: Shape) -> Measured:
    """The command in a new process, from its start to the written tables, with the shipped baselines."""
    folder = kinds.locate(shape.model or SHIPPED)
    model = opened(folder)
    stories = stories_for(model, "test", shape.num_evaluated)
    with tempfile.TemporaryDirectory() as name:
        given = (f"model={folder.resolve()}", f"num_stories={len(stories)}", "splits=[test]", "out=scores")
        works: dict[str, Callable[[], object]] = {
            DRAWING: partial(drawn, model, stories, shape.seed),
            IMPORTING: importing_torch(Path(name)),
            COMMAND: commanded(Path(name), "evaluate", *given, f"seed={shape.seed}"),
        }
        measures = {name: seconds_of(work) for name, work in works.items()}
        found = in_turn(measures, shape.rounds, shape.seconds)
    floor = found[DRAWING].median + found[IMPORTING].median
    case = f"scoring {len(stories)} stories"
    rows = [BenchRow(case, name, timing, floor=floor if name == COMMAND else None) for name, timing in found.items()]
    text = (
        f"Evaluation of {shape.model or SHIPPED}; medians of {shape.rounds} rounds\n\n{table(rows)}\n\n"
        f"{spread_note(rows)} The floor is drawing the frames in a process that has imported torch; the command also "
        "draws those of the text-to-image model, scores true and copied frames, and opens the networks that score."
    )
    return Measured(text, {}, rows)


def drawn(model: StoryDALLE, stories: list[Story], seed: int) -> None:
    sources = to_tensor(np.stack([story.source for story in stories]))
    model.draw_stories([story.captions for story in stories], sources, seed)
