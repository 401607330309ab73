"""The stories of ``people/``, written by hand, and files like them: captions, each with the facts of its frame.

``people/README.md`` says how a file is written and what stays from frame to frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from storydalle.files.reading import read_text
from storydalle.files.text import split_lines
from storydalle.stories.toon.assertions import Fact, cast_of, completed, read_facts
from storydalle.stories.toon.names import NAMED

FOLDER = Path(__file__).parent / "people"
STYLES = ("child", "storyteller", "terse")
HALVES = ("open", "held")


@dataclass(frozen=True)
class WrittenStory:
    """A source frame as facts, and for each target its caption and its facts; hats and hands are always told."""

    id: str
    half: str
    tags: tuple[str, ...]
    source: tuple[Fact, ...]
    captions: tuple[str, ...]
    facts: tuple[tuple[Fact, ...], ...]

    @property
    def style(self) -> str:
        return self.id.partition("-")[0]


def people_stories(half: str) -> list[WrittenStory]:
    """The stories of ``people/open`` or ``people/held``, in the order of the files."""
    if half not in HALVES:
        raise ValueError(f"half={half!r}: the split people has {' and '.join(HALVES)}")
    files = [FOLDER / f"{style}.txt" for style in STYLES]
    return [story for path in files for story in read_stories(read_text(path), path.name) if story.half == half]


def read_stories(text: str, name: str) -> list[WrittenStory]:
    """The stories of a file called ``name``; ValueError names the line."""
    return [_story(lines, name) for lines in _blocks(text)]


def _blocks(text: str) -> Iterator[list[tuple[int, str]]]:
    """Lines with their numbers, parted where lines are empty."""
    block: list[tuple[int, str]] = []
    for number, line in chain(enumerate(split_lines(text), start=1), [(0, "")]):
        if line.strip():
            block.append((number, line.strip()))
        elif block:
            yield block
            block = []


def _story(lines: list[tuple[int, str]], name: str) -> WrittenStory:
    where = [f"{name}, line {number}" for number, _ in lines]
    texts = [text for _, text in lines]
    identity, half, tags = _heading(texts, where)
    captions, labels = texts[3::2], texts[4::2]
    for caption, label, place in zip(captions, labels, where[3::2], strict=False):
        if caption.startswith("= ") or not label.startswith("= "):
            raise ValueError(f"{place}: a caption is followed by its facts, '= only Pip, Pip runs, ...'")
    if len(captions) != len(labels) or not captions:
        raise ValueError(f"{where[-1]}: a story ends with the facts of its last caption")
    told = [
        read_facts(text.partition(" ")[2], place) for text, place in zip((texts[2], *labels), where[2::2], strict=True)
    ]
    _check_names(told, where[2::2])
    first, *others = map(completed, told)
    return WrittenStory(identity, half, tags, first, tuple(captions), tuple(others))


def _heading(texts: list[str], where: list[str]) -> tuple[str, str, tuple[str, ...]]:
    """The name, the half and the tags of a story, from its first three lines, of which the last is the source's."""
    first = texts[0].split()
    if len(first) != 3 or first[0] != "story" or first[2] not in HALVES:
        raise ValueError(f"{where[0]}: {texts[0]!r} is not 'story NAME {' or '.join(HALVES)}'")
    for at, example in ((1, "tags: joins, alone"), (2, "source: only Pip, beach")):
        key = example.partition(" ")[0] + " "
        if len(texts) <= at or not texts[at].startswith(key):
            raise ValueError(f"{where[min(at, len(texts) - 1)]}: a story has a line like {example!r} here")
    return first[1], first[2], tuple(texts[1].removeprefix("tags: ").split(", "))


def _check_names(told: list[tuple[Fact, ...]], where: list[str]) -> None:
    """ValueError for a frame whose cast is open, and for a name that is no character's and no described guest's."""
    known = set(NAMED)
    for facts, place in zip(told, where, strict=True):
        try:
            cast_of(facts)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        known |= {fact.names[0].lower() for fact in facts if fact.kind in ("color", "shape", "accessory")}
        for name in {name for fact in facts for name in fact.names}:
            if name.lower() not in known:
                raise ValueError(f"{place}: {name!r} is no named character, and no guest whose look is told so far")
