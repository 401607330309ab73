"""Captions and frames as something a person looks at: a strip, an animation, a page.

Frames are RGB pictures of one size. Nothing here reads a file or a font from outside the package's dependencies, so
the same story gives the same bytes.
"""

import base64
import html
import io
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

PAPER, CARD, EDGE = "#f6f3ee", "#ffffff", "#e4ded4"
INK, FAINT, ACCENT = "#2f2b36", "#918a9a", "#d9694a"
COLUMNS = 5  # A source and four frames, the usual story, stand in one row.
MARGIN, GAP, PADDING, RADIUS = 28, 18, 12, 12
TEXT_SIZE, LABEL_SIZE, LINE_HEIGHT, LABEL_HEIGHT, MAX_LINES = 17, 13, 22, 18, 14
SHOWN_SIZE = 240  # Frames are enlarged by a whole factor to at least this many pixels.
GIF_COLORS = 128
EMPHASIS = re.compile(r"\*([^*]+)\*")
PLAIN_LETTERS = str.maketrans(
    {"\u2013": "-", "\u2014": "-", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"}
)


class Strip(NamedTuple):
    """A story as it is shown."""

    captions: Sequence[str]
    frames: Sequence[Image.Image]
    source: Image.Image | None = None
    candidates: Sequence[Sequence[Image.Image]] = ()  # those of each frame, the chosen one first
    references: Sequence[Image.Image] = ()  # the true frames, where they are known


class Panel(NamedTuple):
    """One card of a strip: a picture, a small label, the caption in lines, and remarks in small grey ones."""

    picture: Image.Image
    label: str
    lines: Sequence[str]
    remarks: Sequence[str] = ()


def strip_image(strip: Strip) -> Image.Image:
    """The source first, then the frames with their captions beneath, in rows of at most five."""
    return framed(cards_image(panels_of(strip)))


def compared_image(strip: Strip) -> Image.Image:
    """The strip, and beneath it the same cards with the true frames."""
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
    """A picture with a margin of paper."""
    canvas = Image.new("RGB", (picture.width + 2 * MARGIN, picture.height + 2 * MARGIN), PAPER)
    canvas.paste(picture, (MARGIN, MARGIN))
    return canvas


def cards_image(panels: Sequence[Panel]) -> Image.Image:
    """Cards of pictures of one size in balanced rows, each row as high as its longest caption asks for."""
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
    sizes = {frame.size for frame in strip.frames}
    if len(strip.captions) != len(strip.frames) or len(sizes) != 1:
        raise ValueError(
            f"{len(strip.captions)} captions and {len(strip.frames)} frames of sizes {sorted(sizes)}: "
            "a strip needs one frame a caption, all of one size"
        )
    size = shown_size(*sizes.pop())
    panels = [] if strip.source is None else [Panel(enlarged(strip.source, size), "source", [])]
    for number, (caption, frame) in enumerate(zip(strip.captions, strip.frames, strict=True), start=1):
        panels.append(Panel(enlarged(frame, size), str(number), wrapped(caption, size[0])))
    return panels


def shown_size(width: int, height: int) -> tuple[int, int]:
    factor = max(1, math.ceil(SHOWN_SIZE / width))
    return width * factor, height * factor


def enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at the strip's size; bicubic, since Lanczos rings around a drawing's outlines when it enlarges."""
    picture = picture.convert("RGB")
    grows = picture.width < size[0]
    return picture.resize(size, Image.Resampling.BICUBIC if grows else Image.Resampling.LANCZOS)


def card_size(panels: Sequence[Panel]) -> tuple[int, int]:
    """Width and height that hold the largest of the cards."""
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


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with Pillow."""
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def wrapped(text: str, width: int, max_lines: int | None = MAX_LINES, size: int = TEXT_SIZE) -> list[str]:
    """Lines no wider than ``width``; a word that is wider is broken, and what exceeds ``max_lines`` ends in dots."""
    lines: list[str] = []
    for word in drawable(text).split():
        if lines and font(size).getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines.extend(broken(word, width, size))
        if max_lines is not None and len(lines) > max_lines:
            lines = lines[:max_lines]
            while font(size).getlength(lines[-1] + "...") > width:
                lines[-1] = lines[-1][:-1]
            lines[-1] += "..."
            break
    return lines


def broken(word: str, width: int, size: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and font(size).getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def printable(text: str) -> str:
    """Text without control characters and halves of surrogate pairs, which a font cannot draw."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else " " for letter in text)


def drawable(text: str) -> str:
    """Text with the accents and dashes taken off that Pillow's own font lacks; other scripts become empty boxes."""
    letters = unicodedata.normalize("NFKD", printable(text).translate(PLAIN_LETTERS))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def story_page(
    strips: Sequence[Strip],
    title: str,
    notes: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    tables: Sequence[str] = (),
) -> str:
    """A page that needs no other file. ``tables`` are markdown tables; ``facts`` stand at its foot."""
    parts = [f'<p class="note">{escaped(note)}</p>' for note in notes]
    parts += [strip_section(strip) for strip in strips]
    parts += [html_table(table) for table in tables]
    if facts:
        parts.append(facts_list(facts))
    return page_of(title, parts)


def facts_list(facts: Mapping[str, str]) -> str:
    """The foot of a page."""
    entries = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in facts.items())
    return f"<footer><dl>{entries}</dl></footer>"


def page_of(title: str, parts: Sequence[str]) -> str:
    """A page that needs no other file, of parts in html."""
    body = "\n".join([f"<h1>{escaped(title)}</h1>", *parts])
    return PAGE.format(title=escaped(title), style=STYLE, body=body)


def strip_section(strip: Strip) -> str:
    """Cards of one story, with its candidates and true frames where they are given."""
    cards = []
    if strip.source is not None:
        picture = image_tag(strip.source, "source frame")
        cards.append(f"<figure>{picture}<figcaption><b>source</b></figcaption></figure>")
    for i, (caption, frame) in enumerate(zip(strip.captions, strip.frames, strict=True)):
        inner = image_tag(frame, caption) + f"<figcaption><b>{i + 1}</b>{escaped(caption)}</figcaption>"
        if i < len(strip.candidates) and len(strip.candidates[i]) > 1:
            others = "".join(image_tag(picture, "candidate") for picture in strip.candidates[i])
            inner += f'<div class="small">{others}</div>'
        if i < len(strip.references):
            inner += f'<div class="small"><span>true frame</span>{image_tag(strip.references[i], "true frame")}</div>'
        cards.append(f"<figure>{inner}</figure>")
    return f"<section>{''.join(cards)}</section>"


def image_tag(picture: Image.Image, description: str) -> str:
    """The picture inside the page, to the last bit; WebP takes two thirds of what PNG does."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", lossless=True, method=6)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/webp;base64,{data}" alt="{escaped(description)}">'


def escaped(text: str) -> str:
    return html.escape(printable(text))


def html_table(markdown: str) -> str:
    """A markdown table as html; a line that is not part of a table becomes a paragraph."""
    rows: list[str] = []
    paragraphs: list[str] = []
    for line in filter(None, map(str.strip, markdown.splitlines())):
        if not line.startswith("|"):
            text = EMPHASIS.sub(r"<em>\1</em>", escaped(line))
            paragraphs.append(f"<p>{text}</p>")
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if all(set(cell) <= set("-:") for cell in cells):
            continue
        tag = "td" if rows else "th"
        rows.append("<tr>" + "".join(f"<{tag}>{spaced(cell)}</{tag}>" for cell in cells) + "</tr>")
    table = f'<div class="table"><table>{"".join(rows)}</table></div>' if rows else ""
    return table + "".join(paragraphs)


def spaced(cell: str) -> str:
    """A cell of a table; an interval stands small beneath its value."""
    value, bracket, interval = cell.partition(" [")
    return escaped(cell) if not bracket else f"{escaped(value)}<small>[{escaped(interval)}</small>"


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --paper: #f6f3ee; --card: #fff; --edge: #e4ded4; --ink: #2f2b36; --faint: #7d7687;
  --accent: #c9552f; }
@media (prefers-color-scheme: dark) { :root { --paper: #1c1a20; --card: #27242d; --edge: #3a3542; --ink: #ece8f0;
  --faint: #a29aad; --accent: #f0926f; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.45 system-ui, sans-serif; }
main { max-width: 1480px; margin: 0 auto; padding: 2rem 1.5rem 3rem; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 1rem; }
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 1rem; margin: 0 0 2rem; }
figure { margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--edge); border-radius: 12px; }
figure > img { width: 100%; display: block; border-radius: 8px; }
figcaption { margin-top: .6rem; overflow-wrap: anywhere; }
figcaption b { color: var(--accent); font-size: .85rem; margin-right: .5em; }
.small { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; margin-top: .6rem; color: var(--faint);
  font-size: .8rem; }
.small img { width: 30%; min-width: 64px; border-radius: 6px; }
.note { color: var(--faint); margin: .2rem 0; }
.note + section { margin-top: 1rem; }
.table { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; background: var(--card); font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { border: 1px solid var(--edge); padding: .35rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td small { display: block; color: var(--faint); font-size: .75rem; white-space: nowrap; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 1.4rem 0 .3rem; }
h3 + p { margin: 0 0 .6rem; max-width: 75ch; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 1rem; }
.plots > div { background: #fff; min-width: 0; border: 1px solid var(--edge); border-radius: 12px; padding: .5rem;
  overflow-x: auto; }
.plots .wide { grid-column: 1 / -1; }
.plots svg { display: block; width: 100%; height: auto; min-width: 440px; }
.plots .wide svg { min-width: 760px; }
footer { color: var(--faint); font-size: .85rem; margin-top: 1.5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; }
"""
