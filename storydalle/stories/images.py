"""Pictures <-> tensors: uint8 and Pillow on one side, floats in [-1, 1] on the other."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Real, UInt8
from PIL import Image
from torch import Tensor

from storydalle.stories.pictures import squared


def to_tensor(pixels: np.ndarray | Real[Tensor, "... h w c"]) -> Float[Tensor, "... c h w"]:
    """Pictures of values in [0, 255], channels last, as floats in [-1, 1]."""
    return rearrange(torch.as_tensor(pixels), "... h w c -> ... c h w").float() / 127.5 - 1


def to_pixels(images: Float[Tensor, "... c h w"]) -> UInt8[Tensor, "... h w c"]:
    """Floats in [-1, 1] as uint8 pictures, channels last; values outside are clamped."""
    return rearrange(((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8), "... c h w -> ... h w c")


def to_images(images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n h w c"]) -> list[Image.Image]:
    """Pillow pictures of floats in [-1, 1], or of what ``to_pixels`` has made of them."""
    pixels = images if images.dtype == torch.uint8 else to_pixels(images)
    return [Image.fromarray(picture) for picture in pixels.cpu().numpy()]


def to_picture(pixels: np.ndarray) -> Image.Image:
    """A picture of values in [0, 255], channels last; floats are rounded to 8 bits."""
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def from_images(images: Sequence[Image.Image], resolution: int) -> Float[Tensor, "n c h w"]:
    """Square Pillow pictures at ``resolution``; others are cropped to their centre first."""
    return to_tensor(np.stack([np.asarray(squared(image, resolution)) for image in images]))
