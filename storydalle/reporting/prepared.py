"""The files that ``prepare`` writes of a story set: what was found, a contact sheet, strips, captions."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from storydalle.files.paths import file_name
from storydalle.files.whole import save_picture, write_text
from storydalle.mistakes import told_in_one_line
from storydalle.reporting import findings, sheets
from storydalle.stories.opening import spread
from storydalle.stories.pictures import squared
from storydalle.stories.story_set import Problem, StoryRecord, StorySet

SHEET, STRIPS, CAPTIONS = "contact_sheet.png", "strips", "captions"


class Shown(NamedTuple):
    """How much of a set is drawn."""

    num_stories: int  # on the contact sheet
    preview: int  # strips
    resolution: int  # of a strip's frames, pixels a side


def write_files(
    out: Path, found: findings.Findings, report: findings.SetReport, inputs_of: Mapping[str, object]
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


def draw(story_set: StorySet, stories: Sequence[StoryRecord], split: str, out: Path, shown: Shown) -> list[str]:
    """The contact sheet of the first stories, and strips of some that are spread over the split, as a model sees them.

    A sheet has whole pictures, as large as they are; a strip their centred squares, at the model's resolution.
    """
    if not stories:
        return [f"no story of {split} can be used: nothing is drawn"]
    with told_in_one_line("a picture has changed since it was read"):
        first = disjoint(stories, shown.num_stories)
        heading = f"{story_set.name}, {split}: {len(first)} of {len(stories):,} stories"
        sheet = save_sheet(sheets.story_rows(story_set, first), heading, out)
        previewed = [stories[i] for i in spread(shown.preview, len(stories))]
        resolution = shown.resolution
        strips = save_strips(sheets.story_rows(story_set, previewed, lambda picture: squared(picture, resolution)), out)
    return [sheet, *strips]


def write_captions(
    story_set: StorySet, stories: Sequence[StoryRecord], split: str, out: Path, shown: Shown
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
