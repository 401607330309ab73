"""The interface between a caller and a model that draws stories: request, candidates, drawn story."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Real, UInt8
from PIL import Image
from torch import Tensor

from storydalle.stories.images import to_images

Progress = Callable[[int, int], None]  # steps done, steps in all
Reranker = Callable[[list[Image.Image], str], Sequence[float] | Tensor]  # a frame's candidates and its caption


@dataclass(frozen=True)
class Sampling:
    """How a model draws. Each kind of model has a subclass with its settings, which refuses values out of range."""


# The number of a frame and pictures of its candidates, in the model's order and kind, to the one of each story to keep.
Choice = Callable[[int, Float[Tensor, "b k c h w"] | UInt8[Tensor, "b k h w c"]], Int[Tensor, " b"]]


class StoryRequest(NamedTuple):
    """Stories to draw, checked. Story i of the list uses the random numbers of story ``first + i`` under ``seed``."""

    captions: list[list[str]]  # cleaned; stories may differ in length
    source: Float[Tensor, "b c h w"] | None  # in [-1, 1], at the model's resolution and on its device
    sampling: Sampling
    num_candidates: int = 1
    seed: int = 0
    first: int = 0
    progress: Progress | None = None
    sentences: Float[Tensor, "b f e"] | None = None  # a sentence encoder's vectors of the captions
    announce: Callable[[str], None] | None = None  # is told, before anything is drawn, the memory that it needs
    as_pixels: bool = False  # frames are wanted as pictures of 8 bits: a model may keep no more of them
    choose: Choice | None = None  # of a frame's candidates the one that a model with memory draws the next frame from


class Candidates(NamedTuple):
    """The drawn frames of a request; the model decides the order of a frame's candidates.

    Frames beyond the end of a shorter story have no meaning.
    """

    frames: Float[Tensor, "b f k c h w"] | UInt8[Tensor, "b f k h w c"]  # in [-1, 1]; uint8 only if ``as_pixels``
    score: Callable[[], Float[Tensor, "b f k"]]  # the model's own opinion, higher is better; computed where it is asked


class Drawn(NamedTuple):
    """A drawn story: the best candidate of every frame, all candidates, their scores, notes for the user."""

    frames: list[Image.Image]
    candidates: list[list[Image.Image]]  # of each frame, the best first
    scores: Real[Tensor, "f k"]  # higher is better: what the model itself says of each candidate, or the reranker
    notes: list[str]


def ranked(images: list[list[Image.Image]], scores: Real[Tensor, "f k"], notes: list[str]) -> Drawn:
    """Put the best candidate of every frame first; candidates with equal scores keep their order."""
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    candidates = [[row[i] for i in ranks] for row, ranks in zip(images, order.tolist(), strict=True)]
    return Drawn([row[0] for row in candidates], candidates, scores, notes)


class Judge:
    """A reranker of one story's candidates, which is asked once a frame: while frames are drawn, or after.

    A model with memory draws the next frame from the candidate that ``choose`` keeps, so it is asked meanwhile.
    """

    def __init__(self, reranker: Reranker, captions: list[str]) -> None:
        self.reranker, self.captions = reranker, captions
        self.scores: dict[int, Real[Tensor, " k"]] = {}  # by frame

    def choose(self, frame: int, candidates: UInt8[Tensor, "1 k h w c"]) -> Int[Tensor, "1"]:
        scores = self.scored(frame, to_images(candidates[0]))
        return scores.sort(descending=True, stable=True).indices[:1]  # as ``ranked`` orders them

    def scores_of(self, images: list[list[Image.Image]]) -> Real[Tensor, "f k"]:
        """Scores of all frames' candidates, in the order in which ``choose`` saw them."""
        return torch.stack([self.scored(frame, row) for frame, row in enumerate(images)])

    def scored(self, frame: int, images: list[Image.Image]) -> Real[Tensor, " k"]:
        if frame not in self.scores:
            self.scores[frame] = torch.as_tensor(self.reranker(images, self.captions[frame])).cpu()
        return self.scores[frame]


def crop_notes(picture: Image.Image | None) -> list[str]:
    """A note if a source is not square: the model sees its centre."""
    if picture is None or picture.width == picture.height:
        return []
    side = min(picture.size)
    return [f"the source was cropped from {picture.width}x{picture.height} to its centre {side}x{side}"]
