"""What a user hands in: a caption list and a source picture, checked before anything heavy is loaded."""

import json
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from storydalle.commands.mistakes import UserError

MAX_CAPTIONS = 50
MAX_SEED = 2**63 - 1
MAX_CAPTIONS_BYTES = 1_000_000
MAX_SOURCE_SIDE = 512  # A larger source is reduced to this side: models read less, and story.json keeps the picture.


def read_captions(captions: Any) -> list[str]:
    """1 to 50 captions from a .txt file (one a line), a .json file (a list) or the list itself."""
    if captions is None:
        raise UserError('no captions: give captions=FILE.txt, captions=FILE.json or captions=\'["...", "..."]\'')
    if isinstance(captions, list):
        texts, where = checked_texts(captions, "captions"), "captions"
    else:
        where = f"captions={captions}"
        text = read_text(Path(str(captions)))
        texts = texts_of_json(text, where) if str(captions).lower().endswith(".json") else text.splitlines()
    texts = [" ".join(text.split()).encode("utf-8", "replace").decode() for text in texts if text.strip()]
    if not texts:
        raise UserError(f"{where} holds no caption: write one sentence a line")
    if len(texts) > MAX_CAPTIONS:
        raise UserError(f"{where} holds {len(texts)} captions: a story has 1 to {MAX_CAPTIONS}")
    return texts


def read_text(path: Path) -> str:
    """A small text file in UTF-8, or in UTF-16 where it says so."""
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
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"captions={path} is not text in UTF-8: save it as a plain text file") from error
    if "\0" in text:
        raise UserError(f"captions={path} is not text: it holds zero bytes; save it as a plain text file")
    return text


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
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: entry {number} is {value!r}, not a sentence")
    return values


def open_source(path: Path) -> tuple[Image.Image, list[str]]:
    """A picture as Pillow reads it, upright, in RGB and at most 512 pixels high and wide once cropped; and remarks."""
    if not path.is_file():
        raise UserError(f"no source picture {str(path)!r}: give a picture file, or leave source out")
    notes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if getattr(picture, "n_frames", 1) > 1:
                    notes.append(f"source {path.name} is animated: its first frame is used")
                upright = ImageOps.exif_transpose(eight_bits(picture))
                upright.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UserError(f"source={path} is larger than {limit} million pixels: make it smaller") from error
    except UnidentifiedImageError as error:
        raise UserError(f"source={path} is not a picture that Pillow reads: use PNG or JPEG") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"source={path} is damaged: {error}") from error
    return upright, notes


def eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of 16 bits a pixel scaled to 8, where Pillow's own conversion would clip it to white."""
    if not picture.mode.startswith("I"):
        return picture
    return picture.convert("I").point(lambda value: value / 256).convert("L")


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
