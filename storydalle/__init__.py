"""storydalle: story continuation with retrofitted text-to-image transformers (StoryDALL-E, ECCV 2022).

One alphabet of axis names serves jaxtyping annotations and einops patterns throughout the package:

===== ==========================================
b     stories of a batch
f     frames of a story (targets; the source is apart)
t     caption tokens
l     image codes of a frame, in raster order
n     positions of a full sequence
d     width of the model
v     vocabulary
c h w channels, height and width of pictures
===== ==========================================
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storydalle.models.story_dalle.model import StoryDALLE
    from storydalle.models.story_gan.model import StoryGANc

__version__ = "0.1.0"
__all__ = ["StoryDALLE", "StoryGANc", "__version__"]

MODULES = {"StoryDALLE": "storydalle.models.story_dalle.model", "StoryGANc": "storydalle.models.story_gan.model"}


def __getattr__(name: str) -> object:
    """Import a model on first use: ``import storydalle`` alone stays free of torch."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name]), name)
