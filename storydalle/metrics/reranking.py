"""Choose among a frame's candidates."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from storydalle.metrics.held_facts import named_frame, number_held, open_fact_reader, read_labels
from storydalle.metrics.networks.clip import ImageTextNetwork, open_image_text_network
from storydalle.metrics.text_image import rerank
from storydalle.mistakes import told_in_one_line
from storydalle.models.drawing import Drawn, Judge, Reranker
from storydalle.models.kinds import CLIP
from storydalle.models.zoo import zoo_folder
from storydalle.stories.images import from_images, to_images, to_pixels, to_tensor
from storydalle.stories.toon.asserted import Assertions
from storydalle.stories.toon.assertions import Fact


def open_reranker() -> Reranker:
    """A reranker with the shipped image-text network: the frame nearest to its caption comes first."""
    with told_in_one_line("reranker=clip cannot be opened", ValueError, OSError):
        network = open_image_text_network(zoo_folder() / CLIP)
    return lambda images, caption: rerank(network, [caption], from_images(images, images[0].width)[:, None])


class NearestToCaption:
    """Of each frame's candidates the one nearest to its caption, for many stories; a story may end before the others.

    A frame is judged once: by ``choose`` while a model with memory draws, or by ``chosen`` after all are drawn.
    """

    def __init__(self, network: ImageTextNetwork, captions: Sequence[Sequence[str]]) -> None:
        self.network, self.captions = network, captions
        self.kept: dict[int, Int[Tensor, " b"]] = {}  # by frame

    def choose(self, frame: int, candidates: Float[Tensor, "b k c h w"]) -> Int[Tensor, " b"]:
        """The candidate of each story to keep, judged as the pictures of 8 bits that are saved."""
        if frame not in self.kept:
            pictures = to_tensor(to_pixels(candidates.cpu()))
            self.kept[frame] = torch.tensor(
                [self._best(told, frame, row) for told, row in zip(self.captions, pictures, strict=True)]
            )
        return self.kept[frame]

    def chosen(self, drawn: Float[Tensor, "b f k c h w"]) -> Float[Tensor, "b f c h w"]:
        """Of all frames the candidates that ``choose`` keeps."""
        rows = torch.arange(len(drawn))
        return torch.stack([drawn[rows, i, self.choose(i, drawn[:, i])] for i in range(drawn.shape[1])], 1)

    def _best(self, told: Sequence[str], frame: int, candidates: Float[Tensor, "k c h w"]) -> int:
        if frame >= len(told):
            return 0  # after the story's end, where frames have no meaning
        return int(rerank(self.network, [told[frame]], candidates[:, None]).argmax())


class MostAssertions:
    """Of each frame's candidates the one in which most assertions hold; among equals, the one that comes first."""

    def __init__(self, assertions: Assertions, judge: Judge | None = None) -> None:
        self.assertions, self.judge, self.reader = assertions, judge, open_fact_reader()

    def choose(self, frame: int, candidates: UInt8[Tensor, "1 k h w c"]) -> Int[Tensor, "1"]:
        """The candidate to keep; ``frame`` counts from 0. A judge puts equals in order, else they are as shown."""
        images = to_images(candidates[0])
        scores = torch.zeros(len(images)) if self.judge is None else self.judge.scored(frame, images)
        order = scores.sort(descending=True, stable=True).indices.tolist()
        best = self.ordered(frame, [images[k] for k in order]).order[0]
        return torch.tensor([order[best]])

    def ordered(self, frame: int, images: Sequence[Image.Image]) -> "Satisfying":
        """The candidates of a frame by the assertions that hold in them."""
        facts = self.assertions.frames.get(frame + 1, ())
        read = read_labels(self.reader, from_images(images, self.reader.resolution)) if facts else []
        seen = [named_frame(labels, self.assertions, facts) for labels in read]
        order = sorted(range(len(images)), key=lambda k: -number_held(seen[k], facts) if facts else 0)
        missed = {fact: seen[order[0]].instead(fact) for fact in facts if not seen[order[0]].holds(fact)}
        return Satisfying(order, len(facts), missed)

    def first(self, drawn: Drawn) -> Drawn:
        """Put the best of each frame first; notes tell of the assertions that hold in no candidate that comes first."""
        found = [self.ordered(frame, row) for frame, row in enumerate(drawn.candidates)]
        notes = [
            f"frames[{number}]: {fact} does not hold (seen: {instead})"
            for number, each in enumerate(found, start=1)
            for fact, instead in each.missed.items()
        ]
        of, missed = sum(each.number for each in found), sum(len(each.missed) for each in found)
        notes.append(f"{of - missed} of {of} assertions hold")
        candidates = [[row[k] for k in each.order] for row, each in zip(drawn.candidates, found, strict=True)]
        scores = drawn.scores.gather(1, torch.tensor([each.order for each in found]))
        return Drawn([row[0] for row in candidates], candidates, scores, [*drawn.notes, *notes])


class Satisfying(NamedTuple):
    """The candidates of a frame, best first, and of its assertions the number and those that the best one misses."""

    order: list[int]
    number: int
    missed: dict[Fact, str]  # and what is seen instead
