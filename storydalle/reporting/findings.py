"""The findings of ``prepare`` about a story set: as a tree for report.json, and in words."""

import hashlib
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypedDict, cast

from storydalle.reporting.lettering import printable
from storydalle.stories import statistics
from storydalle.stories.inspection import ClipFacts
from storydalle.stories.story_set import Problem, StoryRecord, StorySet

NUM_EXAMPLES = 5
SPLIT_COLUMNS = ("stories", "usable", "official", "difference", "groups", "whole_stories", "clips", "frames")
COLUMN_WORDS = {
    "stories": "as the annotations give them",
    "usable": "without a damaged picture",
    "official": "as published",
    "groups": "no two splits should share one",
    "frames": "each once, however many stories show it",
}
LEAK_WORDS = {
    "groups": "groups",
    "clips": "clips",
    "pictures": "pictures, byte for byte",
    "looks": "pictures that look alike",
    "captions": "captions",
}
Splits = Mapping[str, Sequence[StoryRecord]]


class Examples(TypedDict):
    """Findings of one kind: how many, and the first ones."""

    number: int
    examples: list[list[str]]


class ClipsTogether(Examples):
    num_clips: int


class Problems(Examples):
    kinds: Mapping[str, int]


class AllProblems(TypedDict):
    annotations: Problems
    pictures: Problems


class Counts(TypedDict):
    """Counts of one split or of all of them; ``COLUMN_WORDS`` explains them."""

    stories: int
    usable: int
    groups: int
    whole_stories: int
    clips: int
    frames: int


class SplitCounts(Counts):
    official: int | None
    difference: int | None
    ids_sha256: str  # of the usable stories


class Shared(TypedDict):
    """``statistics.Leak`` as json holds it."""

    kind: str
    splits: tuple[str, str]
    number: int
    total: int
    num_stories: tuple[int, int]
    examples: list[Sequence[str]]


class Captions(TypedDict):
    """``statistics.CaptionStatistics`` as json holds it."""

    num_captions: int
    num_empty: int
    pronoun_share: float
    mean_words: float
    max_words: int
    mean_tokens: float | None  # None where tokens are not counted
    max_tokens: int | None
    num_truncated: int | None


class SetReport(TypedDict):
    """Everything that is found, as report.json holds it."""

    set: str
    has_pictures: bool
    whole: str  # the word for whole stories, such as "episodes"
    contents: Mapping[str, int]
    num_targets: list[int]  # the fewest and the most
    all: Counts
    splits: Mapping[str, SplitCounts]
    problems: AllProblems
    same_bytes: ClipsTogether
    look_alike: ClipsTogether
    in_several_stories: ClipsTogether
    repeated_frames: Examples
    repeated_sources: Examples
    leaks: list[Shared]
    text_length: int | None  # None where tokens are not counted
    captions: Mapping[str, Captions]
    characters: Mapping[str, Mapping[str, int]]


class Tokens(NamedTuple):
    """How to count the tokens of captions."""

    lengths_of: Callable[[Sequence[str]], Sequence[int]]
    text_length: int  # over which a caption is truncated


class Findings(NamedTuple):
    """Facts about a copy of a set, after every clip was read."""

    records: Splits  # as the annotations give them
    usable: Splits  # those without a bad clip
    clips: Mapping[str, ClipFacts]  # all that stories have
    good: Mapping[str, ClipFacts]  # those that can be used
    annotation_problems: Sequence[Problem]
    picture_problems: Sequence[Problem]  # ``where`` is a clip


def findings_of(
    story_set: StorySet, records: Splits, clips: Mapping[str, ClipFacts], annotation_problems: Sequence[Problem]
) -> Findings:
    damaged = [Problem(clip, facts.problem) for clip, facts in clips.items() if facts.problem is not None]
    hashes = {clip: facts.sha256 for clip, facts in clips.items() if facts.problem is None and facts.sha256}
    problems = [*damaged, *story_set.unusable(hashes)]
    bad = {problem.where for problem in problems}
    usable = {split: statistics.usable(stories, bad) for split, stories in records.items()}
    good = {clip: facts for clip, facts in clips.items() if clip not in bad}
    return Findings(records, usable, clips, good, annotation_problems, problems)


def ids_text(stories: Iterable[StoryRecord]) -> str:
    """One id a line: if these texts are equal, two copies of a set have the same stories."""
    return "".join(f"{record.id}\n" for record in stories)


def captions_text(record: StoryRecord) -> str:
    """The captions of the targets, one a line."""
    return "".join(f"{caption}\n" for caption in record.captions[1:])


# ------------------------------------------------------------------------------------------------ as a tree


def report_of(story_set: StorySet, findings: Findings, tokens: Tokens | None = None) -> SetReport:
    """The tree of all findings; the same for the same copy."""
    usable = [record for stories in findings.usable.values() for record in stories]
    good = findings.good
    return {
        "set": story_set.name,
        "has_pictures": story_set.has_pictures,
        "whole": story_set.whole,
        "contents": dict(story_set.contents()),
        "num_targets": _range([len(record.clips) - 1 for stories in findings.records.values() for record in stories]),
        "all": _counts([record for stories in findings.records.values() for record in stories], usable, findings.clips),
        "splits": {split: _split_counts(story_set, findings, split) for split in findings.records},
        "problems": {
            "annotations": _problems(findings.annotation_problems),
            "pictures": _problems(findings.picture_problems),
        },
        "same_bytes": _clips_together(statistics.same_bytes(good)),
        "look_alike": _clips_together(statistics.look_alikes(good)),
        "in_several_stories": _clips_together(statistics.in_several_stories(usable, good)),
        "repeated_frames": _examples(statistics.repeated_frames(usable, good)),
        "repeated_sources": _examples(statistics.repeated_sources(usable, good)),
        "leaks": [cast(Shared, leak._asdict()) for leak in statistics.leaks(findings.usable, good)],
        "text_length": tokens.text_length if tokens else None,
        "captions": {split: _captions(stories, tokens) for split, stories in findings.usable.items()},
        "characters": _characters(story_set.characters, findings.usable),
    }


def _counts(records: Sequence[StoryRecord], usable: Sequence[StoryRecord], clips: Mapping[str, ClipFacts]) -> Counts:
    used = {clip for record in records for clip in record.clips}
    return {
        "stories": len(records),
        "usable": len(usable),
        "groups": len({record.group for record in records}),
        "whole_stories": len({statistics.whole_story(record) for record in records}),
        "clips": len(used),
        "frames": sum(clips[clip].num_frames for clip in used if clip in clips),
    }


def _range(numbers: Sequence[int]) -> list[int]:
    return [min(numbers), max(numbers)]


def _split_counts(story_set: StorySet, findings: Findings, split: str) -> SplitCounts:
    usable, official = findings.usable[split], story_set.official_count(split)
    return {
        **_counts(findings.records[split], usable, findings.clips),
        "official": official,
        "difference": None if official is None else len(usable) - official,
        "ids_sha256": hashlib.sha256(ids_text(usable).encode("utf-8", "backslashreplace")).hexdigest(),
    }


def _captions(stories: Sequence[StoryRecord], tokens: Tokens | None) -> Captions:
    counted = statistics.caption_statistics(stories, *tokens) if tokens else statistics.caption_statistics(stories)
    return cast(Captions, counted._asdict())


def _characters(names: Sequence[str], usable: Splits) -> dict[str, Mapping[str, int]]:
    if not names:
        return {}
    return {split: statistics.character_counts(stories, names) for split, stories in usable.items()}


def _problems(problems: Sequence[Problem]) -> Problems:
    return {**_examples(problems), "kinds": statistics.problem_kinds(problems)}


def _clips_together(groups: Sequence[tuple[str, ...]]) -> ClipsTogether:
    return {**_examples(groups), "num_clips": len({clip for group in groups for clip in group})}


def _examples(found: Sequence[tuple[str, ...]]) -> Examples:
    return {"number": len(found), "examples": [list(each) for each in found[:NUM_EXAMPLES]]}


# ------------------------------------------------------------------------------------------------ in words


def report_text(report: SetReport) -> str:
    sections = [
        _counts_text(report),
        _problems_text("the annotations", report["problems"]["annotations"]),
        _problems_text("pictures", report["problems"]["pictures"]) if report["has_pictures"] else "",
        _repeats_text(report) if report["has_pictures"] else "",
        _leaks_text(report),
        _captions_text(report),
        _characters_text(report),
    ]
    return "\n\n".join(printable_lines(section) for section in sections if section)


def printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def aligned(rows: Sequence[Sequence[object]]) -> str:
    """A table: the first column flush left, the others right; None is a dash."""
    cells = [
        ["-" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        numbers = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([f"  {first:<{widths[0]}}", *numbers]).rstrip())
    return "\n".join(lines)


def _counts_text(report: SetReport) -> str:
    total = report["all"]
    shortest, longest = report["num_targets"]
    targets = plural(longest, "target") if shortest == longest else f"{shortest:,} to {longest:,} targets"
    lines = [
        f"{report['set']}: {total['usable']:,} of {total['stories']:,} stories can be used, each a source and {targets}"
    ]
    if report["contents"]:
        lines.append("the copy holds " + ", ".join(f"{number:,} {name}" for name, number in report["contents"].items()))
    columns = _columns(report)
    names = [report["whole"] if name == "whole_stories" else name for name in columns]
    rows: list[list[object]] = [["", *names]]
    rows += [[split, *(counts.get(name) for name in columns)] for split, counts in report["splits"].items()]
    rows += [["all", *(total.get(name) for name in columns)]]
    legend = "; ".join(f"{name}: {COLUMN_WORDS[name]}" for name in columns if name in COLUMN_WORDS)
    return "\n".join([*lines, aligned(rows), textwrap.fill(legend, 100, initial_indent="  ", subsequent_indent="  ")])


def _columns(report: SetReport) -> list[str]:
    """The columns of the table of splits that are not empty."""
    total, splits = report["all"], report["splits"].values()
    idle = set()
    if all(counts["official"] is None for counts in splits):
        idle |= {"official", "difference"}
    if total["whole_stories"] == total["stories"]:
        idle.add("whole_stories")
    if total["groups"] in (total["stories"], total["whole_stories"]):
        idle.add("groups")
    if total["clips"] == total["frames"]:
        idle.add("clips")
    if not report["has_pictures"]:
        idle |= {"usable", "clips", "frames"}
    return [name for name in SPLIT_COLUMNS if name not in idle]


def _problems_text(where: str, problems: Problems) -> str:
    if not problems["number"]:
        return f"problems of {where}: none"
    kinds = aligned([[kind, number] for kind, number in problems["kinds"].items()])
    return "\n".join([f"problems of {where}: {problems['number']:,}", kinds, *_first(problems, ": ".join)])


def _repeats_text(report: SetReport) -> str:
    lines = ["what occurs twice"]
    for found, words in (
        (report["same_bytes"], "pictures that several clips have, byte for byte"),
        (report["in_several_stories"], f"pictures in more than one of the {report['whole']}, byte for byte"),
        (report["look_alike"], "looks (64-bit hashes of a frame) of several clips that differ in bytes"),
        (report["repeated_frames"], "pairs of consecutive frames of a story that are the same, byte for byte"),
        (report["repeated_sources"], "stories whose source is also one of their targets"),
    ):
        in_clips = f", {num_clips:,} clips" if (num_clips := found.get("num_clips")) else ""
        lines += [f"  {words}: {found['number']:,}{in_clips}", *_first(found, " = ".join)]
    return "\n".join(lines)


def _leaks_text(report: SetReport) -> str:
    if not report["leaks"]:
        return f"leaks across splits: none by {', '.join(LEAK_WORDS)}" if len(report["splits"]) > 1 else ""
    lines = ["leaks across splits"]
    for leak in report["leaks"]:
        first, second = leak["splits"]
        in_first, in_second = leak["num_stories"]
        share = f"{first} and {second} share {leak['number']:,} {LEAK_WORDS[leak['kind']]}"
        where = f"in {in_first:,} and {in_second:,} stories, as in {' and '.join(leak['examples'][0])}"
        lines.append(f"  {share} (of {leak['total']:,} in {second}; {where})")
    return "\n".join(lines)


def _captions_text(report: SetReport) -> str:
    columns = ["number", "empty", "with a pronoun", "words", "longest"]
    if report["text_length"]:
        columns += ["tokens", "longest", f"over {report['text_length']}"]
    rows: list[list[object]] = [["", *columns]]
    for split, captions in report["captions"].items():
        share = f"{100 * captions['pronoun_share']:.0f} %"
        row = [captions["num_captions"], captions["num_empty"], share, f"{captions['mean_words']:.1f}"]
        row += [captions["max_words"]]
        if report["text_length"]:
            row += [f"{captions['mean_tokens']:.1f}", captions["max_tokens"], captions["num_truncated"]]
        rows.append([split, *row])
    return f"captions of targets\n{aligned(rows)}"


def _characters_text(report: SetReport) -> str:
    characters = report["characters"]
    if not characters:
        return ""
    names = next(iter(characters.values()))
    rows: list[list[object]] = [
        ["", *characters],
        *([name, *(counts[name] for counts in characters.values())] for name in names),
    ]
    return f"target frames with each character\n{aligned(rows)}"


def _first(found: Examples, written: Callable[[Sequence[str]], str]) -> list[str]:
    """Examples, one a line, and the number of others."""
    lines = [f"    {written(example)}" for example in found["examples"]]
    beyond = found["number"] - len(lines)
    return [*lines, f"    and {beyond:,} more"] if beyond else lines
