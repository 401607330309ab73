"""Contact sheets: stories one below the other, with whole pictures of any shape and complete captions below them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from storydalle.reporting.lettering import LABEL_HEIGHT, LABEL_SIZE, LINE_HEIGHT, TEXT_SIZE, font, wrapped
from storydalle.reporting.strips import EDGE, FAINT, GAP, INK, MARGIN, PAPER, Panel, cards_image, framed
from storydalle.stories.story_set import StoryRecord, StorySet, fixed_choice
from storydalle.stories.toon import ToonSV
from storydalle.stories.toonsv import ToonSV2

SIDE = 256  # pixels: the width of a picture, and the height that it has at most
HEADING_SIZE, HEADING_HEIGHT = 24, 30


class FrameCell(NamedTuple):
    """A picture with its caption in dark, and notes in grey below that."""

    picture: Image.Image
    caption: str
    remarks: str = ""


class StoryRow(NamedTuple):
    """A story; its first cell is the source."""

    id: str
    cells: Sequence[FrameCell]
    group: str = ""  # where the id does not tell it
    credit: str = ""


def draw_sheet(rows: Iterable[StoryRow], heading: str = "") -> Image.Image:
    """Rows from top to bottom, each as high as its longest text needs."""
    stories = [_draw_row(row) for row in rows]
    width = max(story.width for story in stories)
    lines = wrapped(heading, width, None, HEADING_SIZE)
    return framed(_below_each_other([_draw_lines(lines, HEADING_HEIGHT, HEADING_SIZE, INK, width), *stories], MARGIN))


def story_rows(
    story_set: StorySet,
    records: Iterable[StoryRecord],
    shown: Callable[[Image.Image], Image.Image] = lambda picture: picture,
) -> Iterator[StoryRow]:
    """Rows of a sheet for stories: the evaluation's frame of each clip, changed by ``shown``."""
    for record in records:
        group = "" if record.id.startswith(record.group) else record.group
        pictures = [shown(_evaluated_frame(story_set, clip)) for clip in record.clips]
        cells = zip(pictures, record.captions, _names_of(story_set, record), strict=True)
        yield StoryRow(record.id, [FrameCell(*cell) for cell in cells], group, story_set.credit(record))


def toon_rows(stories: ToonSV | ToonSV2, indices: Iterable[int]) -> Iterator[StoryRow]:
    """Stories of ToonSV with their labels."""
    for i in indices:
        story = stories[i]
        pictures = [Image.fromarray(frame) for frame in (story.source, *story.frames)]
        cells = zip(pictures, ("", *story.captions), stories.label_words(i), strict=True)
        yield StoryRow(story.id, [FrameCell(*cell) for cell in cells])


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The whole picture, as large as it fits in, on a neutral ground."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    scaled = [max(1, round(side * scale)) for side in picture.size]
    # A side that is one pixel too short is stretched to the whole length.
    width, height = (whole if side >= whole - 1 else side for side, whole in zip(scaled, size, strict=True))
    # Lanczos rings around a drawing's outlines when it enlarges.
    filter = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    ground = Image.new("RGB", size, EDGE)
    shown = picture.convert("RGB").resize((width, height), filter)
    ground.paste(shown, ((size[0] - width) // 2, (size[1] - height) // 2))
    return ground


def _evaluated_frame(story_set: StorySet, clip: str) -> Image.Image:
    frames = story_set.pictures(clip)
    return frames[fixed_choice(clip, len(frames))]


def _names_of(story_set: StorySet, record: StoryRecord) -> list[str]:
    """Characters of each clip."""
    if record.characters is None:
        return [""] * len(record.clips)
    names = story_set.characters
    return [", ".join(name for name, shown in zip(names, row, strict=True) if shown) for row in record.characters]


def _draw_row(row: StoryRow) -> Image.Image:
    """Title, cards and credit of a story. All its pictures get the shape of the narrowest one."""
    height = max(round(SIDE * cell.picture.height / cell.picture.width) for cell in row.cells)
    size = (SIDE, max(1, min(SIDE, height)))
    panels = []
    for number, cell in enumerate(row.cells):
        caption, remarks = wrapped(cell.caption, SIDE, None), wrapped(cell.remarks, SIDE, None, LABEL_SIZE)
        panels.append(Panel(fitted(cell.picture, size), str(number) if number else "source", caption, remarks))
    cards = cards_image(panels)
    told = f"{row.id}  in {row.group}" if row.group else row.id
    title = _draw_lines(wrapped(told, cards.width, None), LINE_HEIGHT, TEXT_SIZE, INK, cards.width)
    credit = _draw_lines(
        wrapped(row.credit, cards.width, None, LABEL_SIZE), LABEL_HEIGHT, LABEL_SIZE, FAINT, cards.width
    )
    return _below_each_other([title, cards, credit], GAP // 2)


def _draw_lines(lines: Sequence[str], line_height: int, size: int, color: str, width: int) -> Image.Image:
    drawn = Image.new("RGB", (width, line_height * len(lines)), PAPER)
    for number, line in enumerate(lines):
        ImageDraw.Draw(drawn).text((0, number * line_height), line, color, font(size))
    return drawn


def _below_each_other(blocks: Sequence[Image.Image], gap: int) -> Image.Image:
    blocks = [block for block in blocks if block.height]
    height = sum(block.height for block in blocks) + gap * (len(blocks) - 1)
    canvas = Image.new("RGB", (max(block.width for block in blocks), height), PAPER)
    top = 0
    for block in blocks:
        canvas.paste(block, (0, top))
        top += block.height + gap
    return canvas
