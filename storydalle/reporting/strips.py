"""Captions and frames as a picture: a strip, or an animation.

Frames are RGB pictures of one size. No file or font from outside the package's dependencies is used, so the same story
gives the same bytes.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from storydalle.reporting.lettering import LABEL_HEIGHT, LABEL_SIZE, LINE_HEIGHT, TEXT_SIZE, font, wrapped

PAPER, CARD, EDGE = "#f6f3ee", "#ffffff", "#e4ded4"
INK, FAINT, ACCENT = "#2f2b36", "#918a9a", "#d9694a"
COLUMNS = 5  # A source and four frames, the usual story, stand in one row.
MARGIN, GAP, PADDING, RADIUS = 28, 18, 12, 12
SHOWN_SIZE = 240  # Frames are enlarged by a whole factor to at least this many pixels.
GIF_COLORS = 128


class Card(NamedTuple):
    """One frame of a story, or its source, with caption, notes, candidates and true frame."""

    picture: Image.Image
    label: str
    caption: str = ""
    candidates: Sequence[Image.Image] = ()  # where there are several, the chosen one first
    reference: Image.Image | None = None


class Strip(NamedTuple):
    """A story as it is shown."""

    captions: Sequence[str]
    frames: Sequence[Image.Image]
    source: Image.Image | None = None
    candidates: Sequence[Sequence[Image.Image]] = ()  # those of each frame, the chosen one first
    references: Sequence[Image.Image] = ()  # the true frames, where they are known

    def cards(self) -> list[Card]:
        """The source first, then the frames with their numbers; ValueError if frames and captions do not agree."""
        sizes = {frame.size for frame in self.frames}
        if len(self.captions) != len(self.frames) or len(sizes) != 1:
            raise ValueError(
                f"{len(self.captions)} captions and {len(self.frames)} frames of sizes {sorted(sizes)}: "
                "a strip needs one frame a caption, all of one size"
            )
        cards = [] if self.source is None else [Card(self.source, "source")]
        for i, (caption, frame) in enumerate(zip(self.captions, self.frames, strict=True)):
            candidates = self.candidates[i] if i < len(self.candidates) else ()
            reference = self.references[i] if i < len(self.references) else None
            cards.append(Card(frame, str(i + 1), caption, candidates if len(candidates) > 1 else (), reference))
        return cards


class Panel(NamedTuple):
    """One card of a strip: a picture, a small label, the caption in lines, and notes in small grey ones."""

    picture: Image.Image
    label: str
    lines: Sequence[str]
    remarks: Sequence[str] = ()


def strip_image(strip: Strip) -> Image.Image:
    """The source first, then the frames with their captions beneath, in rows of at most five."""
    return framed(cards_image(panels_of(strip)))


def compared_image(strip: Strip) -> Image.Image:
    """The strip, and below it the same cards with the true frames."""
    if len(strip.references) != len(strip.frames):
        raise ValueError(f"{len(strip.references)} true frames for {len(strip.frames)} drawn ones: give one each")
    drawn = cards_image(panels_of(strip))
    panels = panels_of(strip._replace(frames=strip.references, captions=[""] * len(strip.frames)))
    true = cards_image([panel if panel.label == "source" else panel._replace(label="true frame") for panel in panels])
    canvas = Image.new("RGB", (drawn.width, drawn.height + GAP + true.height), PAPER)
    canvas.paste(drawn, (0, 0))
    canvas.paste(true, (0, drawn.height + GAP))
    return framed(canvas)


def framed(picture: Image.Image) -> Image.Image:
    """A picture with a margin in the colour of the paper."""
    canvas = Image.new("RGB", (picture.width + 2 * MARGIN, picture.height + 2 * MARGIN), PAPER)
    canvas.paste(picture, (MARGIN, MARGIN))
    return canvas


def cards_image(panels: Sequence[Panel]) -> Image.Image:
    """Cards with pictures of one size in balanced rows, each row as high as its longest caption needs."""
    num_rows = math.ceil(len(panels) / COLUMNS)
    num_columns = math.ceil(len(panels) / num_rows)
    rows = [panels[start : start + num_columns] for start in range(0, len(panels), num_columns)]
    width, _ = card_size(panels)
    heights = [card_size(row)[1] for row in rows]
    size = (num_columns * (width + GAP) - GAP, sum(heights) + (num_rows - 1) * GAP)
    canvas = Image.new("RGB", size, PAPER)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            draw_card(canvas, panel, (column * (width + GAP), top), (width, height))
        top += height + GAP
    return canvas


def save_gif(strip: Strip, path: Path, seconds: float = 1.5) -> None:
    """An animation of the story, each frame with its caption for ``seconds``."""
    panels = panels_of(strip)
    size = card_size(panels)
    shots = []
    for panel in panels:
        shot = Image.new("RGB", (size[0] + 2 * GAP, size[1] + 2 * GAP), PAPER)
        draw_card(shot, panel, (GAP, GAP), size)
        shots.append(shot.quantize(GIF_COLORS, dither=Image.Dither.NONE))
    shots[0].save(path, save_all=True, append_images=shots[1:], duration=round(1000 * seconds), loop=0, disposal=2)


def panels_of(strip: Strip) -> list[Panel]:
    """Cards of a strip, pictures enlarged alike."""
    cards = strip.cards()
    size = shown_size(*strip.frames[0].size)
    return [Panel(enlarged(card.picture, size), card.label, wrapped(card.caption, size[0])) for card in cards]


def shown_size(width: int, height: int) -> tuple[int, int]:
    factor = max(1, math.ceil(SHOWN_SIZE / width))
    return width * factor, height * factor


def enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at the strip's size; bicubic, since Lanczos makes rings around outlines when it enlarges."""
    picture = picture.convert("RGB")
    grows = picture.width < size[0]
    return picture.resize(size, Image.Resampling.BICUBIC if grows else Image.Resampling.LANCZOS)


def card_size(panels: Sequence[Panel]) -> tuple[int, int]:
    """The width and height of the largest card."""
    picture_width, picture_height = panels[0].picture.size
    text_height = max(LINE_HEIGHT * len(panel.lines) + LABEL_HEIGHT * len(panel.remarks) for panel in panels)
    return picture_width + 2 * PADDING, picture_height + LINE_HEIGHT + text_height + 3 * PADDING


def draw_card(canvas: Image.Image, panel: Panel, corner: tuple[int, int], size: tuple[int, int]) -> None:
    left, top = corner
    width, height = size
    pen = ImageDraw.Draw(canvas)
    pen.rounded_rectangle((left, top, left + width - 1, top + height - 1), RADIUS, fill=CARD, outline=EDGE)
    picture_corner = (left + PADDING, top + PADDING)
    canvas.paste(panel.picture, picture_corner, rounded_mask(panel.picture.size))
    line_top = top + 2 * PADDING + panel.picture.height - 2
    is_source = panel.label == "source"
    pen.text((left + PADDING, line_top + 2), panel.label, fill=FAINT if is_source else ACCENT, font=font(LABEL_SIZE))
    for line in panel.lines:
        line_top += LINE_HEIGHT
        pen.text((left + PADDING, line_top), line, fill=INK, font=font(TEXT_SIZE))
    line_top += LINE_HEIGHT
    for remark in panel.remarks:
        pen.text((left + PADDING, line_top + 2), remark, fill=FAINT, font=font(LABEL_SIZE))
        line_top += LABEL_HEIGHT


@cache
def rounded_mask(size: tuple[int, int]) -> Image.Image:
    """A mask with smooth round corners."""
    mask = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *(4 * side - 1 for side in size)), RADIUS * 2, fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)
