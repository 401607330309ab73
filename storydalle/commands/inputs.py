"""What a user hands in: a caption list and a source picture, checked before anything heavy is loaded."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from storydalle.commands.mistakes import UserError
from storydalle.paths import user_path
from storydalle.stories.pictures import ClipError, decode_picture
from storydalle.stories.text import clean, decoded, split_lines

MAX_CAPTIONS = 50
MAX_SEED = 2**63 - 1
MAX_CAPTIONS_BYTES = 1_000_000
DAMAGED = ("truncated", "corrupt")
MAX_SOURCE_SIDE = 512  # A larger source is reduced to this side: models read less, and story.json keeps the picture.


def read_captions(captions: Any) -> list[str]:
    """1 to 50 captions from a .txt file (one a line), a .json file (a list) or the list itself."""
    if captions is None:
        raise UserError('no captions: give captions=FILE.txt, captions=FILE.json or captions=\'["...", "..."]\'')
    if isinstance(captions, list):
        texts, where = checked_texts(captions, "captions"), "captions"
    else:
        where = f"captions={captions}"
        text = read_text(user_path(captions))
        texts = texts_of_json(text, where) if str(captions).lower().endswith(".json") else split_lines(text)
    texts = [text for text in map(clean, texts) if text]
    if not texts:
        raise UserError(f"{where} holds no caption: write one sentence a line")
    if len(texts) > MAX_CAPTIONS:
        raise UserError(f"{where} holds {len(texts)} captions: a story has 1 to {MAX_CAPTIONS}")
    return texts


def read_text(path: Path) -> str:
    """A small text file."""
    if not path.exists():
        raise UserError(f'no captions file {str(path)!r}: give a .txt or .json file, or a list \'["...", "..."]\'')
    if not path.is_file():
        raise UserError(f"captions={path} is not a file: give a .txt or .json file")
    if path.stat().st_size > MAX_CAPTIONS_BYTES:
        raise UserError(f"captions={path} has {path.stat().st_size} bytes, too many for 1 to {MAX_CAPTIONS} captions")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"captions={path} cannot be read: {error.strerror}") from error
    try:
        return decoded(data)
    except ValueError as error:
        raise UserError(f"captions={path} is {error}") from error


def texts_of_json(text: str, where: str) -> list[str]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {str(error).partition(':')[0].lower()}") from error
    if not isinstance(value, list):
        raise UserError(f"{where} is not a JSON list of captions; to draw a story again use story=FILE.json")
    return checked_texts(value, where)


def checked_texts(values: list[Any], where: str) -> list[str]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str) or not clean(value):
            raise UserError(f"{where}: entry {number} is {value!r}, not a sentence")
    return values


def open_source(path: Path) -> tuple[Image.Image, list[str]]:
    """A picture as ``decode_picture`` gives it, and remarks on it."""
    if not path.is_file():
        raise UserError(f"no source picture {str(path)!r}: give a picture file, or leave source out")
    try:
        picture = decode_picture(path)
    except ClipError as error:
        kind, _, reason = str(error).partition(": ")
        raise UserError(f"source={path} is {'damaged' if kind in DAMAGED else kind}: {reason}") from error
    notes = []
    if picture.is_animated:
        notes.append(f"source {path.name} is animated: its first frame is used")
    if picture.is_stretched:
        notes.append(f"source {path.name} does not say how bright white is: its largest number was taken for white")
    return picture.picture, notes


def check_number(name: str, value: Any, low: int | float, high: int | float | None = None, whole: bool = False) -> None:
    """Refuse a setting that is no number between ``low`` and ``high``; None stands for a default."""
    kind = (int,) if whole else (int, float)
    bound = f"{low} or more" if high is None else f"between {low} and {high}"
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not low <= value or (high is not None and value > high):
        raise UserError(f"{name}={value}: use {'a whole number' if whole else 'a number'}, {bound}")


def check_seed(seed: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed={seed} is out of range: use a whole number between 0 and 2**63 - 1")
