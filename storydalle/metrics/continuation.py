"""Is it a continuation? What a system makes of its source, its captions, its own frames, and chance.

A system that repeats the source scores well wherever characters and setting stay, one that ignores it wherever
captions say everything; neither shows in FID or F1. Of these scores none is good or bad alone: read each beside its
chance level, and beside the same score of the true frames. ``EXPLANATIONS`` says in two sentences what each tells.

Frames are floats in [-1, 1]; features are a network's, a vector a frame, of any length.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.story_metric import StoryMetric

Kind = Literal["pixels", "features"]

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


def check_finite(
    values: Float[Tensor, "b f *k"], mask: Bool[Tensor, "b f"], ids: Sequence[str] | None, what: str
) -> None:
    """Refuse a value that is no number at a frame that exists, naming the first such story and frame."""
    broken = mask & ~values[..., None].isfinite().flatten(2).all(-1)
    if broken.any():
        story, frame = broken.nonzero()[0].tolist()
        name = f"number {story + 1} of the batch" if ids is None else repr(ids[story])
        raise ValueError(
            f"{what} of story {name}, frame {frame + 1}, hold nan or infinity: mend what made them, or leave the frame "
            "out of the mask"
        )


# ------------------------------------------------------------------------------------------------- copies


class CopiedPatches(NamedTuple):
    """What of frames is copied, patch by patch in raster order, 7 x 7 a frame."""

    copied: Bool[Tensor, "f p p"]  # and textured
    textured: Bool[Tensor, "f p p"]  # patches that are not flat: flat ones match everywhere and do not count


def comparable(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c s s"]:
    """Pictures whose side is a multiple of ``GRID``, each pixel the mean of those it covers."""
    height, width = pictures.shape[-2:]
    side = GRID * max(1, min(MAX_CELL, height // GRID, width // GRID))
    return pictures if (height, width) == (side, side) else F.interpolate(pictures, (side, side), mode="area")


def windows(pictures: Float[Tensor, "n c s s"], stride: int) -> Float[Tensor, "n d p"]:
    """Windows of ``WINDOW`` x ``WINDOW`` pooled cells, at every ``stride``-th pixel."""
    cell = pictures.shape[-1] // GRID
    return F.unfold(F.avg_pool2d(pictures, cell, stride=1), WINDOW, dilation=cell, stride=stride)


def copied_patches(frames: Float[Tensor, "f c h w"], source: Float[Tensor, "c h w"]) -> CopiedPatches:
    """Which patches of drawn frames lie somewhere in the source, at any position (of up to 128, to the pixel).

    Patches overlap by half. Of each patch the nearest window of the source is found, in mean squared difference of
    pooled cells, and the patch is copied where that misses it by less than ``UNEXPLAINED`` of the patch's own variance
    about its mean colour (which a window of that plain colour would miss all of). So the threshold asks the same of
    faint and of strong texture, pooling forgives what a tokenizer loses, and a change of colour is no copy.
    """
    pictures, searched = comparable(frames), comparable(source[None])
    cell = pictures.shape[-1] // GRID
    patches = rearrange(windows(pictures, stride=cell * WINDOW // 2), "f d p -> (f p) d")
    candidates = windows(searched, stride=1)[0]
    lengths = candidates.square().sum(0)
    nearest = torch.addmm(lengths, patches, candidates, alpha=-2).amin(1) + patches.square().sum(1)
    colors = rearrange(patches, "p (c k) -> p c k", c=frames.shape[1])
    contrast = reduce((colors - colors.mean(-1, keepdim=True)).square(), "p c k -> p", "sum")
    textured = contrast > FLAT**2 * patches.shape[1]
    copied = textured & (nearest < UNEXPLAINED * contrast)
    side = 2 * GRID // WINDOW - 1
    by_frame = [rearrange(part, "(f y x) -> f y x", y=side, x=side) for part in (copied, textured)]
    return CopiedPatches(*by_frame)


class CopyRate(StoryMetric):
    """The share of a system's textured patches that lie in the source: how much it copies instead of drawing.

    ``copy_rate`` is in [0, 1]: 1 for copies, shifted ones too, of all that the source shows; ``copy_rate_chance`` is
    the same against another story's source, which is where pictures that know nothing of the source end. Neither high
    nor low is good: true frames share the setting with their source, so their own rate is the mark. Flat patches do
    not count; nan where all are flat. ViStoryBench's copy-paste rate asks the same of character crops; the nearest
    neighbours are those of PatchMatch (Barnes et al. 2009), searched exhaustively. The thresholds are our own, and
    ``copied_patches`` states them.
    """

    names = ("copy_rate", "copy_rate_chance")

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


# ------------------------------------------------------------------------------------------------- consistency


def mean_cosine(
    first: Float[Tensor, "b f d"], second: Float[Tensor, "b g d"], pairs: Bool[Tensor, "b f g"]
) -> Float[Tensor, "b 2"]:
    """Of each story the mean cosine over its pairs, and 1; two zeros for a story without a pair."""
    sides = (F.normalize(side.double(), dim=-1) for side in (first, second))
    cosines = torch.einsum("bfd,bgd->bfg", *sides)
    totals = reduce(torch.where(pairs, cosines, 0.0), "b f g -> b", "sum")
    number = reduce(pairs.long(), "b f g -> b", "sum")
    return torch.stack([totals / number.clamp(min=1), (number > 0).double()], dim=-1)


class Consistency(StoryMetric):
    """Do the frames of a story look alike, and like their source? Mean cosines of features, in [-1, 1].

    ``consistency_self`` is over all pairs of a story's drawn frames, ``consistency_source`` over its drawn frames and
    its source; each story counts once. The two ``..._chance`` are the same against another story's drawn frames and
    source: the cosine of any two pictures of this kind, without which a cosine can't be read. Higher is more alike,
    and not always better: a copied source has both at 1. The two are the *self* and *cross* similarity of
    ViStoryBench's CIDS, of whole frames in place of detected characters.
    """

    names = ("consistency_self", "consistency_self_chance", "consistency_source", "consistency_source_chance")

    def update(
        self,
        features: Float[Tensor, "b f d"],
        source: Float[Tensor, "b d"],
        other_features: Float[Tensor, "b g d"],
        other_source: Float[Tensor, "b d"],
        mask: Bool[Tensor, "b f"],
        other_mask: Bool[Tensor, "b g"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories: features of drawn frames and sources, and those of another story for each."""
        exists = torch.ones_like(mask[:, :1])
        for values, at, what in (
            (features, mask, "features"),
            (other_features, other_mask, "the other story's features"),
            (source[:, None], exists, "features of the source"),
            (other_source[:, None], exists, "features of the other story's source"),
        ):
            check_finite(values, at, ids, what)
        both = mask[:, :, None] & mask[:, None]
        rows = [
            mean_cosine(features, features, both.triu(1)),
            mean_cosine(features, other_features, mask[:, :, None] & other_mask[:, None]),
            mean_cosine(features, source[:, None], mask[:, :, None]),
            mean_cosine(features, other_source[:, None], mask[:, :, None]),
        ]
        self.add_stories(torch.stack(rows, dim=1), ids)


# ------------------------------------------------------------------------------------------------- drift


class PositionScores(StoryMetric):
    """Any quantity of a frame by its position in the story, for stories of up to ``num_frames`` frames: its drift.

    ``<name>_at_<i>`` is the mean over the stories that have an i-th frame, nan where none has, in the quantity's own
    units. ``<name>_slope`` is the change from one frame to the next: the least-squares slope within stories, so that
    long stories that are harder (or easier) from their first frame on are no drift.
    """

    def __init__(self, name: str, num_frames: int = 50) -> None:
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames}: give the number of frames of the longest story")
        self.num_frames = num_frames
        self.names = (*(f"{name}_at_{i}" for i in range(1, num_frames + 1)), f"{name}_slope")

    def update(self, values: Float[Tensor, "b f"], mask: Bool[Tensor, "b f"], ids: Sequence[str] | None = None) -> None:
        """Add stories, a value a frame; ``mask`` is true at frames that exist and have one.

        Raises ``ValueError`` for more frames than ``num_frames``, and for values under the mask that are not finite.
        """
        num_frames = values.shape[1]
        if num_frames > self.num_frames:
            raise ValueError(f"a story of {num_frames} frames with num_frames={self.num_frames}: raise num_frames")
        check_finite(values, mask, ids, "values")
        values = torch.where(mask, values, 0.0).double()
        positions = torch.arange(num_frames, device=values.device).double()
        middles = (positions * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        offsets = (positions - middles) * mask
        slope = torch.stack([(offsets * values).sum(1), offsets.square().sum(1)], dim=-1)
        by_position = F.pad(torch.stack([values, mask.double()], dim=-1), (0, 0, 0, self.num_frames - num_frames))
        self.add_stories(torch.cat([by_position, slope[:, None]], dim=1), ids)

    def counts(self) -> dict[str, int]:
        """How many stories were scored, and how many frames each position's mean is of."""
        return {name: int(number) for name, number in super().counts().items() if name != self.names[-1]}


# ---------------------------------------------------------------------------------------------- what drawing depends on


def distances(first: Float[Tensor, "b f *k"], second: Float[Tensor, "b f *k"], of: Kind) -> Float[Tensor, "b f"]:
    """Of frames ``(b f c h w)`` half the mean absolute difference, in [0, 1]; of features ``(b f d)``, 1 - cosine.

    Both are exactly 0 for equal inputs. Raises ``ValueError`` for features given as pixels, and the other way round.
    """
    if first.ndim != (5 if of == "pixels" else 3):
        wanted = "frames (b f c h w)" if of == "pixels" else "features (b f d)"
        raise ValueError(f"a distance of {of} takes {wanted} and was given {tuple(first.shape)}")
    if of == "pixels":
        return reduce((first - second).abs().double(), "b f c h w -> b f", "mean") / 2
    apart = F.normalize(first.double(), dim=-1) - F.normalize(second.double(), dim=-1)
    return apart.square().sum(-1) / 2


def frame_sums(values: Float[Tensor, "b f"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b 1 2"]:
    """The sum over each story's frames, and their number."""
    kept = torch.where(mask, values, 0.0).sum(1)
    return torch.stack([kept, mask.sum(1).double()], dim=-1)[:, None]


class Diversity(StoryMetric):
    """How different are the frames that several seeds draw for one caption?

    ``diversity_pixels``: mean absolute difference over all pairs of seeds, in [0, 1], 1 between black and white;
    ``diversity_features``: 1 - cosine, in [0, 2]. 0 for a system that always draws the same. Higher is more varied,
    which is good only as far as every variant is right. As the mean pairwise distance of samples of one input in
    BicycleGAN (Zhu et al. 2017), with plain pixels or any features in place of LPIPS.
    """

    def __init__(self, of: Kind) -> None:
        super().__init__()
        self.of: Kind = of
        self.names = (f"diversity_{of}",)

    def update(
        self,
        drawn: Float[Tensor, "s b f c h w"] | Float[Tensor, "s b f d"],
        mask: Bool[Tensor, "b f"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories drawn under at least two seeds: frames in [-1, 1] or their features, by ``of``."""
        if len(drawn) < 2:
            raise ValueError(f"diversity of {len(drawn)} seed: draw each story with at least two")
        for one in drawn:
            check_finite(one, mask, ids, self.of)
        pairs = list(combinations(drawn, 2))
        total = torch.zeros(mask.shape, dtype=torch.double, device=mask.device)
        for first, second in pairs:
            total += distances(first, second, self.of)
        self.add_stories(frame_sums(total / len(pairs), mask), ids)


class InputSensitivity(StoryMetric):
    """How much do frames change when one input is replaced: the source, or the captions?

    ``change_<name>_pixels`` is the mean absolute difference to the frames drawn with the true inputs, in [0, 1];
    ``change_<name>_features`` is 1 - cosine, in [0, 2]. 0 for a system that ignores the input. Draw both with the same
    seeds, and read it beside ``Diversity``: a change that is no larger is that of another draw.
    """

    def __init__(self, name: str, of: Kind) -> None:
        """``name`` says what was replaced, such as ``other_source``, ``blank_source`` or ``shuffled_captions``."""
        super().__init__()
        self.of: Kind = of
        self.names = (f"change_{name}_{of}",)

    def update(
        self,
        true_inputs: Float[Tensor, "b f c h w"] | Float[Tensor, "b f d"],
        other_inputs: Float[Tensor, "b f c h w"] | Float[Tensor, "b f d"],
        mask: Bool[Tensor, "b f"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories: what was drawn with the true inputs and with one replaced, as frames in [-1, 1] or features."""
        for values in (true_inputs, other_inputs):
            check_finite(values, mask, ids, self.of)
        self.add_stories(frame_sums(distances(true_inputs, other_inputs, self.of), mask), ids)


EXPLANATIONS: dict[str, str] = {
    "copy_rate": "The share of textured patches that can be found, to the pixel, somewhere in the source frame. "
    "Copying the source gives 1, while the true frames' own rate shows how much a story really repeats.",
    "copy_rate_chance": "The same share when patches are looked for in the source of another story. "
    "It is what pictures of this kind have in common without any copying.",
    "consistency_self": "How alike the frames drawn for one story are, as the mean cosine of their features. "
    "It is 1 where all frames are the same, so the true frames' own value is the mark, not the highest.",
    "consistency_self_chance": "How alike drawn frames are to those drawn for another story. "
    "A story's own frames belong together as far as they exceed this level.",
    "consistency_source": "How alike the drawn frames are to the source frame, as the mean cosine of their features. "
    "A copied source gives 1, and a system that does not look at it stays at chance.",
    "consistency_source_chance": "How alike drawn frames are to the source of another story. "
    "What is drawn from the source lies above this level.",
    "<score>_at_<i>": "The mean of a score over the i-th frames of all stories. "
    "A curve that falls (or rises, where lower is better) says that later frames are worse: drift.",
    "<score>_slope": "How much a score changes from one frame of a story to the next. "
    "It is 0 without drift, and its sign says whether later frames score higher or lower.",
    "diversity_pixels": "How much the pictures differ, per pixel, that several seeds draw for the same input. "
    "It is 0 for a system that always draws the same picture, and 1 between black and white.",
    "diversity_features": "How much a network sees the pictures differ that several seeds draw for the same input. "
    "It is 0 for a system that always draws the same picture.",
    "change_other_source_pixels": "How much the pictures change, per pixel, when the source is that of another story. "
    "A system that ignores its source stays at 0, and less than the diversity across seeds is no reaction.",
    "change_other_source_features": "How much a network sees the pictures change when the source is another story's. "
    "A system that ignores its source stays at 0.",
    "change_blank_source_pixels": "How much the pictures change, per pixel, when the source is blank. "
    "It says how much is drawn from the source at all, be it characters, colours or only the style.",
    "change_blank_source_features": "How much a network sees the pictures change when the source is blank. "
    "It says how much is drawn from the source at all.",
    "change_shuffled_captions_pixels": "How much the pictures change, per pixel, when captions are shuffled. "
    "A system that repeats its source whatever the captions say stays near 0.",
    "change_shuffled_captions_features": "How much a network sees the pictures change when captions are shuffled. "
    "A system that repeats its source whatever the captions say stays near 0.",
}
"""What each score tells, in two sentences; those by position stand for every score's (see ``explanation``)."""


def explanation(name: str) -> str:
    """The two sentences on a score, by its full name; raises ``ValueError`` for a score that is not of this file."""
    head, _, tail = name.rpartition("_")
    if head.endswith("_at") and tail.isdigit():
        name = "<score>_at_<i>"
    elif tail == "slope":
        name = "<score>_slope"
    if name not in EXPLANATIONS:
        raise ValueError(f"no explanation of {name!r}: there are those of {', '.join(EXPLANATIONS)}")
    return EXPLANATIONS[name]
