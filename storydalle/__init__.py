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

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storydalle.story_dalle import StoryDALLE

__version__ = "0.1.0"
__all__ = ["StoryDALLE", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the model on first use: ``import storydalle`` alone stays free of torch."""
    if name == "StoryDALLE":
        from storydalle.story_dalle import StoryDALLE

        return StoryDALLE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
