"""HTML pages, each a single file: plain data, rendered by a template of ``templates/``.

Templates escape all text, and invisible characters are left out.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from storydalle.reporting.blocks import blocks_of
from storydalle.reporting.lettering import printable
from storydalle.reporting.strips import Strip

if TYPE_CHECKING:
    from jinja2 import Environment

SEAM = re.compile(r"(?<=[/=])(?=\w)")  # where the name of a file or a setting may be broken into lines


class Plot(NamedTuple):
    """A figure in SVG."""

    svg: str
    look: str = ""  # wide: as wide as the page; narrow: whole on a phone


def page(template: str, title: str, **content: object) -> str:
    """The text of a page."""
    return environment().get_template(template).render(title=title, **content)


def story_page(
    strips: Sequence[Strip],
    title: str,
    notes: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    tables: Sequence[str] = (),
) -> str:
    """A page of stories. ``tables`` are markdown tables; ``facts`` are shown at the bottom."""
    blocks = [block for table in tables for block in blocks_of(table)]
    return page("story.html", title, strips=strips, notes=notes, facts=facts or {}, tables=blocks)


@cache
def environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("storydalle.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"data_uri": data_uri, "pieces": SEAM.split}
    return made


def shown(value: object) -> object:
    """A text without invisible characters; html from a template and numbers stay as they are."""
    return printable(value) if type(value) is str else value


def data_uri(picture: Image.Image) -> str:
    """The picture as a data URI, lossless; WebP needs half to two thirds of the bytes of PNG.

    More effort than this takes two to four times as long, and saves no byte of cartoons and strips.
    """
    from PIL import WebPImagePlugin  # noqa: F401  # else Pillow imports all its thirty formats to find this one

    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", lossless=True, method=3, quality=30)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
