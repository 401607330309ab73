"""Pictures from files, converted to one form: RGB of 8 bits a channel, upright. Nothing here needs torch."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MIN_SIDE = 8  # pixels of a picture that can show something
# All that is opened, whatever a file is called: Pillow also knows formats that start other programs, such as EPS.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
RANGE_SLACK = 1e-3  # of shares of white stored in half precision


class ClipError(ValueError):
    """A clip's pictures cannot be read; the message begins with a fixed word: missing, truncated, corrupt, ..."""


class Decoded(NamedTuple):
    """A picture in RGB, and what the file contained."""

    picture: Image.Image
    mode: str  # as Pillow names it: L, RGB, P, I;16, F, ...
    is_transparent: bool
    is_animated: bool  # this is the first of several pictures
    is_stretched: bool  # its numbers do not say how bright white is, so the largest was taken for it


def open_picture(file: Path | BytesIO, on_white: bool = True) -> Image.Image:
    """Open the file and return ``decode_picture`` of it; raises the same errors."""
    return decode_picture(file, on_white).picture


def decode_picture(file: Path | BytesIO, on_white: bool = True) -> Decoded:
    """A file's picture in RGB of 8 bits a channel, upright as its EXIF says; the first one of an animation.

    Transparency is laid on white, or dropped if ``on_white`` is false. Of 16 bits a channel the upper 8 are taken;
    ``eight_bits`` converts floats and 32 bits. Raises ClipError, whose message does not name the file
    and begins with missing, unreadable, too large (more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``), truncated, corrupt
    or unsupported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as opened:
                return decoded_image(opened, on_white)
    except FileNotFoundError as error:
        raise ClipError("missing") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ClipError(f"too large: more than {limit:.3g} million pixels; make it smaller") from error
    except UnidentifiedImageError as error:
        opened_ones = ", ".join(FORMATS)
        message = f"corrupt: cannot identify image file it: not a picture of a format that is opened ({opened_ones})"
        raise ClipError(message) from error
    except (IsADirectoryError, PermissionError) as error:
        raise ClipError(f"unreadable: {error.strerror}") from error
    except ClipError:
        raise
    except Exception as error:  # Pillow raises nothing more precise
        raise damaged(error, str(file)) from error


def decoded_image(image: Image.Image, on_white: bool = True) -> Decoded:
    """A Pillow picture, which may not be loaded yet, as ``decode_picture`` says; raises ClipError."""
    try:
        is_animated = image.format != "MPO" and getattr(image, "is_animated", False)
        image.load()
        upright, mode = ImageOps.exif_transpose(image), image.mode
        if mode == "I" and image.format == "PPM":
            mode = "I;16"  # Pillow brings the numbers to 16 bits
        picture, is_stretched = eight_bits(upright, mode)
        flat = rgb(picture) if on_white else picture.convert("RGB")
        return Decoded(flat, mode, picture.has_transparency_data, is_animated, is_stretched)
    except ClipError:
        raise
    except Exception as error:  # Pillow's decoders raise nothing more precise
        raise damaged(error) from error


def damaged(error: Exception, file: str = "") -> ClipError:
    text = str(error).replace(repr(file), "it").replace(file, "it") if file else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return ClipError(f"{'truncated' if 'truncated' in text else 'corrupt'}: {text}")


def decode_array(values: np.ndarray) -> Decoded:
    """An array ``(h, w)``, ``(h, w, 1)``, ``(h, w, 3)`` or ``(h, w, 4)``, whose last channel is opacity, as a picture.

    uint8, the upper 8 bits of uint16, bool, or floats in [0, 1]; raises ClipError for anything else.
    """
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in values.shape:
        raise ClipError(f"wrong shape: an array of {list(values.shape)}; give (h, w), (h, w, 3) or (h, w, 4)")
    mode = values.dtype.name
    if values.dtype == np.uint16:
        values = values >> 8
    elif values.dtype == bool:
        values = values * 255
    elif values.dtype.kind == "f":
        if not (values.min() >= -RANGE_SLACK and values.max() <= 1 + RANGE_SLACK):  # comparisons with nan are false
            raise ClipError(f"out of range: floats from {values.min():.3g} to {values.max():.3g}; give them in [0, 1]")
        values = values.clip(0, 1) * 255 + 0.5
    elif values.dtype != np.uint8:
        raise ClipError(f"unsupported: numbers of type {mode}; give uint8, or floats in [0, 1]")
    pixels = values.astype(np.uint8)
    picture = Image.fromarray(pixels if channels in (3, 4) else pixels.reshape(values.shape[:2]))
    return Decoded(rgb(picture), mode, picture.has_transparency_data, False, False)


def eight_bits(picture: Image.Image, mode: str) -> tuple[Image.Image, bool]:
    """A picture of more than 8 bits a channel in 8-bit grey (Pillow would clip it to white), and True if it was
    stretched.

    Floats within [0, 1] are shares of white. For other floats and for 32-bit integers white is unknown: zero (or the
    smallest number, if that is below zero) becomes black, and the largest one white. Raises ClipError for numbers that
    are not finite.
    """
    if not mode.startswith(("I", "F")):
        return picture, False
    values = np.asarray(picture).astype(np.float64)
    if mode.startswith("I;16"):
        return Image.fromarray((values // 256).astype(np.uint8)), False
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ClipError(f"unsupported: numbers from {low} to {high}; save it with 8 or 16 bits a channel")
    is_share = mode == "F" and low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK
    if not is_share:
        low = min(low, 0)
        values = (values - low) / max(high - low, 1e-300)
    return Image.fromarray((values.clip(0, 1) * 255 + 0.5).astype(np.uint8)), not is_share


def open_photo(file: Path | BytesIO) -> Image.Image:
    """A picture in RGB; raises ClipError if it is damaged or has only a few pixels."""
    picture = open_picture(file)
    if min(picture.size) < MIN_SIDE:
        raise ClipError(f"wrong shape: {picture.width}x{picture.height} pixels")
    return picture


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
    """The input of a model: the centred square of a picture, at ``resolution``."""
    return centre_square(image).resize((resolution, resolution), Image.Resampling.LANCZOS)
