"""The part of an evaluation's page about continuation: each diagnostic with a picture."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from storydalle.evaluation.diagnostics import OTHER_SEEDS, VARIANTS
from storydalle.evaluation.entries import Entry, ModelEntry
from storydalle.evaluation.evaluation import Evaluation
from storydalle.evaluation.splits import Split
from storydalle.evaluation.tables import compact
from storydalle.metrics.copy_rate import copied_patches
from storydalle.metrics.declared import declared, explanation
from storydalle.reporting.strips import Strip
from storydalle.stories.images import from_images, to_images, to_picture

NUM_PATCHES = 7
DIMMED = 0.3  # what remains of a patch that is not copied


class ShownDiagnostic(NamedTuple):
    """A diagnostic: one line, its meaning, and a picture."""

    heading: str
    words: str = ""
    strip: Strip | None = None


def shown_diagnostics(evaluation: Evaluation, name: str, entry: Entry, index: int) -> Iterator[ShownDiagnostic]:
    """Each diagnostic of an entry, shown on one story."""
    split, values = evaluation.split, evaluation.rows[name]
    if isinstance(entry, ModelEntry) and name in evaluation.diagnoses:
        rows = evaluation.diagnoses[name].rows
        yield ShownDiagnostic("With the true inputs", strip=drawn(entry, split, index))
        for variant, (row, choose) in VARIANTS.items():
            score = f"change_{variant}_pixels"
            story = drawn(entry.varied(choose=choose), split, index)
            yield ShownDiagnostic(f"With {row}: change {compact(rows[row][score])}", explanation(score), story)
        other = drawn(entry.varied(seed=entry.seed + 1), split, index)
        change = compact(rows[OTHER_SEEDS]["diversity_pixels"])
        yield ShownDiagnostic(f"With another seed: change {change}", explanation("diversity_pixels"), other)
    if "copy_rate" in values:
        heading = f"Copy rate {compact(values['copy_rate'])}, by chance {compact(values['copy_rate_chance'])}"
        words = explanation("copy_rate") + " Below, patches that are not in the source are dimmed."
        yield ShownDiagnostic(heading, words, highlighted(strip_of(evaluation, name, index)))
    yield from described(values)


def described(values: Mapping[str, float]) -> Iterator[ShownDiagnostic]:
    """The diagnostics in words."""
    questions = {score: words for metric in declared() for score, words in metric.questions.items()}
    for score, words in questions.items():
        if score in values:
            levels = f"{compact(values[score])}, by chance {compact(values[f'{score}_chance'])}"
            yield ShownDiagnostic(f"{words}: {levels}", explanation(score))
    if "error_slope" in values:
        words = f"{explanation('error_slope')} The plot of errors above shows each frame's."
        yield ShownDiagnostic(f"Drift: {values['error_slope']:+.4f} of error a frame", words)


def drawn(entry: ModelEntry, split: Split, index: int) -> Strip:
    """A story, drawn from the inputs that the entry chooses."""
    captions, source = entry.choose(split.at(entry.model.resolution), index)
    frames = to_images(entry.frames(split, index, index + 1)[0])[: len(captions)]
    return Strip(captions, frames, Image.fromarray(source))


def strip_of(evaluation: Evaluation, row: str, index: int) -> Strip:
    """A story as the system of a row drew it, with the true frames."""
    (story,) = evaluation.split.group(index, index + 1)
    frames = to_images(evaluation.frames(row, index))[: len(story.frames)]
    true = [to_picture(frame) for frame in story.frames]
    return Strip(story.captions, frames, to_picture(story.source), references=true)


def highlighted(story: Strip) -> Strip:
    """Frames in which patches that are not in the source are dimmed; without the true frames."""
    assert story.source is not None
    side = story.frames[0].width
    frames = from_images(story.frames, side)
    copied = copied_patches(frames, from_images([story.source], side)[0]).copied
    weight = torch.where(covered(copied, side), 1.0, DIMMED)[:, None]
    return story._replace(frames=to_images((frames + 1) * weight - 1), references=())


def covered(copied: Bool[Tensor, "f p p"], side: int) -> Bool[Tensor, "f h w"]:
    """Pixels of copied patches, which are a quarter of the picture wide and overlap by half."""
    half = side // (NUM_PATCHES + 1)
    pixels = torch.zeros(len(copied), side, side, dtype=torch.bool)
    for frame, row, column in copied.nonzero().tolist():
        pixels[frame, row * half : (row + 2) * half, column * half : (column + 2) * half] = True
    return pixels
