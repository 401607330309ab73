"""Captions, a picture and numbers that a user gives to draw a story: read, or refused by name.

Models and commands call the same functions. Nothing here needs torch.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from storydalle.files.paths import user_path
from storydalle.files.text import clean
from storydalle.mistakes import check_number, check_seed
from storydalle.stories.pictures import ClipError, Decoded, decode_array, decode_picture, decoded_image

DAMAGED = ("truncated", "corrupt")

if TYPE_CHECKING:
    Captions = str | Iterable[str]  # one caption, or one a frame
    ManyCaptions = Iterable[Iterable[str]]  # those of several stories
    Source = Image.Image | np.ndarray | str | Path | None
else:  # whatever is given is looked at here, and refused in words
    Captions = ManyCaptions = Source = object


class HandedIn(NamedTuple):
    """A story to be drawn, and notes about changes to its captions and source."""

    captions: list[str]
    source: Image.Image | None
    notes: list[str]


def handed_in(captions: Captions, source: Source, num_candidates: int, seed: int) -> HandedIn:
    """Captions and source of a story, as ``captions_of`` and ``source_of`` read them; the numbers are checked."""
    check_draws(num_candidates, seed)
    return HandedIn(captions_of(captions), *source_of(source))


def captions_of(captions: object, where: str = "captions") -> list[str]:
    """Cleaned captions; a single text is one caption. ValueError for none, an empty one, or one that is not a text."""
    if isinstance(captions, str):
        captions = [captions]
    if not isinstance(captions, Iterable) or isinstance(captions, bytes | dict):
        raise ValueError(f"{where}={captions!r}: give a sentence, or a list of sentences, one a frame")
    texts = []
    for number, caption in enumerate(captions, start=1):
        if not isinstance(caption, str) or not clean(caption):
            raise ValueError(f"{where}: entry {number} is {caption!r}, not a sentence")
        texts.append(clean(caption))
    if not texts:
        raise ValueError(f"{where} holds no caption: a story needs at least one caption")
    return texts


def stories_of(captions: ManyCaptions, num_candidates: int, seed: int) -> list[list[str]]:
    """Cleaned captions of several stories, which may be empty; ValueError for the captions of one story alone."""
    check_draws(num_candidates, seed)
    if isinstance(captions, str) or not isinstance(captions, Iterable):
        raise ValueError(f"captions={captions!r}: give a list of stories, each a list of captions")
    stories = []
    for story in captions:
        if isinstance(story, str) or not isinstance(story, Iterable):
            raise ValueError(f"captions: {story!r} is no story: give a list of lists of captions")
        texts = list(story)
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"captions: {wrong[0]!r} is not a sentence")
        stories.append([clean(text) for text in texts])
    return stories


def check_draws(num_candidates: object, seed: object) -> None:
    check_number("num_candidates", num_candidates, 1, whole=True)
    check_seed(seed)


def source_of(source: Source) -> tuple[Image.Image | None, list[str]]:
    """The picture that a story begins with, upright and in RGB, and notes about it.

    A file's path (``decode_picture`` says what is done to it), a Pillow picture, or an array ``(h, w)``, ``(h, w, 3)``
    or ``(h, w, 4)`` of uint8, uint16, bool or floats in [0, 1]. Raises ValueError, naming the file or the value.
    """
    if source is None:
        return None, []
    name = "source"
    try:
        if isinstance(source, str | os.PathLike):
            path = user_path(source)
            name = f"source={path}"
            if not path.is_file():
                raise ValueError(f"no source picture {str(path)!r}: give a picture file, or leave source out")
            decoded, said = decode_picture(path), f"source {path.name}"
        elif isinstance(source, Image.Image):
            decoded, said = decoded_image(source), "the source"
        elif isinstance(source, np.ndarray):
            decoded, said = decode_array(source), "the source"
        else:
            kind = type(source).__name__
            raise ValueError(f"source is of type {kind}: give a file's path, a Pillow picture or an array (h, w, 3)")
    except ClipError as error:
        kind, _, reason = str(error).partition(": ")
        raise ValueError(f"{name} is {'damaged' if kind in DAMAGED else kind}: {reason}") from error
    return decoded.picture, remarks(decoded, said)


def remarks(decoded: Decoded, said: str) -> list[str]:
    notes = []
    if decoded.is_animated:
        notes.append(f"{said} is animated: its first frame is used")
    if decoded.is_stretched:
        notes.append(f"{said} does not say how bright white is: its largest number was taken for white")
    return notes
