"""Text on pictures: a font, lines that fit a width, and letters that can be drawn."""

import unicodedata
from functools import cache

from PIL import ImageFont

TEXT_SIZE, LABEL_SIZE, LINE_HEIGHT, LABEL_HEIGHT, MAX_LINES = 17, 13, 22, 18, 14
PLAIN_LETTERS = str.maketrans(
    {"\u2013": "-", "\u2014": "-", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"}
)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with Pillow."""
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def wrapped(text: str, width: int, max_lines: int | None = MAX_LINES, size: int = TEXT_SIZE) -> list[str]:
    """Lines no wider than ``width``; wider words are broken, and text beyond ``max_lines`` is replaced by dots."""
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
    """Text without the accents and dashes that Pillow's own font lacks; other scripts become empty boxes."""
    letters = unicodedata.normalize("NFKD", printable(text).translate(PLAIN_LETTERS))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
