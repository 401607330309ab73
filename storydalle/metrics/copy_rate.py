"""Is it a continuation, or a copy? The share of drawn patches that are also in the source frame.

A system that repeats the source scores well where characters and setting stay the same, and neither FID nor F1 shows
it. No rate is good or bad by itself: compare it with its chance level and with the true frames. Frames are in [-1, 1].
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.declared import COMPARED, DIAGNOSED, Column, Extent
from storydalle.metrics.seen import Neighbour
from storydalle.metrics.story_metric import StoryMetric, check_finite
from storydalle.metrics.topics import CONTINUATION

GRID = 32
"""Side of the pooled picture that patches are cut from; each of its cells is the mean of a square of pixels."""
WINDOW = 8
"""Side of a patch, in cells: a quarter of the picture, so 16 px of 64."""
MAX_CELL = 4
"""Larger pictures are first brought to ``GRID * MAX_CELL`` pixels, as a search over more positions finds no more."""
FLAT = 0.1
"""A patch whose cells are this close to its mean colour (root mean square, of a range of 2) is flat."""
UNEXPLAINED = 0.2
"""A patch is copied where the nearest window misses it by less than this share of its own contrast."""


class CopiedPatches(NamedTuple):
    """Truth values for the patches of frames, in raster order, 7 x 7 a frame."""

    copied: Bool[Tensor, "f p p"]  # and textured
    textured: Bool[Tensor, "f p p"]  # patches that are not flat: flat ones match everywhere and do not count


def comparable(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c s s"]:
    """Pictures whose side is a multiple of ``GRID``, each pixel the mean of those it covers."""
    height, width = pictures.shape[-2:]
    side = GRID * max(1, min(MAX_CELL, height // GRID, width // GRID))
    return pictures if (height, width) == (side, side) else F.interpolate(pictures, (side, side), mode="area")


def patches_of(pictures: Float[Tensor, "n c s s"]) -> Float[Tensor, "p d"]:
    """Patches of ``WINDOW`` x ``WINDOW`` pooled cells, which overlap by half."""
    pooled = F.avg_pool2d(pictures, pictures.shape[-1] // GRID)
    return rearrange(F.unfold(pooled, WINDOW, stride=WINDOW // 2), "n d p -> (n p) d")


def distances(patches: Float[Tensor, "p d"], picture: Float[Tensor, "1 c s s"]) -> Float[Tensor, " p"]:
    """The squared distance of each patch to the window of the picture that is most like it.

    A window may begin at any pixel. With |p - s|^2 = |p|^2 - 2 p s + |s|^2 the products are one convolution.
    """
    if not len(patches):  # of no frames
        return patches.new_zeros(0)
    cell = picture.shape[-1] // GRID
    pooled = F.avg_pool2d(picture, cell, stride=1)
    kernels = rearrange(patches, "p (c y x) -> p c y x", y=WINDOW, x=WINDOW)
    products = F.conv2d(pooled, kernels, dilation=cell)  # 1 p y x
    lengths = F.conv2d(pooled.square().sum(1, keepdim=True), patches.new_ones(1, 1, WINDOW, WINDOW), dilation=cell)
    return (lengths - 2 * products).amin((0, 2, 3)) + patches.square().sum(1)


def copied_patches(frames: Float[Tensor, "f c h w"], source: Float[Tensor, "c h w"]) -> CopiedPatches:
    """Find the patches of drawn frames that occur anywhere in the source (to the pixel, at sides of up to 128).

    A patch p is copied if min_s |p - s|^2 < UNEXPLAINED * |p - mean colour of p|^2, over all windows s of the source;
    both are grids of pooled cells. Patches overlap by half. The threshold is relative to the contrast of the patch, so
    it is the same for weak and strong texture; pooling ignores details that a tokenizer loses; and a patch in another
    colour is not a copy.
    """
    patches = patches_of(comparable(frames))
    colors = rearrange(patches, "p (c k) -> p c k", c=frames.shape[1])
    contrast = reduce((colors - colors.mean(-1, keepdim=True)).square(), "p c k -> p", "sum")
    textured = contrast > FLAT**2 * patches.shape[1]
    # Flat ones are looked for, too: a convolution of another number of patches would be compiled anew.
    copied = textured & (distances(patches, comparable(source[None])) < UNEXPLAINED * contrast)
    side = 2 * GRID // WINDOW - 1
    by_frame = [rearrange(part, "(f y x) -> f y x", y=side, x=side) for part in (copied, textured)]
    return CopiedPatches(*by_frame)


class CopyRate(StoryMetric):
    """The share of a system's textured patches that are also in the source: how much it copies.

    ``copy_rate`` is in [0, 1]: 1 for copies of the source, also shifted ones. ``copy_rate_chance`` is the rate for
    another story's source: the level of pictures that ignore the source. Neither high nor low is good: true frames
    share the setting with their source, so compare with their rate. Flat patches do not count; nan if all are flat.
    ViStoryBench's copy-paste rate is similar, for crops of characters; the nearest neighbours are those of PatchMatch
    (Barnes et al. 2009), by exhaustive search. The thresholds are our own; see ``copied_patches``.
    """

    names = ("copy_rate", "copy_rate_chance")
    asked_as = "copy_rate"
    rank = 9
    meets_another = True
    columns = (
        Column("copy_rate", "copy rate", CONTINUATION),
        Column("copy_rate_chance", "chance", CONTINUATION),
        Column("copy_rate", "copy rate", COMPARED, 2),
        Column("copy_rate", "copy rate", DIAGNOSED, 2),
    )
    legend: ClassVar = {CONTINUATION: "*Copy rate*: share of textured patches found in the source"}
    families: ClassVar = {CONTINUATION: "copy_rate"}
    explanations: ClassVar = {
        "copy_rate": "The share of textured patches that can be found, to the pixel, somewhere in the source frame. "
        "Copying the source gives 1, while the true frames' own rate shows how much a story really repeats.",
        "copy_rate_chance": "The same share when patches are looked for in the source of another story. "
        "It is what pictures of this kind have in common without any copying.",
    }

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """True if there is another episode or book, for the chance level."""
        return len(set(extent.cluster_of_frame)) > 1

    def judge_beside(self, name: str, frames: Float[Tensor, "f c h w"], own: Neighbour, other: Neighbour) -> None:
        exists = torch.ones(1, len(frames), dtype=torch.bool)
        self.update(frames[None], own.source[None], other.source[None], exists, [name])

    def update(
        self,
        frames: Float[Tensor, "b f c h w"],
        source: Float[Tensor, "b c h w"],
        other_source: Float[Tensor, "b c h w"],
        mask: Bool[Tensor, "b f"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories, pictures in [-1, 1]; ``other_source`` is that of another story for each."""
        exists = torch.ones_like(mask[:, :1])
        for values, at, what in (
            (frames, mask, "frames"),
            (source[:, None], exists, "the source"),
            (other_source[:, None], exists, "the other story's source"),
        ):
            check_finite(values, at, ids, what)
        rows = []
        for i in range(len(frames)):
            # What is compared has one size, whatever batch the story came in: so has its rounding.
            drawn = frames[i][mask[i]]
            found = [copied_patches(drawn, given[i]) for given in (source, other_source)]
            rows.append(torch.stack([torch.stack([part.copied.sum(), part.textured.sum()]) for part in found]))
        self.add_stories(torch.stack(rows), ids)
