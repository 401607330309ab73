"""Open a drawn picture, convert it to RGB with 8 bits a channel by fixed rules, and note facts about it."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from storydalle.evaluation.drawn_layouts import Place, open_tensor
from storydalle.stories.pictures import MIN_SIDE, RANGE_SLACK, ClipError, decode_picture, squared

RULES = {
    "grey": "grey: the one channel stands for all three",
    "palette": "with a palette: colours looked up",
    "transparent": "with transparency: laid on white",
    "16-bit": "of 16 bits a channel: the upper 8 taken",
    "not square": "not square: the centred square taken",
    "smaller": "smaller than the resolution: enlarged",
}
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # where a PNG says its bits a channel


class Opened(NamedTuple):
    """A picture, the bytes for its hash, and the ``RULES`` by which it was converted."""

    content: bytes
    picture: Image.Image  # RGB
    forms: tuple[str, ...]


class Look(NamedTuple):
    """The facts that a survey keeps of a picture: no pixels."""

    sha256: str  # of the file, or of the tensor's frame
    pixels_sha256: str  # in RGB, at its own size
    scored_sha256: str  # square, at the resolution
    size: str
    forms: tuple[str, ...]


class Places:
    """Opens pictures; the last tensor file stays open, memory-mapped."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tensor: tuple[str, Tensor] | None = None

    def open(self, place: Place) -> Opened:
        """Open a picture; raises ClipError if it cannot be read."""
        if place.row is None:
            return open_drawn(self.root / place.file)
        if self._tensor is None or self._tensor[0] != place.file:
            self._tensor = place.file, open_tensor(self.root / place.file)
        return opened_frame(self._tensor[1][place.row])


def open_drawn(path: Path) -> Opened:
    """The picture of a file; raises ClipError if it cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ClipError("missing") from error
    except OSError as error:
        raise ClipError(f"unreadable: {error.strerror}") from error
    if not content:
        raise ClipError("truncated: it is empty")
    picture, mode, is_transparent, *_ = decode_picture(BytesIO(content))
    check_side(picture.width, picture.height)
    if mode in ("I", "F"):  # a score must not hang on how a picture's numbers are stretched
        raise ClipError(f"unsupported: mode {mode}; save it with 8 or 16 bits a channel")
    is_deep_grey = mode.startswith("I;16")
    forms = {
        "grey": mode in ("1", "L", "LA") or is_deep_grey,
        "palette": mode in ("P", "PA"),
        "transparent": is_transparent,
        "16-bit": is_deep_grey or (content.startswith(PNG) and content[PNG_DEPTH] == 16),
    }
    return Opened(content, picture, tuple(form for form, holds in forms.items() if holds))


def opened_frame(frame: Float[Tensor, "3 h w"]) -> Opened:
    """A frame in [0, 1] as the released StoryDALL-E writes it to a PNG: times 255, rounded.

    Raises ClipError for values outside, or that are no numbers.
    """
    check_side(frame.shape[2], frame.shape[1])
    low, high = (value.item() for value in frame.aminmax())
    if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):  # comparisons with nan are false
        raise ClipError(f"out of range: values from {low:.3g} to {high:.3g}; the released code writes 0 to 1")
    pixels = (frame.float() * 255 + 0.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    content = frame.contiguous().view(torch.uint8).numpy().tobytes()
    return Opened(content, Image.fromarray(pixels.contiguous().numpy()), ())


def check_side(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise ClipError(f"wrong shape: {width}x{height} pixels")


def look_at(opened: Opened, resolution: int) -> Look:
    picture = opened.picture
    scored = squared(picture, resolution)
    forms = {"not square": picture.width != picture.height, "smaller": min(picture.size) < resolution}
    return Look(
        sha256=hashlib.sha256(opened.content).hexdigest(),
        pixels_sha256=hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest(),
        scored_sha256=hashlib.sha256(scored.tobytes()).hexdigest(),
        size=f"{picture.width}x{picture.height}",
        forms=(*opened.forms, *(form for form, holds in forms.items() if holds)),
    )
