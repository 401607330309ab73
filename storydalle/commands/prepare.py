"""prepare: check a copy of a data set: is it complete, what is wrong with it, what does it look like.

  storydalle prepare data=toon
  storydalle prepare data=toon split=unseen num_stories=12 out=look
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

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm

from storydalle.commands.application import Request
from storydalle.files import locks, outputs
from storydalle.files.locks import LOCK
from storydalle.files.paths import file_name, user_path
from storydalle.files.whole import save_picture, write_text
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.models import kinds
from storydalle.reporting import findings, sheets
from storydalle.settings import Between, Count, filled
from storydalle.stories.inspection import ClipFacts, hash_annotations, inspect
from storydalle.stories.opening import ChosenData, chosen_split, opened, spread
from storydalle.stories.pictures import squared
from storydalle.stories.story_set import Problem, StoryRecord, StorySet

SHEET, STRIPS, CAPTIONS = "contact_sheet.png", "strips", "captions"
BYTES_A_CLIP = 1500  # that are written
CHUNK = 4096  # captions counted at once


@dataclass(frozen=True)
class PrepareSettings:
    data: ChosenData
    split: str  # of the contact sheet and the strips
    num_stories: Annotated[int, Between(1, 100)]  # on the contact sheet
    preview: Annotated[int, Between(0, 1000)]  # strips
    caption_tokenizer: str | None  # a model, or a folder with a vocabulary
    pretrained: str | None  # a model whose tokenizers encode train and val
    runs: Path
    shards: Path | None
    stories_per_shard: Count
    workers: Count | None  # processes; null is one a core
    out: Path | None  # by default prepared/<data>

    def __post_init__(self) -> None:
        if self.shards is not None and self.pretrained is None:
            raise UserError("shards hold encoded stories: give the model that encodes them, pretrained=FOLDER")

    @property
    def num_workers(self) -> int:
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(request: Request) -> None:
    settings = filled(PrepareSettings, request.settings)
    out = settings.out or Path("prepared") / settings.data.name
    outputs.check_output(out, overwrite=True, megabytes=50)
    if settings.data.set is not None:
        look_at_copy(settings, settings.data.set, "split" in request.given, out)
    else:
        with locks.held(out, "prepare"):
            look_at_toon(settings, out)
    if settings.pretrained is not None:
        from storydalle.commands.caching import Shards, encode_splits

        shards = None if settings.shards is None else Shards(settings.shards, settings.stories_per_shard)
        lines = encode_splits(settings.data, settings.pretrained, settings.runs, settings.num_workers, shards)
        print("\n".join(lines))


# ------------------------------------------------------------------------------------------------ a set on disk


def look_at_copy(settings: PrepareSettings, chosen: Mapping[str, object], is_split_given: bool, out: Path) -> None:
    """Report on the set that ``chosen`` names, and show its stories."""
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
        shown = show(story_set, found.usable[split], split, out, settings)
    print(findings.report_text(report))
    print(f"\nwrote {out}: report.json, problems.csv, manifest.json and ids of the stories")
    print("\n".join(shown))


def stories_of(story_set: StorySet) -> tuple[dict[str, list[StoryRecord]], list[Problem]]:
    """The stories of every split, and all problems; a split that cannot be had is one of them."""
    records: dict[str, list[StoryRecord]] = {}
    empty = []
    for split in story_set.splits:
        try:
            records[split] = story_set.records(split)
        except ValueError as error:
            records[split] = []
            empty.append(Problem(split, f"empty split: {error}"))
    if not any(records.values()):
        raise UserError(f"{story_set.name} has no story: {empty[0].what if empty else 'no split has one'}")
    return records, [*story_set.problems, *empty]


def token_counter(name: str | None) -> findings.Tokens | None:
    """Lengths in tokens by the caption tokenizer of a model, or by one in a folder."""
    if name is None:
        return None
    folder = kinds.zoo_folder() / name if name in kinds.zoo_names() else user_path(name)
    folder = folder / "captions" if (folder / "captions").is_dir() else folder
    from storydalle.tokens.caption_tokenizer import CaptionTokenizer, TextTokenizer, load_caption_tokenizer

    vocabularies, merges = sorted(folder.glob("*vocab.json")), sorted(folder.glob("*merges.txt"))
    with told_in_one_line(f"caption_tokenizer={name} is none"):
        if vocabularies and merges:
            tokenizer: TextTokenizer = CaptionTokenizer.from_files(vocabularies[0], merges[0])
        else:
            tokenizer = load_caption_tokenizer(folder)

    def count(texts: Sequence[str]) -> list[int]:
        lengths: list[int] = []
        for start in range(0, len(texts), CHUNK):
            encoded = tokenizer.encode(texts[start : start + CHUNK])
            part = (encoded.tokens != tokenizer.pad_id).sum(1).tolist()
            for i, num_cut in encoded.overflow:
                part[i] += num_cut
            lengths += part
        return lengths

    return findings.Tokens(count, tokenizer.text_length)


@contextmanager
def written_by_one(out: Path) -> Iterator[None]:
    """Make the folder, keep a second run out of it, and tell what prevents writing in one line."""
    with told_in_one_line(f"out={out} cannot be written", OSError):
        foreign = next(out.iterdir(), None) if out.is_dir() else None
        if foreign is not None and not (out / LOCK).exists():
            raise UserError(f"out={out} holds other files ({foreign.name}): choose another folder")
        with locks.held(out, "prepare", leaves_mark=True):
            yield


def read_clips(
    story_set: StorySet, clips: set[str], out: Path, depends_on: Mapping[str, object], workers: int
) -> dict[str, ClipFacts]:
    """Facts of every clip, read where they are not known yet."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    with tqdm(total=len(clips), desc="reading", unit="clip", disable=None, leave=False) as bar:
        try:
            return inspect(story_set, clips, out, key, workers, bar.update)
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that reads pictures was killed after {bar.n} of {len(clips)} clips, perhaps because memory "
                "ran out: run the same command with workers=1; it continues from there"
            ) from error


def write_files(
    out: Path, found: findings.Findings, report: Mapping[str, Any], inputs_of: Mapping[str, object]
) -> None:
    clips = "".join(f"{json.dumps([clip, facts.sha256])}\n" for clip, facts in found.clips.items())
    splits = {split: {key: counts[key] for key in ("stories", "usable")} for split, counts in report["splits"].items()}
    digest = {"file": "clips.jsonl", "number": len(found.clips), "sha256": hashlib.sha256(clips.encode()).hexdigest()}
    problems = io.StringIO()
    writer = csv.writer(problems, lineterminator="\n")
    writer.writerows([Problem._fields, *found.annotation_problems, *found.picture_problems])
    write_text(out / "clips.jsonl", clips)
    write_text(out / "manifest.json", as_json({**inputs_of, "splits": splits, "clips": digest}))
    write_text(out / "report.json", as_json(report))
    write_text(out / "problems.csv", problems.getvalue())
    texts = {f"ids-{file_name(split)}.txt": findings.ids_text(stories) for split, stories in found.usable.items()}
    write_only(out, "ids-*.txt", texts)


def write_only(folder: Path, pattern: str, texts: Mapping[str, str]) -> None:
    """Write files, and remove those of an earlier run that match ``pattern`` and are not among them."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    for path in folder.glob(pattern):
        if path.name not in texts:
            path.unlink()


def draw(
    story_set: StorySet, stories: Sequence[StoryRecord], split: str, out: Path, settings: PrepareSettings
) -> list[str]:
    """The contact sheet of the first stories, and strips of some that are spread over the split, as a model sees them.

    A sheet has whole pictures, as large as they are; a strip their centred squares, at the model's resolution.
    """
    if not stories:
        return [f"no story of {split} can be used: nothing is drawn"]
    with told_in_one_line("a picture has changed since it was read"):
        first = disjoint(stories, settings.num_stories)
        heading = f"{story_set.name}, {split}: {len(first)} of {len(stories):,} stories"
        sheet = save_sheet(sheets.story_rows(story_set, first), heading, out)
        previewed = [stories[i] for i in spread(settings.preview, len(stories))]
        resolution = settings.data.resolution
        strips = save_strips(sheets.story_rows(story_set, previewed, lambda picture: squared(picture, resolution)), out)
    return [sheet, *strips]


def write_captions(
    story_set: StorySet, stories: Sequence[StoryRecord], split: str, out: Path, settings: PrepareSettings
) -> list[str]:
    """The captions of every story of a set in words only, for drawing them: what ``generate captions=FILE`` reads."""
    texts = {f"{file_name(story.id)}.txt": findings.captions_text(story) for story in stories}
    write_only(out / CAPTIONS, "*.txt", texts)
    example = out / CAPTIONS / next(iter(texts), "<id>.txt")
    return [
        f"wrote {out / CAPTIONS}: the captions of {len(texts):,} stories, which have no pictures; to draw one:",
        f"  storydalle generate captions={example} source=frame.png",
    ]


def disjoint(stories: Sequence[StoryRecord], number: int) -> list[StoryRecord]:
    """The first stories that have no clip of one before: windows of a book otherwise show its pages over and over."""
    chosen: list[StoryRecord] = []
    shown: set[str] = set()
    for record in stories:
        if len(chosen) < number and shown.isdisjoint(record.clips):
            chosen.append(record)
            shown.update(record.clips)
    return chosen


# ------------------------------------------------------------------------------------------------ ToonSV


def look_at_toon(settings: PrepareSettings, out: Path) -> None:
    from storydalle.stories import toon

    name, split = settings.data.name, settings.split
    if split not in toon.SPLITS:
        raise UserError(f"{name} has no split {split!r}; {nearest(split, toon.SPLITS)}")
    with told_in_one_line(""):
        stories = toon.ToonSV(split, resolution=settings.data.resolution)
        counts = toon.counts(split)
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


# ------------------------------------------------------------------------------------------------ both


def save_sheet(rows: Iterable[sheets.StoryRow], heading: str, out: Path) -> str:
    save_picture(sheets.draw_sheet(rows, heading), out / SHEET)
    return f"drew {out / SHEET}: {heading}"


def save_strips(rows: Iterable[sheets.StoryRow], out: Path) -> list[str]:
    files = []
    for row in rows:
        files.append(out / STRIPS / f"{file_name(row.id)}.png")
        files[-1].parent.mkdir(exist_ok=True)
        save_picture(sheets.draw_sheet([row]), files[-1])
    return [f"drew {file}" for file in files]


def as_json(tree: object) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
