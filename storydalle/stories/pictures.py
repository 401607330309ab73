"""Pictures as Pillow reads them: opened or refused in words, upright colours, square. Nothing here needs torch."""

from io import BytesIO
from pathlib import Path

from PIL import Image

MIN_SIDE = 8  # pixels of a picture that can show something


class ClipError(ValueError):
    """A clip's pictures cannot be had; the message begins with a few stable words: missing, truncated, corrupt, ..."""


def open_picture(file: Path | BytesIO) -> Image.Image:
    """A picture, decoded, within Pillow's limit of size; raises ClipError."""
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture.copy()
    except FileNotFoundError as error:
        raise ClipError("missing") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ClipError(f"too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        text = " ".join(str(error).replace(repr(str(file)), "it").replace(str(file), "it").split())
        raise ClipError(f"{'truncated' if 'truncated' in text else 'corrupt'}: {text}") from error


def open_photo(file: Path | BytesIO) -> Image.Image:
    """A picture in RGB; raises ClipError for a damaged one, and for one of a few pixels, which shows nothing."""
    picture = open_picture(file)
    if min(picture.size) < MIN_SIDE:
        raise ClipError(f"wrong shape: {picture.width}x{picture.height} pixels")
    return rgb(picture)


def rgb(image: Image.Image) -> Image.Image:
    """A picture in RGB; transparency is laid on white."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def centre_square(image: Image.Image) -> Image.Image:
    """The largest centred square of a picture, in RGB."""
    image = rgb(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def squared(image: Image.Image, resolution: int) -> Image.Image:
    """A picture as a model sees it: its centred square, at ``resolution``."""
    return centre_square(image).resize((resolution, resolution), Image.Resampling.LANCZOS)
