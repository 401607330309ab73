"""Assertions checked on the pictures of a story: which hold in each frame, and what is read instead of the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from storydalle.evaluation.drawn_layouts import OWN_FRAME, is_picture
from storydalle.evaluation.drawn_pictures import open_drawn
from storydalle.evaluation.toon_table import markdown
from storydalle.metrics.held_facts import named_frame, read_labels
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.mistakes import UserError, first_few
from storydalle.stories.images import from_images
from storydalle.stories.pictures import ClipError
from storydalle.stories.toon.asserted import Assertions
from storydalle.stories.toon.assertions import Fact

FRAMES = "frames"  # where generate keeps the pictures of a strip
MOST_TOLD = 12  # numbers of frames in a message


class CheckedFact(NamedTuple):
    fact: Fact
    holds: bool
    read: str  # what is read instead, where it does not hold

    def __str__(self) -> str:
        return str(self.fact) if self.holds else f"{self.fact} (seen: {self.read})"


class CheckedFrame(NamedTuple):
    """A picture, and each of its assertions; none of a frame that no line tells of."""

    number: int
    picture: Image.Image
    facts: Sequence[CheckedFact]

    @property
    def num_held(self) -> int:
        return sum(each.holds for each in self.facts)


def story_pictures(folder: Path) -> dict[int, Path]:
    """The pictures of one story by the numbers of their frames, 0 the source.

    Their names are numbers, as ``generate`` writes them (``01.png``, ``00-source.png``; further candidates,
    ``01-2.png``, are left out), or any: then they count from 1 in the order of names.
    """
    root = folder / FRAMES if (folder / FRAMES).is_dir() else folder
    if not root.is_dir():
        raise UserError(f"images={folder} is not a folder: give one with the pictures of a story")
    files = sorted(path for path in root.iterdir() if is_picture(path.name) and not path.name.startswith("."))
    matches = {path: OWN_FRAME.fullmatch(path.stem) for path in files}
    numbered = {int(match[1]): path for path, match in matches.items() if match and match[2] in (None, "-source")}
    if not files:
        raise UserError(f"images={folder} holds no picture: give a folder with the pictures of a story")
    return dict(sorted(numbered.items())) or dict(enumerate(files, start=1))


def checked_pictures(folder: Path, assertions: Assertions, reader: LabelReader) -> list[CheckedFrame]:
    """Check a folder's pictures; UserError for an asserted frame without one, and for one that cannot be read."""
    files = story_pictures(folder)
    if missing := [number for number in assertions.frames if number not in files]:
        raise UserError(
            f"images={folder} has no picture of frames[{missing[0]}]: it has those of "
            f"{first_few([str(number) for number in files], MOST_TOLD)}; 0 is the source"
        )
    pictures = [opened(path) for path in files.values()]
    labels = read_labels(reader, from_images(pictures, reader.resolution))
    frames = []
    for number, picture, read in zip(files, pictures, labels, strict=True):
        facts = assertions.frames.get(number, ())
        seen = named_frame(read, assertions, facts)
        held = {fact: seen.holds(fact) for fact in facts}
        checked = [CheckedFact(fact, holds, "" if holds else seen.instead(fact)) for fact, holds in held.items()]
        frames.append(CheckedFrame(number, picture, checked))
    return frames


def opened(path: Path) -> Image.Image:
    try:
        return open_drawn(path).picture
    except ClipError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def assertion_table(frames: Sequence[CheckedFrame]) -> str:
    """A line for each frame with assertions, then a line for all."""
    asserted = [frame for frame in frames if frame.facts]
    lines = [
        [
            f"frames[{frame.number}]",
            "pass" if frame.num_held == len(frame.facts) else "FAIL",
            f"{frame.num_held} of {len(frame.facts)}",
            "; ".join(str(each) for each in frame.facts if not each.holds) or "-",
        ]
        for frame in asserted
    ]
    passed = sum(frame.num_held == len(frame.facts) for frame in asserted)
    held, of = sum(frame.num_held for frame in asserted), sum(len(frame.facts) for frame in asserted)
    total = ["all", f"{passed} of {len(asserted)} pass", f"{held} of {of}", "-"]
    return markdown(["frame", "", "hold", "does not hold"], [*lines, total])


def assertion_record(frames: Sequence[CheckedFrame]) -> dict[str, object]:
    """The same for programs: numbers, and each assertion with what is read instead."""
    asserted = [frame for frame in frames if frame.facts]
    return {
        "held": sum(frame.num_held for frame in asserted),
        "of": sum(len(frame.facts) for frame in asserted),
        "frames": {
            str(frame.number): [
                {"fact": str(each.fact), "holds": each.holds} | ({} if each.holds else {"read": each.read})
                for each in frame.facts
            ]
            for frame in asserted
        },
    }
