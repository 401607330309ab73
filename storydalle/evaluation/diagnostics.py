"""Is it a continuation? Draw stories again with one input replaced, and with other seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from storydalle.evaluation.entries import Choice, Inputs, ModelEntry, own_inputs
from storydalle.evaluation.judges import Scorecard, SplitJudges
from storydalle.evaluation.splits import Split
from storydalle.evaluation.tables import score_table
from storydalle.files.process_memory import hand_memory_back
from storydalle.metrics.declared import DIAGNOSED, columns_of
from storydalle.metrics.resampling import Interval
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.sensitivity import Diversity, InputSensitivity, Kind
from storydalle.stories.story import Stories

NUM_SEEDS = 3
TRUE, OTHER_SEEDS = "true inputs", "other seeds"
GREY = 127
LEGEND = (
    "Scores are against the story that the captions tell; *change* is to the frames drawn with the true inputs: mean "
    "absolute difference, and 1 - cosine of features. That of *other seeds* is between the frames of any two of "
    f"{NUM_SEEDS} seeds, which is the change by chance alone."
)


def other_source(stories: Stories, index: int) -> Inputs:
    return own_inputs(stories, index)[0], own_inputs(stories, other(stories, index))[1]


def blank_source(stories: Stories, index: int) -> Inputs:
    captions, source = own_inputs(stories, index)
    return captions, np.full_like(source, GREY)


def shuffled_captions(stories: Stories, index: int) -> Inputs:
    """Each frame gets the next frame's caption, the last one the first's."""
    captions, source = own_inputs(stories, index)
    return [*captions[1:], captions[0]], source


def other(stories: Stories, index: int) -> int:
    """A story far away in the split, since neighbours may be from the same episode."""
    return (index + len(stories) // 2) % len(stories)


class Variant(NamedTuple):
    """A replacement of inputs: the name of its row, and a function that chooses the inputs."""

    row: str
    choose: Choice


VARIANTS = {  # by the names of their scores, change_<name>_pixels and change_<name>_features
    "other_source": Variant("another story's source", other_source),
    "blank_source": Variant("blank source", blank_source),
    "shuffled_captions": Variant("shuffled captions", shuffled_captions),
}


CHANGES = (*(f"change_{name}" for name in VARIANTS), "diversity")
KINDS: tuple[Kind, ...] = ("pixels", "features")
Score = TypeVar("Score")


class Diagnosis(NamedTuple):
    """A row a variant."""

    rows: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval]]
    num_stories: int

    def text(self, name: str, with_intervals: bool = False) -> str:
        rows = {row: in_columns(each) for row, each in self.rows.items()}
        intervals = {row: in_columns(each) for row, each in self.intervals.items()}
        return (
            f"What {name} does with its inputs, on {self.num_stories} stories\n\n"
            f"{score_table(rows, columns_of(DIAGNOSED), intervals if with_intervals else None)}\n\n{LEGEND}"
        )


def in_columns(scores: Mapping[str, Score]) -> dict[str, Score]:
    """A row's values by column; the changes of all rows are in one column."""
    changes = {f"{prefix}_{kind}": f"change_{kind}" for prefix in CHANGES for kind in KINDS}
    return {changes.get(name, name): value for name, value in scores.items()}


def diagnose(entry: ModelEntry, split: Split, judges: SplitJudges, batch_size: int) -> Diagnosis:
    """Draw every story with the true inputs, with each one replaced, and under other seeds; score and compare."""
    variants = {name: entry.varied(choose=variant.choose) for name, variant in VARIANTS.items()}
    seeds = [entry.varied(seed=entry.seed + i) for i in range(1, NUM_SEEDS)]
    scorecards = {name: of_few(judges) for name in (TRUE, *VARIANTS)}
    of = KINDS if judges.networks.features else KINDS[:1]
    changes = {name: [InputSensitivity(name, kind) for kind in of] for name in VARIANTS}
    diversity = [Diversity(kind) for kind in of]
    steps = range(0, len(split), batch_size)
    for start in tqdm(steps, desc=f"diagnosing {entry.name}", unit="batch", disable=None, leave=False):
        stop = min(start + batch_size, len(split))
        truth = Truth.of(split.batch(start, stop), judges.networks)
        drawn = {name: seen(each, split, start, stop, judges) for name, each in {TRUE: entry, **variants}.items()}
        for name, frames in drawn.items():
            scorecards[name].update(frames, truth)
        mask, ids = truth.batch.mask, truth.batch.ids
        for name, metrics in changes.items():
            for metric in metrics:
                metric.update(view(drawn[TRUE], metric.of), view(drawn[name], metric.of), mask, ids)
        others = [drawn[TRUE], *(seen(each, split, start, stop, judges) for each in seeds)]
        for spread in diversity:
            spread.update(torch.stack([view(each, spread.of) for each in others]), mask, ids)
        hand_memory_back()
    return diagnosis(scorecards, changes, diversity, len(split))


def seen(entry: ModelEntry, split: Split, start: int, stop: int, judges: SplitJudges) -> Seen:
    return Seen(entry.judged(entry.frames(split, start, stop), split), judges.networks)


def view(frames: Seen, kind: Kind) -> Tensor:
    return frames.frames if kind == "pixels" else frames.features


def of_few(judges: SplitJudges) -> Scorecard:
    """Empty scores, only of metrics for which a hundred stories are enough."""
    card = judges.scorecard()
    card.metrics = {name: metric for name, metric in card.metrics.items() if not metric.takes_many}
    return card


def diagnosis(
    scorecards: Mapping[str, Scorecard],
    changes: Mapping[str, list[InputSensitivity]],
    diversity: list[Diversity],
    num_stories: int,
) -> Diagnosis:
    row_of = {TRUE: TRUE, OTHER_SEEDS: OTHER_SEEDS} | {name: variant.row for name, variant in VARIANTS.items()}
    compared: dict[str, Sequence[InputSensitivity | Diversity]] = {**changes, OTHER_SEEDS: diversity}
    rows: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    for name, card in scorecards.items():
        card.finish()
        rows[row_of[name]], intervals[row_of[name]] = card.compute(), card.compute_intervals()
    for name, metrics in compared.items():
        for metric in metrics:
            rows.setdefault(row_of[name], {}).update(metric.compute())
            intervals.setdefault(row_of[name], {}).update(metric.compute_intervals())
    return Diagnosis(rows, intervals, num_stories)
