"""The auxiliary losses of story encoders: in training, story vectors tell more than the codes of their frame.

Neither head is part of the model that is saved.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor, nn

from storydalle.models import ranks


class BagHead(nn.Module):
    """Predicts which codes a frame has, in any order, from its story vectors and the mean code of its source.

    The source is given because captions seldom name the setting, which most codes depend on: without it the captions
    explain too little of the loss to learn from.
    """

    def __init__(self, num_story_tokens: int, dim: int) -> None:
        super().__init__()
        self.story = nn.Linear(num_story_tokens * dim, 2 * dim)
        self.ln_source = nn.LayerNorm(dim)
        self.source = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(2 * dim, dim)

    def forward(
        self, story: Float[Tensor, "b f s d"], source: Int[Tensor, "b l"], codes: Float[Tensor, "v d"]
    ) -> Float[Tensor, "b f v"]:
        mean = self.ln_source(F.embedding(source, codes).mean(1))  # b d, over the l codes
        hidden = self.story(rearrange(story, "b f s d -> b f (s d)")) + self.source(mean)[:, None]
        return F.linear(self.out(F.gelu(hidden)), codes)  # read out with the table of codes


class Answers(NamedTuple):
    """The answers to one label's questions of every frame; ``asked`` is false where there is none."""

    logits: Float[Tensor, "b f n v"]
    values: Int[Tensor, "b f n"]
    asked: Bool[Tensor, "b f n"]

    @property
    def right(self) -> Bool[Tensor, "b f n"]:
        return self.logits.argmax(-1) == self.values

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats of what is asked."""
        nats = F.cross_entropy(self.logits.float().movedim(-1, 1), self.values.clamp(min=0), reduction="none")
        return ranks.ratio((nats * self.asked).sum(), self.asked.sum(), least=1)


class FactHead(nn.Module):
    """Reads the labels of a frame, facts that its story tells, from its story vectors.

    ``facts`` names labels of the data set: name -> (entries of a frame, values of an entry), and where an entry only
    means something if the same entry of another label is 1, that label's name. Entries of -1 are not known. All labels
    weigh the same, however many entries they have.
    """

    def __init__(self, facts: Mapping[str, Sequence[int | str]], num_story_tokens: int, dim: int) -> None:
        super().__init__()
        self.sizes = {name: (int(entries), int(values)) for name, (entries, values, *_) in facts.items()}
        self.only_where = {name: str(label) for name, (_, _, *labels) in facts.items() for label in labels}
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(num_story_tokens * dim, entries * values)
                for name, (entries, values) in self.sizes.items()
            }
        )

    def answers(
        self,
        story: Float[Tensor, "b f s d"],
        labels: Mapping[str, Real[Tensor, "b ..."]],
        mask: Bool[Tensor, "b f"],
    ) -> Iterator[tuple[str, Answers]]:
        """Each label's answers, beside its true values; ``mask`` is true at frames that exist."""
        vectors = rearrange(story, "b f s d -> b f (s d)")
        for name, (entries, number) in self.sizes.items():
            values = self._of_frames(labels, name, entries)
            asked = mask[..., None] & (values >= 0)
            if name in self.only_where:
                asked = asked & (self._of_frames(labels, self.only_where[name], entries) == 1)
            yield name, Answers(self.heads[name](vectors).unflatten(-1, (entries, number)), values, asked)

    @staticmethod
    def _of_frames(labels: Mapping[str, Tensor], name: str, entries: int) -> Int[Tensor, "b f n"]:
        """A label with its entries in one axis; ValueError if the data set has none of this name and size."""
        if name not in labels:
            raise ValueError(f"facts name the label {name!r}, but the stories have {', '.join(labels) or 'no labels'}")
        values = labels[name].long()
        values = values.flatten(2) if values.dim() > 2 else values[..., None]
        if values.shape[-1] != entries:
            raise ValueError(f"facts give {name!r} {entries} entries a frame, but it has {values.shape[-1]}")
        return values


def facts_right(answers: Mapping[str, Answers], mask: Bool[Tensor, "b f"]) -> dict[str, tuple[Tensor, Tensor]]:
    """How much is right, and how much is asked: of each label's entries, and ("all") of whole frames."""
    found = {name: ((each.right & each.asked).sum(), each.asked.sum()) for name, each in answers.items()}
    whole = torch.stack([(each.right | ~each.asked).all(-1) for each in answers.values()]).all(0)
    return found | {"all": ((whole & mask).sum(), mask.sum())}
