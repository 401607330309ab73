"""A strip whose frames are marked: green where all of their assertions hold, red where one does not."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from storydalle.reporting.lettering import LABEL_SIZE, wrapped
from storydalle.reporting.strips import Panel, cards_image, enlarged, framed, shown_size

PASSES, FAILS, BORDER = "#3d9a50", "#d23b3b", 7


class MarkedFrame(NamedTuple):
    """A picture with what holds in it, and what does not; with neither it gets no mark."""

    label: str
    picture: Image.Image
    held: Sequence[str]
    failed: Sequence[str]


def marked_strip(frames: Sequence[MarkedFrame]) -> Image.Image:
    """The frames as cards: what fails in dark letters below each, then what holds in grey ones."""
    side = min(frames[0].picture.size)
    size = shown_size(side, side)
    return framed(cards_image([panel_of(frame, size) for frame in frames]))


def panel_of(frame: MarkedFrame, size: tuple[int, int]) -> Panel:
    number, of = len(frame.held), len(frame.held) + len(frame.failed)
    failed = [line for text in frame.failed for line in wrapped(text, size[0])]
    held = wrapped(", ".join(frame.held), size[0], None, LABEL_SIZE)
    label = f"{frame.label}   {number} of {of} hold" if of else frame.label
    picture = enlarged(frame.picture, size)
    return Panel(marked(picture, FAILS if failed else PASSES) if of else picture, label, failed, held)


def marked(picture: Image.Image, color: str) -> Image.Image:
    """A picture with a border inside its edge."""
    picture = picture.copy()
    right, bottom = picture.width - 1, picture.height - 1
    ImageDraw.Draw(picture).rectangle((0, 0, right, bottom), outline=color, width=BORDER)
    return picture
