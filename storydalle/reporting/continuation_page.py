"""The part of an evaluation's page that asks whether a story is a continuation: each diagnostic with a picture."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from storydalle.evaluation.diagnostics import OTHER_SEEDS, VARIANTS
from storydalle.evaluation.entries import DrawingModel, Subjects, System
from storydalle.evaluation.tables import compact
from storydalle.metrics.copy_rate import copied_patches
from storydalle.metrics.declared import declared, explanation
from storydalle.reporting import strips
from storydalle.stories.images import from_images, to_images, to_picture

if TYPE_CHECKING:
    from storydalle.evaluation.evaluation import Evaluated

NUM_PATCHES = 7
DIMMED = 0.3  # what remains of a patch that is not copied


class Shown(NamedTuple):
    """A story with some inputs, and what was drawn for them."""

    captions: list[str]
    source: Image.Image
    frames: list[Image.Image]


def continuation_section(evaluated: "Evaluated", name: str, system: System, index: int) -> Iterator[str]:
    """Each diagnostic of a system on one story, as html: two sentences, then what it looks like."""
    subjects, values = evaluated.subjects, evaluated.rows[name]
    yield f"<h2>{strips.escaped(f'{name}: is it a continuation?')}</h2>"
    if isinstance(system, DrawingModel) and name in evaluated.diagnoses:
        rows = evaluated.diagnoses[name].rows
        yield from shown("With the true inputs", "", drawn(system, subjects, index))
        for variant, (row, choose) in VARIANTS.items():
            score = f"change_{variant}_pixels"
            story = drawn(system.varied(choose=choose), subjects, index)
            yield from shown(f"With {row}: change {compact(rows[row][score])}", explanation(score), story)
        other = drawn(system.varied(seed=system.seed + 1), subjects, index)
        change = compact(rows[OTHER_SEEDS]["diversity_pixels"])
        yield from shown(f"With another seed: change {change}", explanation("diversity_pixels"), other)
    if "copy_rate" in values:
        heading = f"Copy rate {compact(values['copy_rate'])}, by chance {compact(values['copy_rate_chance'])}"
        said = explanation("copy_rate") + " Below, patches that are not in the source are dimmed."
        yield from shown(heading, said, highlighted(stored(system, subjects, index)))
    yield from described(values)


def described(values: Mapping[str, float]) -> Iterator[str]:
    """What stands in the tables and plots, in words."""
    questions = {score: words for metric in declared() for score, words in metric.questions.items()}
    for score, words in questions.items():
        if score in values:
            levels = f"{compact(values[score])}, by chance {compact(values[f'{score}_chance'])}"
            yield f"<h3>{words}: {levels}</h3><p>{strips.escaped(explanation(score))}</p>"
    if "error_slope" in values:
        said = f"{explanation('error_slope')} The plot of errors above shows each frame's."
        yield f"<h3>Drift: {values['error_slope']:+.4f} of error a frame</h3><p>{strips.escaped(said)}</p>"


def shown(heading: str, said: str, story: Shown) -> list[str]:
    text = f"<p>{strips.escaped(said)}</p>" if said else ""
    strip = strips.Strip(story.captions, story.frames, story.source)
    return [f"<h3>{strips.escaped(heading)}</h3>{text}{strips.strip_section(strip)}"]


def drawn(system: DrawingModel, subjects: Subjects, index: int) -> Shown:
    """A story as it is drawn from a system's own choice of inputs."""
    captions, source = system.choose(subjects.at(system.model.resolution), index)
    frames = to_images(system.frames(subjects, index, index + 1)[0])[: len(captions)]
    return Shown(captions, Image.fromarray(source), frames)


def stored(system: System, subjects: Subjects, index: int) -> Shown:
    (story,) = subjects.group(index, index + 1)
    frames = to_images(system.frames(subjects, index, index + 1)[0])[: len(story.frames)]
    return Shown(story.captions, to_picture(story.source), frames)


def highlighted(story: Shown) -> Shown:
    """Frames whose patches are dim but for those that lie in the source."""
    side = story.frames[0].width
    frames = from_images(story.frames, side)
    copied = copied_patches(frames, from_images([story.source], side)[0]).copied
    weight = torch.where(covered(copied, side), 1.0, DIMMED)[:, None]
    return story._replace(frames=to_images((frames + 1) * weight - 1))


def covered(copied: Bool[Tensor, "f p p"], side: int) -> Bool[Tensor, "f h w"]:
    """Pixels of copied patches, which are a quarter of the picture wide and overlap by half."""
    half = side // (NUM_PATCHES + 1)
    pixels = torch.zeros(len(copied), side, side, dtype=torch.bool)
    for frame, row, column in copied.nonzero().tolist():
        pixels[frame, row * half : (row + 2) * half, column * half : (column + 2) * half] = True
    return pixels
