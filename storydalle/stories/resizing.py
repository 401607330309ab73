"""Resize pictures for judging: in one way for all pictures of a protocol, wherever they come from."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from storydalle.stories.pictures import centre_square, squared

LANCZOS, CLEAN = "lanczos", "clean"


def at_size(image: Image.Image, resolution: int, interpolation: str = LANCZOS) -> Shaped[np.ndarray, "h w 3"]:
    """The centred square of a picture at ``resolution``, in [0, 255]; the way is named:

    - "lanczos": as a model sees it, of 8 bits a channel;
    - "clean": as clean-fid (Parmar et al. 2022, section 3): Pillow's bicubic on float channels, clipped, not rounded.
    """
    return INTERPOLATIONS[interpolation](image, resolution)


def by_lanczos(image: Image.Image, resolution: int) -> Shaped[np.ndarray, "h w 3"]:
    return np.asarray(squared(image, resolution))


def by_clean_bicubic(image: Image.Image, resolution: int) -> Shaped[np.ndarray, "h w 3"]:
    channels = np.asarray(centre_square(image), np.float32).transpose(2, 0, 1)
    size = (resolution, resolution)
    resized = (Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC) for channel in channels)
    return np.stack([np.asarray(channel) for channel in resized], axis=-1).clip(0, 255)


INTERPOLATIONS: dict[str, Callable[[Image.Image, int], np.ndarray]] = {LANCZOS: by_lanczos, CLEAN: by_clean_bicubic}
