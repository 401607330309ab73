"""Captions and a source picture from the user, with errors of one line."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from PIL import Image

from storydalle.files.paths import user_path
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.stories import handed_in
from storydalle.stories.caption_files import read_caption_file

if TYPE_CHECKING:
    from storydalle.stories.toon.asserted import Assertions
else:  # captions are read before torch is imported
    Assertions = object

MAX_CAPTIONS = 50
MAX_SOURCE_SIDE = 512  # A larger source is reduced to this side: models read less, and story.json keeps the picture.


def read_captions(captions: list[object] | str | Path | None) -> list[str]:
    """1 to 50 captions, from a file or given as a list."""
    if captions is None:
        raise UserError('no captions: give captions=FILE.txt, captions=FILE.json or captions=\'["...", "..."]\'')
    with told_in_one_line(""):
        if isinstance(captions, list):
            texts = handed_in.captions_of(cast(list[str], captions))  # which refuses an entry of another kind
        else:
            texts = read_caption_file(user_path(captions))
    if len(texts) > MAX_CAPTIONS:
        where = "captions" if isinstance(captions, list) else f"captions={captions}"
        raise UserError(f"{where} holds {len(texts)} captions: a story has 1 to {MAX_CAPTIONS}")
    return texts


def read_assertions(given: list[object] | str | None, num_captions: int) -> Assertions | None:
    """What the frames of a story have to show, from a file or given as a list of its lines."""
    if given is None:
        return None
    from storydalle.stories.toon import asserted

    with told_in_one_line(""):
        if isinstance(given, list):
            assertions = asserted.read_assertions(map(str, given), "assertions")
        else:
            assertions = asserted.read_assertion_file(user_path(given))
    last = max(assertions.frames)
    if last > num_captions:
        raise UserError(
            f"assertions tell of frames[{last}], but there are {num_captions} captions: frames[1] is of the first"
        )
    return assertions


def open_source(path: Path) -> tuple[Image.Image, list[str]]:
    """The picture in a file, and remarks on it."""
    with told_in_one_line(""):
        picture, notes = handed_in.source_of(path)
    assert picture is not None
    return picture, notes
