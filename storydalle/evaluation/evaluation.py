"""An evaluation: judges score entries on one split; it holds the scores, the record and the tables."""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from storydalle.evaluation.ceilings import CEILINGS
from storydalle.evaluation.comparison import Difference, comparison_table, comparisons
from storydalle.evaluation.diagnostics import Diagnosis, diagnose
from storydalle.evaluation.entries import Entry, ModelEntry, folders_of_rows, tested_models, tested_rows
from storydalle.evaluation.judges import Judges, Scorecard, SplitJudges
from storydalle.evaluation.loss_probes import measure_probes
from storydalle.evaluation.splits import Split
from storydalle.evaluation.tables import score_tables
from storydalle.evaluation.toon_table import toon_table
from storydalle.files.paths import folder_of
from storydalle.files.process_memory import hand_memory_back, peak_megabytes
from storydalle.files.records import metrics_record
from storydalle.files.whole import save_picture
from storydalle.metrics.resampling import Interval
from storydalle.metrics.seen import Truth
from storydalle.metrics.toon import ToonScores
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.stories.images import to_images, to_pixels
from storydalle.stories.opening import spread
from storydalle.stories.pictures import ClipError
from storydalle.stories.story import StoryBatch
from storydalle.training.probes import Match

KEPT_BYTES = 2**26  # of drawn frames, for the page


class EvaluationRecord(TypedDict):
    """The parts of an evaluation's record that are read again."""

    protocol: Mapping[str, object]
    protocol_hash: str
    intervals: Mapping[str, Mapping[str, Sequence[float | None]]]
    comparisons: Mapping[str, Mapping[str, Difference]]
    not_scored: Sequence[str]


DrawnStories = dict[str, list[UInt8[Tensor, "f h w c"]]]  # of each model, by its row


class Evaluation(NamedTuple):
    """The scores of each row on one split, their intervals, and the record of both."""

    split: Split
    entries: dict[str, Entry]
    judges: SplitJudges
    rows: dict[str, dict[str, float]]
    scorecards: dict[str, Scorecard]
    drawn: DrawnStories  # all stories of the split; none of a large one
    diagnoses: dict[str, Diagnosis]
    record: EvaluationRecord

    @property
    def title(self) -> str:
        return f"{self.judges.protocol.dataset}, {self.split.name}: {len(self.split)} stories"

    @property
    def has_toon_table(self) -> bool:
        """True if ToonSV's exact labels were scored, which have their own table."""
        return ToonScores.asked_as in self.judges.protocol.metrics

    @property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """95 % intervals of each row's scores; nan if there is none."""
        return {
            row: {name: Interval(*(math.nan if end is None else end for end in ends)) for name, ends in each.items()}
            for row, each in self.record["intervals"].items()
        }

    @property
    def items(self) -> dict[str, int]:
        """How many items each score is of, in the first row."""
        return next(iter(self.scorecards.values())).counts()

    def frames(self, row: str, index: int) -> UInt8[Tensor, "f h w c"]:
        """The frames of a story as a system drew them; those of a large evaluation are drawn again."""
        if row in self.drawn:
            return self.drawn[row][index]
        return to_pixels(self.entries[row].frames(self.split, index, index + 1)[0])

    def story_values(self) -> dict[str, dict[str, Float[np.ndarray, " g"]]]:
        """The part of each story in each score, by row; see ``resampling.story_values``."""
        return {row: card.story_values() for row, card in self.scorecards.items()}

    def text(self, intervals: bool = False) -> str:
        """The tables as markdown."""
        shown = self.intervals if intervals else None
        heading = f"**{self.title}**, protocol `{self.judges.protocol.name}` `{self.record['protocol_hash'][:12]}`"
        parts = [heading + (", 95 % intervals" if intervals else "")]
        parts += [f"Left out: {', '.join(self.record['not_scored'])}."] if self.record["not_scored"] else []
        parts += [toon_table(self.rows, shown)] if self.has_toon_table else []
        parts.append(score_tables(self.rows, shown, items=self.items))
        parts.append(comparison_table(next(iter(tested_rows(self.entries)), ""), self.record["comparisons"]))
        parts += [each.text(name, intervals) for name, each in self.diagnoses.items()]
        return "\n\n".join(filter(None, parts))


def evaluate(
    split: Split,
    entries: Mapping[str, Entry],
    judges: Judges,
    *,
    batch_size: int = 25,
    seed: int = 0,
    num_diagnosed: int | None = None,
    save: Path | None = None,
    sweep: str | None = None,
) -> Evaluation:
    """Score every entry on a split.

    Args:
        batch_size: stories drawn at a time; no score depends on it.
        seed: the seed of the models, for the record.
        num_diagnosed: number of stories to draw again with other inputs and other seeds.
        save: a folder for the frames of models and folders.
        sweep: the name of the compared runs, for the record.
    """
    started = time.monotonic()
    own = judges.on(split)
    with told_of_pictures(split):
        scorecards, drawn, truth_sha256 = score(split, entries, own, batch_size, save)
        probes = {name: probed(entry, split) for name, entry in tested_models(entries).items()}
        rows = {name: card.compute() | probes.get(name, {}) for name, card in scorecards.items()}
        diagnoses = diagnosed(split, entries, own, batch_size, num_diagnosed)
    record: dict[str, object] = metrics_record(
        rows,
        protocol=own.protocol.record(),
        n={name: card.counts() for name, card in scorecards.items()},
        intervals={name: card.compute_intervals() for name, card in scorecards.items()},
        seeds=[seed],
        device=device_of(entries),
        wall_seconds=time.monotonic() - started,
        config=f"{own.protocol.dataset}/{split.name}" + (f" compare={sweep}" if sweep else ""),
        systems={name: entry.about() for name, entry in entries.items() if entry.about()},
        truth_sha256=truth_sha256,
        comparisons=compared_with_first(entries, scorecards, split),
        peak_memory_megabytes=peak_megabytes(),
        diagnostics={name: each._asdict() for name, each in diagnoses.items()},
        not_scored=[name for name in judges.asked.metrics if name not in own.protocol.metrics],
    )
    return Evaluation(split, dict(entries), own, rows, scorecards, drawn, diagnoses, cast(EvaluationRecord, record))


def device_of(entries: Mapping[str, Entry]) -> str:
    """The device of the first model that is scored."""
    return next((str(entry.model.device) for entry in tested_models(entries).values()), "cpu")


def compared_with_first(
    entries: Mapping[str, Entry], scorecards: Mapping[str, Scorecard], split: Split
) -> dict[str, dict[str, Difference]]:
    """The first row that is tested against each of the others."""
    first, *others = tested_rows(entries) or [""]
    return comparisons(scorecards, first, others, split.judged.ids()) if first else {}


@contextmanager
def told_of_pictures(split: Split) -> Iterator[None]:
    """Turn errors into one line: a picture of the set cannot be read, or frames cannot be scored."""
    data = split.data.settings.data.name
    with told_in_one_line(f"{data}, {split.name}, cannot be scored"):
        try:
            yield
        except ClipError as error:
            raise UserError(
                f"a picture of {data}, {split.name}, cannot be read ({error}): storydalle prepare lists it; then "
                f"data.ids=prepared/{data} scores only stories with all their pictures"
            ) from error


def score(
    split: Split, entries: Mapping[str, Entry], judges: SplitJudges, batch_size: int, save: Path | None
) -> tuple[dict[str, Scorecard], DrawnStories, str]:
    """Scores of all rows, batch by batch, so that all rows share the networks' outputs for true frames.

    Also returns the frames of models, if they are few, and a hash of the true frames' pixels. Frames of models and
    folders are written below ``save``.
    """
    scorecards = {name: judges.scorecard() for name in entries}
    drawn: DrawnStories = {name: [] for name in tested_models(entries)}
    pixels = hashlib.sha256()
    folders = folders_of_rows(entries)
    for start in tqdm(range(0, len(split), batch_size), desc="scoring", unit="batch", disable=None, leave=False):
        stop = min(start + batch_size, len(split))
        hand_memory_back()
        truth = Truth.of(split.batch(start, stop), judges.networks)
        for story in split.group(start, stop):
            pixels.update(story.source.tobytes() + story.frames.tobytes())
        for name, entry in entries.items():
            frames = entry.frames(split, start, stop)
            scorecards[name].update(truth.seen(entry.judged(frames, split)), truth)
            if name in drawn:
                drawn[name] += list(to_pixels(frames))
            if save is not None and name not in CEILINGS:
                save_frames(save / folders[name], frames, truth.batch)
        if sum(story.numel() for stories in drawn.values() for story in stories) > KEPT_BYTES:
            drawn = {}  # for the few stories of the page, a long evaluation can draw again
    for card in scorecards.values():
        card.finish()
    return scorecards, drawn, pixels.hexdigest()


def save_frames(folder: Path, frames: Tensor, batch: StoryBatch) -> None:
    """``folder/<story id>/<number>.png``, as ``images=`` reads them."""
    for story, row, exists in zip(batch.ids, frames, batch.mask, strict=True):
        own = folder / folder_of(story)
        own.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(to_images(row[exists]), start=1):
            save_picture(picture, own / f"{number}.png")


def probed(entry: ModelEntry, split: Split) -> dict[str, float]:
    """Scores that a model's own networks give to the true stories."""
    data = split.data.settings.data.config
    probes, of_sources = (cast(Mapping[str, Match], data[key]) for key in ("probes", "source_probes"))
    return measure_probes(entry.model, split.probing(entry.model.resolution), probes, of_sources)


def diagnosed(
    split: Split, entries: Mapping[str, Entry], judges: SplitJudges, batch_size: int, num_stories: int | None
) -> dict[str, Diagnosis]:
    """Draw stories, spread over the split, with other inputs and seeds, for each model."""
    if num_stories is None:
        return {}
    picked = split.picked(spread(num_stories, len(split)))
    return {name: diagnose(entry, picked, judges, batch_size) for name, entry in tested_models(entries).items()}
