"""prepare: check a copy of a data set: is it complete, what is wrong with it, what does it look like.

  storydalle prepare data=toon
  storydalle prepare data=toon split=unseen num_stories=12 out=look
  storydalle prepare data=toon words=true        prints the world of the drawn stories and the words of their captions
  storydalle prepare data=pororo data.root=/your/pororo preview=8
  storydalle prepare data=openstory data.root=/your/openstory-256 caption_tokenizer=story_dalle
  storydalle prepare data=pororo data.root=/your/pororo pretrained=FOLDER    encodes train and val for training

Reads every picture of the stories and prints counts, damage, duplicates, leaks between splits, and statistics of
captions and characters. Writes contact_sheet.png and, with preview=8, strips of eight stories as a model sees them. For
a data set on disk it also writes report.json, problems.csv, manifest.json, clips.jsonl, the ids of usable stories
(ids-<split>.txt), and facts about every clip (clips/), from which an interrupted run continues. For a data set without
pictures it writes the captions of each story (captions/<id>.txt). ToonSV is drawn, not read; counts.json has the
numbers of its labels.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm

from storydalle.commands.application import Request, instantiate
from storydalle.files import locks, outputs
from storydalle.files.locks import LOCK
from storydalle.files.whole import write_text
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.reporting import findings, sheets
from storydalle.reporting.prepared import Shown, as_json, draw, save_sheet, save_strips, write_captions, write_files
from storydalle.reporting.token_lengths import token_counter
from storydalle.settings import Between, Count, filled
from storydalle.stories.inspection import ClipFacts, hash_annotations, inspect
from storydalle.stories.opening import ChosenData, chosen_split, opened, spread, stories_of
from storydalle.stories.story_set import StorySet

BYTES_A_CLIP = 1500  # that are written


@dataclass(frozen=True)
class PrepareSettings:
    data: ChosenData
    split: str  # of the contact sheet and the strips
    num_stories: Annotated[int, Between(1, 100)]  # on the contact sheet
    preview: Annotated[int, Between(0, 1000)]  # strips
    words: bool
    caption_tokenizer: str | None  # a model, or a folder with a vocabulary
    pretrained: str | None  # a model whose tokenizers encode train and val
    runs: Path
    shards: Path | None
    stories_per_shard: Count
    workers: Count | None  # processes; null is one a core
    out: Path | None  # by default prepared/<data>

    def __post_init__(self) -> None:
        if self.words and self.data.set is not None:
            raise UserError(
                f"words=true prints the words of a drawn world, data=toon or data=toon2, not {self.data.name}"
            )
        if self.shards is not None and self.pretrained is None:
            raise UserError("shards hold encoded stories: give the model that encodes them, pretrained=FOLDER")

    @property
    def num_workers(self) -> int:
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def shown(self) -> Shown:
        return Shown(self.num_stories, self.preview, self.data.resolution)


def run(request: Request) -> None:
    settings = filled(PrepareSettings, request.settings)
    if settings.words:
        from storydalle.reporting.world_words import words_of_world
        from storydalle.stories.drawn_worlds import WORLDS

        print(words_of_world(WORLDS[settings.data.name], shutil.get_terminal_size((100, 24)).columns))
        return
    out = settings.out or Path("prepared") / settings.data.name
    outputs.check_output(out, overwrite=True, megabytes=50)
    model = None if settings.pretrained is None else encoding_model(settings, settings.pretrained)
    if settings.data.set is not None:
        look_at_copy(settings, settings.data.set, "split" in request.given, out)
    else:
        with locks.held(out, "prepare"):
            look_at_toon(settings, out)
    if model is not None:
        print("\n".join(encode_splits(settings, model)))


def look_at_copy(settings: PrepareSettings, chosen: Mapping[str, object], is_split_given: bool, out: Path) -> None:
    """Write the report on the set that ``chosen`` names, and pictures of its stories."""
    story_set = opened(chosen)
    split = chosen_split(story_set, settings.split, is_split_given)
    tokens = token_counter(settings.caption_tokenizer)
    records, problems = stories_of(story_set)
    clips = {clip for stories in records.values() for record in stories for clip in record.clips}
    outputs.check_space(out, megabytes=50 + len(clips) * BYTES_A_CLIP // 1_000_000)
    options = {key: value for key, value in chosen.items() if key not in ("_target_", "root")}
    with written_by_one(out):
        annotations = hash_annotations(story_set, out)
        inputs_of = {"set": story_set.name, "options": options, "annotations": annotations}
        facts = read_clips(story_set, clips, out, inputs_of, settings.num_workers) if story_set.has_pictures else {}
        found = findings.findings_of(story_set, records, facts, problems)
        report = findings.report_of(story_set, found, tokens)
        write_files(out, found, report, inputs_of)
        show = draw if story_set.has_pictures else write_captions
        if not found.usable[split] and not is_split_given:
            split = next((other for other, stories in found.usable.items() if stories), split)
        shown = show(story_set, found.usable[split], split, out, settings.shown)
    print(findings.report_text(report))
    print(f"\nwrote {out}: report.json, problems.csv, manifest.json and ids of the stories")
    print("\n".join(shown))


@contextmanager
def written_by_one(out: Path) -> Iterator[None]:
    """Make the folder, and lock it for this run; if it cannot be written, say so in one line."""
    with told_in_one_line(f"out={out} cannot be written", OSError):
        foreign = next(out.iterdir(), None) if out.is_dir() else None
        if foreign is not None and not (out / LOCK).exists():
            raise UserError(f"out={out} holds other files ({foreign.name}): choose another folder")
        with locks.held(out, "prepare", leaves_mark=True):
            yield


def read_clips(
    story_set: StorySet, clips: set[str], out: Path, depends_on: Mapping[str, object], workers: int
) -> dict[str, ClipFacts]:
    """The facts of every clip; those that are not known yet are read."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    with tqdm(total=len(clips), desc="reading", unit="clip", disable=None, leave=False) as bar:
        try:
            return inspect(story_set, clips, out, key, workers, bar.update)
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that reads pictures was killed after {bar.n} of {len(clips)} clips, perhaps because memory "
                "ran out: run the same command with workers=1; it continues from there"
            ) from error


def look_at_toon(settings: PrepareSettings, out: Path) -> None:
    from storydalle.stories.drawn_worlds import WORLDS

    name, split = settings.data.name, settings.split
    world = WORLDS[name]
    if split not in world.splits:
        raise UserError(f"{name} has no split {split!r}; {nearest(split, world.splits)}")
    with told_in_one_line(""):
        stories, counts = world.stories(split, resolution=settings.data.resolution), world.counts(split)
    num_shown = min(settings.num_stories, len(stories))
    out.mkdir(parents=True, exist_ok=True)
    sheet = save_sheet(sheets.toon_rows(stories, range(num_shown)), f"{name}, {split}: {num_shown} stories", out)
    strips = save_strips(sheets.toon_rows(stories, spread(settings.preview, len(stories))), out)
    write_text(out / "counts.json", as_json(counts))
    num_frames = sum(counts["setting"].values())
    print(f"{name}, {split}: {num_frames} target frames")
    for label, table in counts.items():
        print(f"  {label:<16}" + ", ".join(f"{value} {number}" for value, number in table.items()))
    print("\n".join([f"wrote {out / 'counts.json'}", sheet, *strips]))


def encoding_model(settings: PrepareSettings, pretrained: str) -> Path:
    """The folder of the model whose tokenizers encode; if it is missing, that is told before all pictures are read."""
    from storydalle.training.building import model_folder  # and with it torch

    if settings.data.train is None or settings.data.val is None:
        raise UserError(f"{settings.data.name} has no pictures to encode: leave pretrained out")
    return model_folder(pretrained, settings.runs)


def encode_splits(settings: PrepareSettings, model: Path) -> list[str]:
    """Encode the splits train and val to where a training looks for them; returns one line for each."""
    from storydalle.tokens.ahead import Encoder, Shards
    from storydalle.training.building import tokenizers

    data, lines = settings.data, []
    root = settings.runs / "cache" / f"{data.name}-{data.resolution}"
    encoder = Encoder(*tokenizers(model), root, settings.num_workers)
    if settings.shards is not None and encoder.caption_tokenizer is None:
        raise UserError(f"shards hold tokens, but pretrained={settings.pretrained} has no caption tokenizer")
    for split, described in (("train", data.train), ("val", data.val)):
        assert described is not None
        with told_in_one_line(f"{split} cannot be encoded", ValueError, TypeError):
            line, cached = encoder.encode(split, instantiate(described))
            lines.append(line)
            if settings.shards is not None and cached is not None:
                lines.append(Shards(settings.shards, settings.stories_per_shard).write(split, cached))
    return lines
