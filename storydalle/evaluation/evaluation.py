"""One split of a data set, judged under a protocol: rows of frames in, scores and their record out."""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from einops import repeat
from torch import Tensor
from tqdm import tqdm

from storydalle.evaluation.comparison import comparison_table, comparisons
from storydalle.evaluation.diagnostics import Diagnosis, diagnose
from storydalle.evaluation.drawn import DrawnFrames, Survey
from storydalle.evaluation.entries import (
    Ceiling,
    DrawingModel,
    MadeFrames,
    StoredFrames,
    Subjects,
    System,
)
from storydalle.evaluation.judging import Scorecard
from storydalle.evaluation.loss_probes import measure_probes
from storydalle.evaluation.process_memory import hand_memory_back, peak_megabytes
from storydalle.evaluation.protocols import Scoring, captions_of, needs_of, open_text_network, protocol_of
from storydalle.evaluation.tables import score_tables
from storydalle.evaluation.toon_table import CEILINGS, COPY, REAL, TEXT_TO_IMAGE, toon_table
from storydalle.files.paths import file_name, folder_of, user_path
from storydalle.files.records import metrics_record
from storydalle.files.whole import save_picture
from storydalle.metrics.resampling import Interval
from storydalle.metrics.seen import Judges, Seen, Truth
from storydalle.metrics.toon import ToonScores
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.models import kinds
from storydalle.models.pretrained import PretrainedModel
from storydalle.stories import toon
from storydalle.stories.images import to_images
from storydalle.stories.opening import chosen_split, opened, spread, tell
from storydalle.stories.pictures import ClipError
from storydalle.stories.resizing import LANCZOS
from storydalle.stories.set_stories import SetStories
from storydalle.stories.story import PickedStories, Stories, StoryBatch
from storydalle.stories.story_set import StorySet
from storydalle.training.building import MODEL


class Subject(NamedTuple):
    """The data that is judged on."""

    settings: Mapping[str, Any]
    splits: list[str]
    story_set: StorySet | None  # None for ToonSV, which is drawn

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Subject":
        chosen = settings["splits"]
        asked = [str(split) for split in (chosen if isinstance(chosen, list) else [chosen])] if chosen else []
        splits = asked or list(settings["protocol"]["splits"])
        if "set" not in settings["data"]:
            for split in splits:
                if split not in toon.SPLITS:
                    raise UserError(f"toon has no split {split!r}; {nearest(split, toon.SPLITS)}")
            return cls(settings, splits, None)
        story_set = opened(settings["data"]["set"])
        tell(story_set.problem_notes)
        if not asked:
            had = [split for split in splits if split in story_set.splits]
            instead = "val" if "val" in story_set.splits else story_set.splits[0]  # val's stories were not trained on
            tell([] if had else [f"{' and '.join(splits)} has no story: {instead} is judged in its place"])
            splits = had or [instead]
        return cls(settings, [chosen_split(story_set, split, is_given=True) for split in splits], story_set)

    @property
    def characters(self) -> Sequence[str]:
        return toon.CHARACTERS if self.story_set is None else self.story_set.characters

    def stories(self, split: str, resolution: int, whole: bool = False, interpolation: str = LANCZOS) -> Stories:
        """The stories that are judged, or the whole split."""
        number = None if whole else self.settings["num_stories"] or self.settings["protocol"]["num_stories"]
        data = self.settings["data"]
        with told_in_one_line(""):
            if self.story_set is None:
                return toon.ToonSV(split, number, num_targets=data["num_targets"], resolution=resolution)
            return SetStories(self.story_set, split, resolution, number, data["ids"], interpolation=interpolation)

    def clusters(self, stories: Stories) -> dict[str, str]:
        """The episode or book of each story."""
        ids = stories.ids()
        inner = stories.stories if isinstance(stories, PickedStories) else stories
        if not isinstance(inner, SetStories):
            return {name: name for name in ids}
        groups = {name: record.group for name, record in zip(inner.ids(), inner.records, strict=True)}
        return {name: groups[name] for name in ids}


class Evaluated(NamedTuple):
    """One split: the scores of each row, their intervals, and the record of both."""

    title: str
    record: dict[str, Any]
    rows: dict[str, dict[str, float]]
    scoring: Scoring
    scorecards: dict[str, Scorecard]
    systems: dict[str, System]
    subjects: Subjects
    credit: Any
    diagnoses: dict[str, Diagnosis]
    first: str  # the system that others are compared with

    @property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """95 % intervals of each row's scores, nan where there is none."""
        return {
            row: {name: Interval(*(math.nan if end is None else end for end in ends)) for name, ends in each.items()}
            for row, each in self.record["intervals"].items()
        }

    def text(self, intervals: bool = False) -> str:
        """The tables as markdown."""
        shown = self.intervals if intervals else None
        heading = f"**{self.title}**, protocol `{self.scoring.protocol.name}` `{self.record['protocol_hash'][:12]}`"
        parts = [heading + (", 95 % intervals" if intervals else "")]
        parts += [f"Left out: {', '.join(self.record['not_scored'])}."] if self.record["not_scored"] else []
        if ToonScores.asked_as in self.scoring.protocol.metrics:
            parts.append(toon_table(self.rows, shown))
        parts.append(score_tables(self.rows, shown))
        parts.append(comparison_table(self.first, self.record["comparisons"]))
        parts += [each.text(name, intervals) for name, each in self.diagnoses.items()]
        return "\n\n".join(filter(None, parts))


def evaluate_split(
    subject: Subject,
    split: str,
    judges: Judges,
    opened_models: Mapping[str, PretrainedModel],
    folders: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> Evaluated:
    """Scores of the ceilings and of every system on one split."""
    started = time.monotonic()
    subjects, stored, lost = subjects_of(subject, split, settings)
    stories = subjects.judged
    scoring = scoring_of(settings, subject, stories, split, judges, lost)
    systems = rows_of(opened_models, folders, settings, judges, stored)
    save = None if settings["save"] is None else user_path(settings["save"])
    with told_of_pictures(settings["data"]["name"], split):
        scorecards, truth_sha256 = score(systems, subjects, scoring, settings["batch_size"], save)
        rows = {name: card.compute() for name, card in scorecards.items()}
        for name, system in tested_models(systems).items():
            rows[name] |= probed(system.model, subject, split, subjects, settings)
        diagnoses = diagnosed(systems, subjects, scoring, settings)
    first, *others = tested_rows(systems) or [""]
    compare = user_path(settings["compare"]).name if settings["compare"] else None
    record = metrics_record(
        rows,
        protocol=scoring.protocol.record(),
        n={name: card.counts() for name, card in scorecards.items()},
        intervals={name: card.compute_intervals() for name, card in scorecards.items()},
        seeds=[settings["seed"]],
        device=next((str(model.device) for model in opened_models.values()), "cpu"),
        wall_seconds=time.monotonic() - started,
        config=f"{scoring.protocol.dataset}/{split}" + (f" compare={compare}" if compare else ""),
        systems={name: system.about() for name, system in systems.items() if system.about()},
        truth_sha256=truth_sha256,
        comparisons=comparisons(scorecards, first, others, stories.ids()) if first else {},
        peak_memory_megabytes=peak_megabytes(),
        diagnostics={name: each._asdict() for name, each in diagnoses.items()},
        not_scored=[name for name in settings["protocol"]["metrics"] if name not in scoring.protocol.metrics],
    )
    title = f"{scoring.protocol.dataset}, {split}: {len(stories)} stories"
    return Evaluated(title, record, rows, scoring, scorecards, systems, subjects, credits_of(stories), diagnoses, first)


def subjects_of(
    subject: Subject, split: str, settings: Mapping[str, Any]
) -> tuple[Subjects, list[StoredFrames], list[str]]:
    """The stories to judge at any resolution, the pictures to score, and the ids of stories left out for theirs."""
    interpolation = settings["protocol"].get("interpolation", LANCZOS)
    stories = subject.stories(split, settings["protocol"]["resolution"], interpolation=interpolation)
    stored, kept = stored_frames(subject, split, stories, settings)
    ids = stories.ids()
    lost = [name for name in ids if name not in kept]
    picked = [index for index, name in enumerate(ids) if name in kept]

    def kept_of(whole: Stories) -> Stories:
        return PickedStories(whole, picked) if lost else whole

    def at(resolution: int) -> Stories:
        return kept_of(subject.stories(split, resolution))

    return Subjects(kept_of(stories), at, interpolation), stored, lost


@contextmanager
def told_of_pictures(data: str, split: str) -> Iterator[None]:
    """Say in one line that a picture of the set cannot be read, or that frames cannot be scored."""
    with told_in_one_line(f"{data}, {split}, cannot be scored"):
        try:
            yield
        except ClipError as error:
            raise UserError(
                f"a picture of {data}, {split}, cannot be read ({error}): storydalle prepare names it; then "
                f"data.ids=prepared/{data} scores the stories whose pictures are whole"
            ) from error


def tested_rows(systems: Mapping[str, System]) -> list[str]:
    """Rows that are compared: the systems, then what captions alone can do."""
    return [name for name in systems if name not in CEILINGS] + [name for name in systems if name == TEXT_TO_IMAGE]


def credits_of(stories: Stories) -> Any:
    """Says what has to stand beside a story's true frames."""
    inner = stories.stories if isinstance(stories, PickedStories) else stories
    if not isinstance(inner, SetStories):
        return lambda index: ""
    indices = stories.indices if isinstance(stories, PickedStories) else range(len(stories))
    return lambda index: inner.story_set.credit(inner.records[indices[index]])


class OtherSplits(Container[str]):
    """The ids of stories that are not of a split: their pictures may lie beside those of the split."""

    def __init__(self, dataset: str, split: str) -> None:
        self.dataset, self.split = dataset, split

    def __contains__(self, story: object) -> bool:
        dataset, _, rest = str(story).partition("/")
        return dataset == self.dataset and "/" in rest and rest.partition("/")[0] != self.split


def stored_frames(
    subject: Subject, split: str, stories: Stories, settings: Mapping[str, Any]
) -> tuple[list[StoredFrames], set[str]]:
    """The pictures to score, surveyed, and the ids of the stories that are whole in all of their folders."""
    if not settings["images"]:
        return [], set(stories.ids())
    options = {} if settings["stories_per_batch"] is None else {"stories_per_batch": settings["stories_per_batch"]}
    options |= {"scored": stories.ids(), "others": OtherSplits(settings["data"]["name"], split)}
    options |= {"interpolation": settings["protocol"].get("interpolation", LANCZOS)}
    whole_split = subject.stories(split, stories.resolution, whole=True)
    stored, kept = [], set(stories.ids())
    for folder in settings["images"]:
        with told_in_one_line(""):
            drawn = DrawnFrames.of(folder, whole_split, settings["layout"], **options)
            survey = surveyed(drawn)
            kept &= set(survey.check(settings["allow_partial"]))
        for note in survey.notes:
            print(f"note: {folder}: {note}")
        stored.append(StoredFrames(folder, drawn, survey))
    if not kept:
        raise UserError(f"images={settings['images']}: no story is whole in all of them")
    return stored, kept


def surveyed(drawn: DrawnFrames) -> Survey:
    with tqdm(desc="looking at the pictures", unit="story", disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return drawn.survey(progress=advance)


def scoring_of(
    settings: Mapping[str, Any], subject: Subject, stories: Stories, split: str, judges: Judges, lost: Sequence[str]
) -> Scoring:
    clusters = subject.clusters(stories)
    protocol = protocol_of(settings, stories, split, judges, clusters, lost)
    captions = None
    if protocol.texts is not None and "text_network" in needs_of(protocol.metrics):
        captions = captions_of(protocol.texts, stories, judges)
    longest = max(len(stories.outline(index).captions) for index in range(len(stories)))
    return Scoring(protocol, judges, subject.characters, longest, clusters, captions)


def rows_of(
    opened_models: Mapping[str, PretrainedModel],
    folders: Mapping[str, Path],
    settings: Mapping[str, Any],
    judges: Judges,
    stored: Sequence[StoredFrames],
) -> dict[str, System]:
    """The ceilings, then the systems, which share their tokenizer's."""
    systems: list[System] = [MadeFrames(REAL, lambda batch: batch.frames)]
    limits = {
        name: (model.resolution, limit) for model in opened_models.values() for name, limit in model.ceilings().items()
    }
    systems += [Ceiling(name, *limit) for name, limit in limits.items()]
    systems.append(
        MadeFrames(COPY, lambda batch: repeat(batch.source, "b c h w -> b f c h w", f=batch.frames.shape[1]))
    )
    seed = settings["seed"]
    if opened_models and settings["data"]["name"] == "toon" and settings["text_to_image"] is not None:
        folder = kinds.locate(str(settings["text_to_image"]))
        systems.append(DrawingModel(TEXT_TO_IMAGE, folder, kinds.open_model(folder), seed))
    num_candidates = settings["num_candidates"]
    reranker = None
    if num_candidates > 1 and settings["reranker"] == "clip":
        reranker = judges.text or open_text_network(settings["protocol"]["text_network"] or "clip")
    for name, model in opened_models.items():
        row = name if num_candidates == 1 else f"{name} (best of {num_candidates} by {settings['reranker']})"
        systems.append(DrawingModel(row, folders[name], model, seed, num_candidates, reranker))
    systems += stored
    return {system.name: system for system in systems}


def score(
    systems: Mapping[str, System], subjects: Subjects, scoring: Scoring, batch_size: int, save: Path | None
) -> tuple[dict[str, Scorecard], str]:
    """Scores of all rows, batch by batch, so that what the judges see of the true frames serves every row.

    Also a hash of the true frames' pixels. Frames of the systems, but for ceilings, are written below ``save``.
    """
    hand_memory_back()
    scorecards = {name: scoring.scorecard() for name in systems}
    pixels = hashlib.sha256()
    folders = folders_of_rows(systems)
    for start in tqdm(range(0, len(subjects), batch_size), desc="scoring", unit="batch", disable=None, leave=False):
        stop = min(start + batch_size, len(subjects))
        truth = Truth.of(subjects.batch(start, stop), scoring.judges)
        for story in subjects.group(start, stop):
            pixels.update(story.source.tobytes() + story.frames.tobytes())
        for name, system in systems.items():
            frames = system.frames(subjects, start, stop)
            scorecards[name].update(Seen(system.judged(frames, subjects), scoring.judges), truth)
            if save is not None and name not in CEILINGS:
                save_frames(save / folders[name], frames, truth.batch)
    for card in scorecards.values():
        card.finish()
    return scorecards, pixels.hexdigest()


def diagnosed(
    systems: Mapping[str, System], subjects: Subjects, scoring: Scoring, settings: Mapping[str, Any]
) -> dict[str, Diagnosis]:
    """What each model makes of its inputs, on stories spread over the split."""
    if settings["diagnose"] is None:
        return {}
    indices = spread(settings["diagnose"], len(subjects))

    def picked_of(stories: Stories) -> Stories:
        return PickedStories(stories, indices)

    picked = Subjects(picked_of(subjects.judged), lambda other: picked_of(subjects.at(other)), subjects.interpolation)
    return {
        name: diagnose(system, picked, scoring, settings["batch_size"])
        for name, system in tested_models(systems).items()
    }


def tested_models(systems: Mapping[str, System]) -> dict[str, DrawingModel]:
    """The models that are scored for their own sake."""
    return {
        name: system for name, system in systems.items() if isinstance(system, DrawingModel) and name != TEXT_TO_IMAGE
    }


def save_frames(folder: Path, frames: Tensor, batch: StoryBatch) -> None:
    """``folder/<story id>/<number>.png``, as ``images=`` reads them."""
    for story, row, exists in zip(batch.ids, frames, batch.mask, strict=True):
        own = folder / folder_of(story)
        own.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(to_images(row[exists]), start=1):
            save_picture(picture, own / f"{number}.png")


def folders_of_rows(rows: Iterable[str]) -> dict[str, str]:
    """A folder's name for each row: the last part of its model's path, the whole path where two rows share that."""
    shortest = {row: Path(row).parent.name if Path(row).name == MODEL else Path(row).name for row in rows}
    shared = Counter(shortest.values())
    return {row: file_name(short if short and shared[short] == 1 else row) for row, short in shortest.items()}


def probed(
    model: PretrainedModel, subject: Subject, split: str, subjects: Subjects, settings: Mapping[str, Any]
) -> dict[str, float]:
    """The path probes, with ToonSV's other sources drawn too."""
    stories = subjects.at(model.resolution)
    data = settings["data"]
    if subject.story_set is None:
        stories = toon.ToonSV(
            split, len(stories), num_targets=data["num_targets"], resolution=model.resolution, probes=True
        )
    return measure_probes(model, stories, data["probes"], data["source_probes"])
