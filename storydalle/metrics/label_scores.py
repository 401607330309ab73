"""Scores from the labels that a network reads in drawn frames, compared with the true ones.

Every score is a ratio of two sums over frames (or characters of frames): the items that are right, and all items. The
sums are kept for each story. So a score does not depend on batches or their order, a frame without an item does not
count, and intervals come from resampling whole stories.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.story_metric import StoryMetric
from storydalle.stories.character_labels import f1_terms

LOOK = ("guest_shape", "guest_color", "guest_accessory")

Labels = Mapping[str, Tensor]


class Ratio(NamedTuple):
    """How many were right (twice that, for an F1) of how many could have been; axes after the first are summed."""

    right: Shaped[Tensor, "b ..."]
    of: Shaped[Tensor, "b ..."]


def character_ratio(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> Ratio:
    """Each character's F1, as a ratio."""
    read = mask[..., None] & (predicted["characters"] > 0)
    true = mask[..., None] & (truth["characters"] > 0)
    return Ratio(*f1_terms((read & true).long(), read.long(), true.long()))


def story_sums(ratio: Ratio) -> Int[Tensor, "b 2"]:
    """``right`` and ``of``, summed over a story; what is right but not part of ``of`` does not count."""
    right = ratio.right * (ratio.of > 0)
    return torch.stack([right.flatten(1).sum(1), ratio.of.flatten(1).sum(1)], dim=1)


class LabelScores(StoryMetric):
    """The base of scores from read labels: ``ratios``, by the names of ``names``, and the F1 of characters."""

    read_labels: ClassVar[tuple[str, ...]]
    true_labels: ClassVar[tuple[str, ...]]
    higher_is_better = True
    rank = 0
    needs = ("labels",)

    def ratios(self, predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
        """All ratios except the characters' F1, of frames ``(b, f)`` or of characters ``(b, f, k)``, in order."""
        raise NotImplementedError

    def judge(self, drawn: Seen, truth: Truth) -> None:
        self.update(drawn.labels, truth.batch.labels, truth.batch.mask, truth.batch.ids)

    def update(
        self, predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"], ids: Sequence[str] | None = None
    ) -> None:
        """Add stories: labels encoded as ToonSV's, ``(b, f)`` or ``(b, f, characters)``; ``mask`` is true at frames."""
        predicted, truth = self.checked(predicted, self.read_labels), self.checked(truth, self.true_labels)
        mask = mask.to(self.device)
        for name in self.read_labels:
            if predicted[name].shape != truth[name].shape or truth[name].shape[:2] != mask.shape:
                raise ValueError(
                    f"label {name!r} was read as {tuple(predicted[name].shape)} and is {tuple(truth[name].shape)} "
                    f"under a mask of {tuple(mask.shape)}: give one row a story and one column a frame"
                )
        ratios = self.ratios(predicted, truth, mask)
        assert tuple(ratios) == self.names
        characters = character_ratio(predicted, truth, mask)
        each = [Ratio(characters.right[..., k], characters.of[..., k]) for k in range(characters.of.shape[-1])]
        self.add_stories(torch.stack([story_sums(ratio) for ratio in (*ratios.values(), *each)], dim=1), ids)

    def checked(self, labels: Labels, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The named labels on this metric's device."""
        missing = [name for name in names if name not in labels]
        if missing:
            raise ValueError(f"labels without {', '.join(missing)}: ToonSV scores need {', '.join(names)}")
        return {name: labels[name].to(self.device) for name in names}

    def scores_of_sums(self, sums: Float[Tensor, "*r k 2"]) -> dict[str, Float[Tensor, "*r"]]:
        """The characters' F1 first, from the entries after the named ones; nan if there is no item."""
        right, of = sums[..., len(self.names) :, :].unbind(-1)
        scores = {
            "character_micro_f1": right.sum(-1) / of.sum(-1),
            "character_macro_f1": (right / of).nanmean(-1),
        }
        return scores | super().scores_of_sums(sums)
