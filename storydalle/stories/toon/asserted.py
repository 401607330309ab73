"""Files of assertions: what has to be seen in the frames of a story, ``frames[3]: Lulu wears blue hat, kitchen``.

A line tells facts of one frame in the language of ``assertions``; several lines may tell of the same one. Frames count
from 1 as captions do, and ``frames[0]`` is the source. Empty lines, and lines that begin with #, tell nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from storydalle.files.reading import read_text
from storydalle.files.text import split_lines
from storydalle.stories.toon.assertions import Fact, read_facts
from storydalle.stories.toon.names import NAMED

LINE = re.compile(r"frames\[([0-9]{1,3})\]\s*:(.*)")
EXAMPLE = "frames[3]: Lulu wears blue hat, Pip runs, kitchen"
MOST_GUESTS, MOST_SHOWN = 2, 4
LOOK = ("shape", "color", "accessory")  # kinds of facts that only a guest has
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Assertions:
    """The facts that each frame has to show, by the frame's number, and the lines that tell them."""

    frames: Mapping[int, tuple[Fact, ...]]
    lines: tuple[str, ...]

    @cached_property
    def guests(self) -> tuple[str, ...]:
        """Names of guests, in the order in which the lines name them first."""
        return tuple(dict.fromkeys(guests_of(fact for facts in self.frames.values() for fact in facts)))

    @cached_property
    def looks(self) -> dict[str, dict[str, str]]:
        """The look of each guest as the lines tell it, by kind; the first of several lines counts."""
        looks: dict[str, dict[str, str]] = {name: {} for name in self.guests}
        for fact in (fact for facts in self.frames.values() for fact in facts if fact.kind in LOOK):
            looks[fact.names[0]].setdefault(fact.kind, fact.value)
        return looks


def read_assertion_file(path: Path) -> Assertions:
    """The assertions of a text file; ValueError names file, line and word of a mistake."""
    if not path.is_file():
        raise ValueError(f"no assertions file {str(path)!r}: give a text file of lines like {EXAMPLE!r}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"assertions={path} has {path.stat().st_size} bytes, too many for assertions")
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"assertions={error}") from error
    return read_assertions(split_lines(text), f"assertions={path}")


def read_assertions(lines: Iterable[str], where: str) -> Assertions:
    """The assertions of lines; ValueError, beginning with ``where``, names the line and the word of a mistake."""
    told: dict[int, str] = {}
    frames: dict[int, tuple[Fact, ...]] = {}
    guests: list[str] = []
    kept = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        place = f"{where}, line {number}"
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{place}: {line!r} is no assertion; write {EXAMPLE!r}")
        frame = int(match[1])
        told[frame] = f"{told[frame]}, {match[2]}" if frame in told else match[2]
        frames[frame] = read_facts(told[frame], place)
        check_world(frames[frame], guests, place)
        kept.append(line)
    if not frames:
        raise ValueError(f"{where} holds no assertion: write lines like {EXAMPLE!r}")
    return Assertions(dict(sorted(frames.items())), tuple(kept))


def guests_of(facts: Iterable[Fact]) -> list[str]:
    """Names in facts that are no named character's."""
    return [name for fact in facts for name in fact.names if name.lower() not in NAMED]


def check_world(facts: Iterable[Fact], guests: list[str], place: str) -> None:
    """ValueError for what no frame of the world shows; ``guests``, known by now, gets those that are new."""
    for fact in facts:
        names = guests_of([fact])
        if fact.kind in LOOK and not names:
            raise ValueError(f"{place}: {str(fact)!r}: {fact.names[0]} always looks the same; only guests have a look")
        if fact.kind == "hat" and fact.value != "none" and names:
            raise ValueError(f"{place}: {str(fact)!r}: guests wear no hats")
        if len(fact.names) > MOST_SHOWN:
            raise ValueError(f"{place}: {str(fact)!r}: a frame shows at most {MOST_SHOWN} characters")
        for name in names:
            if name not in guests and len(guests) == MOST_GUESTS:
                known = ", ".join(map(str.capitalize, NAMED))
                raise ValueError(
                    f"{place}: {name!r} is none of {known}, and a story has at most {MOST_GUESTS} guests: "
                    f"{' and '.join(guests)}"
                )
            guests += [] if name in guests else [name]
