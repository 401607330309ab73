"""Choose among a frame's candidates."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.metrics.held_facts import named_frame, number_held, open_fact_reader, read_labels
from storydalle.metrics.networks.clip import ImageTextNetwork, open_image_text_network
from storydalle.metrics.text_image import rerank
from storydalle.mistakes import told_in_one_line
from storydalle.models.drawing import Drawn, Reranker
from storydalle.models.kinds import CLIP
from storydalle.models.zoo import zoo_folder
from storydalle.stories.images import from_images, to_pixels, to_tensor
from storydalle.stories.toon.asserted import Assertions


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


def satisfying_first(drawn: Drawn, assertions: Assertions) -> Drawn:
    """Put first, of each frame, the candidate in which most assertions hold; those with equal numbers keep their order.

    Notes tell of the assertions that hold in no chosen frame.
    """
    reader = open_fact_reader()
    orders, notes = [], []
    held = of = 0
    for number, row in enumerate(drawn.candidates, start=1):
        facts = assertions.frames.get(number, ())
        read = read_labels(reader, from_images(row, reader.resolution)) if facts else []
        seen = [named_frame(labels, assertions, facts) for labels in read]
        order = sorted(range(len(row)), key=lambda k: -number_held(seen[k], facts) if facts else 0)
        orders.append(order)
        missed = [fact for fact in facts if not seen[order[0]].holds(fact)]
        notes += [f"frames[{number}]: {fact} does not hold (seen: {seen[order[0]].instead(fact)})" for fact in missed]
        held, of = held + len(facts) - len(missed), of + len(facts)
    notes.append(f"{held} of {of} assertions hold")
    candidates = [[row[k] for k in order] for row, order in zip(drawn.candidates, orders, strict=True)]
    scores = drawn.scores.gather(1, torch.tensor(orders))
    return Drawn([row[0] for row in candidates], candidates, scores, [*drawn.notes, *notes])
