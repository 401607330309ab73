"""Scores of ToonSV: how many facts of a story can be read in the frames drawn for it.

Every score is a ratio of two sums over frames (or characters of frames): the items that are right, and all items. The
sums are kept for each story. So a score does not depend on batches or their order, a frame without an item does not
count, and intervals come from resampling whole stories.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from storydalle.metrics.declared import COMPARED, DIAGNOSED, GUESTS, SCENE, Column, Ranking
from storydalle.metrics.resampling import Interval as Interval
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.story_metric import StoryMetric
from storydalle.metrics.topics import CHARACTERS
from storydalle.stories.character_labels import f1_terms
from storydalle.stories.toon import CAST_KNOWN, HAT_KNOWN, SETTING_KNOWN

EXPLICIT, PRONOUN = (CAST_KNOWN.index(known) for known in ("explicit", "pronoun"))
FROM_SOURCE, SAID, CARRIED = (SETTING_KNOWN.index(known) for known in ("source", "said", "carried"))
HAT_SAID, HAT_CARRIED = (HAT_KNOWN.index(known) for known in ("said", "carried"))
LOOK = ("guest_shape", "guest_color", "guest_accessory")
READ_LABELS = ("characters", "setting", "tint", "action", "prop", "guest", *LOOK, "hat")
TRUE_LABELS = (*READ_LABELS, "cast_known", "setting_known", "hat_known")

Labels = Mapping[str, Tensor]


class Ratio(NamedTuple):
    """How many were right (twice that, for an F1) of how many could have been; axes after the first are summed."""

    right: Shaped[Tensor, "b ..."]
    of: Shaped[Tensor, "b ..."]


def frame_ratios(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
    """All ratios except the characters' F1, as truth values of frames ``(b, f)`` or of characters ``(b, f, k)``."""
    cast_right = (predicted["characters"] == truth["characters"]).all(-1)
    action_right = predicted["action"] == truth["action"]
    setting_right = predicted["setting"] == truth["setting"]
    explicit, pronoun = (mask & (truth["cast_known"] == known) for known in (EXPLICIT, PRONOUN))
    from_source, said, carried = (mask & (truth["setting_known"] == known) for known in (FROM_SOURCE, SAID, CARRIED))
    ratios = {
        "frame_accuracy": Ratio(cast_right, mask),
        "frame_accuracy_explicit": Ratio(cast_right, explicit),
        "frame_accuracy_pronoun": Ratio(cast_right, pronoun),
        "setting": Ratio(setting_right, mask),
        "setting_source": Ratio(setting_right, from_source),
        "setting_said": Ratio(setting_right, said),
        "setting_carried": Ratio(setting_right, carried),
        "tint": Ratio(predicted["tint"] == truth["tint"], mask),
        "action": Ratio(action_right, mask),
        "prop": Ratio(predicted["prop"] == truth["prop"], mask & (truth["prop"] > 0)),
        "prop_false": Ratio(predicted["prop"] > 0, mask & (truth["prop"] == 0)),
    }
    return ratios | guest_ratios(predicted, truth, mask, cast_right & action_right) | hat_ratios(predicted, truth, mask)


def guest_ratios(
    predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"], rest_right: Bool[Tensor, "b f"]
) -> dict[str, Ratio]:
    """The guest's look in three ways, since a copied source shows the right guest in the wrong frame.

    ``guest_look`` counts only frames with correct cast and action (``guest_scored`` is their share), ``guest_look_any``
    every frame with a guest. ``guest_look_joint`` also counts every frame with a guest, but it is right only if cast
    and action are right too.
    """
    guest = mask & (truth["guest"] > 0)
    scored = guest & rest_right
    right = {name: predicted[name] == truth[name] for name in LOOK}
    right["guest_look"] = torch.stack([right[name] for name in LOOK]).all(0)
    ratios = {"guest_scored": Ratio(rest_right, guest)}
    ratios |= {name: Ratio(values, scored) for name, values in right.items()}
    ratios |= {f"{name}_any": Ratio(values, guest) for name, values in right.items()}
    return ratios | {"guest_look_joint": Ratio(right["guest_look"] & rest_right, guest)}


def hat_ratios(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
    """Hats that a caption names or that are still worn (none, if the character is missing), and false hats.

    A false hat is read on a character that is there, should be there, and should wear none.
    """
    present = mask[..., None] & (truth["characters"] > 0)
    read_present = predicted["characters"] > 0
    hat_right = read_present & (predicted["hat"] == truth["hat"])
    wears = present & (truth["hat"] > 0)
    said, carried = (wears & (truth["hat_known"] == known) for known in (HAT_SAID, HAT_CARRIED))
    return {
        "hat_said": Ratio(hat_right, said),
        "hat_carried": Ratio(hat_right, carried),
        "hat_said_if_present": Ratio(hat_right, said & read_present),
        "hat_carried_if_present": Ratio(hat_right, carried & read_present),
        "hat_false": Ratio(predicted["hat"] > 0, present & read_present & (truth["hat"] == 0)),
    }


def character_ratio(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> Ratio:
    """Each character's F1, as a ratio."""
    read = mask[..., None] & (predicted["characters"] > 0)
    true = mask[..., None] & (truth["characters"] > 0)
    return Ratio(*f1_terms((read & true).long(), read.long(), true.long()))


def story_sums(ratio: Ratio) -> Int[Tensor, "b 2"]:
    """``right`` and ``of``, summed over a story; what is right but not part of ``of`` does not count."""
    right = ratio.right * (ratio.of > 0)
    return torch.stack([right.flatten(1).sum(1), ratio.of.flatten(1).sum(1)], dim=1)


class ToonScores(StoryMetric):
    """Scores of ToonSV from the labels read in drawn frames and the true ones.

    ``compute`` returns one float for each score, nan if no frame had an item of that kind.
    """

    names = (
        *("frame_accuracy", "frame_accuracy_explicit", "frame_accuracy_pronoun"),
        *("setting", "setting_source", "setting_said", "setting_carried", "tint", "action", "prop", "prop_false"),
        *("guest_scored", "guest_shape", "guest_color", "guest_accessory", "guest_look"),
        *("guest_shape_any", "guest_color_any", "guest_accessory_any", "guest_look_any", "guest_look_joint"),
        *("hat_said", "hat_carried", "hat_said_if_present", "hat_carried_if_present", "hat_false"),
    )

    higher_is_better = True
    lower_is_better = ("prop_false", "hat_false")
    asked_as = "labels"
    rank = 0
    needs = ("labels",)
    columns = (
        Column("character_micro_f1", "char F1", SCENE),
        Column("character_macro_f1", "macro F1", SCENE),
        Column("frame_accuracy", "frame acc", SCENE),
        Column("frame_accuracy_explicit", "explicit", SCENE),
        Column("frame_accuracy_pronoun", "pronoun", SCENE),
        Column("setting_source", "setting: source", SCENE),
        Column("setting_said", "said", SCENE),
        Column("setting_carried", "carried", SCENE),
        Column("tint", "tint", SCENE),
        Column("action", "action", SCENE),
        Column("action_share", "share of tokenizer", SCENE),
        Column("prop", "prop held", SCENE),
        Column("prop_false", "false prop", SCENE),
        Column("guest_scored", "guest frames scored", GUESTS),
        Column("guest_shape", "shape", GUESTS),
        Column("guest_color", "colour", GUESTS),
        Column("guest_accessory", "accessory", GUESTS),
        Column("guest_look", "look", GUESTS),
        Column("guest_look_share", "share of tokenizer", GUESTS),
        Column("guest_look_any", "look, any frame", GUESTS),
        Column("guest_look_joint", "look, cast and action", GUESTS),
        Column("hat_said", "hat said", GUESTS),
        Column("hat_carried", "carried", GUESTS),
        Column("hat_false", "false hat", GUESTS),
        Column("character_micro_f1", "char F1", COMPARED),
        Column("frame_accuracy", "frames exact", COMPARED),
        Column("setting", "setting", COMPARED),
        Column("action", "action", COMPARED),
        Column("guest_look_joint", "guest's look", COMPARED),
        Column("hat_carried", "hat carried", COMPARED),
        Column("character_micro_f1", "char F1", DIAGNOSED),
        Column("setting_source", "setting: source", DIAGNOSED),
        Column("action", "action", DIAGNOSED),
        Column("guest_look_joint", "guest's look", DIAGNOSED),
    )
    families: ClassVar = {
        CHARACTERS: "character_(micro|macro)_f1|frame_accuracy(_[a-z]+)?",
        "Setting and action": "setting.*|tint|action|prop.*",
        "Guests and hats": "guest_.*|hat_.*",
    }
    ranking = Ranking(("character_micro_f1", "setting", "action"), "the characters, setting and action read in it")

    def judge(self, drawn: Seen, truth: Truth) -> None:
        self.update(drawn.labels, truth.batch.labels, truth.batch.mask, truth.batch.ids)

    def update(
        self, predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"], ids: Sequence[str] | None = None
    ) -> None:
        """Add stories: labels encoded as ToonSV's, ``(b, f)`` or ``(b, f, characters)``; ``mask`` is true at frames."""
        predicted, truth = self.checked(predicted, READ_LABELS), self.checked(truth, TRUE_LABELS)
        mask = mask.to(self.device)
        for name in READ_LABELS:
            if predicted[name].shape != truth[name].shape or truth[name].shape[:2] != mask.shape:
                raise ValueError(
                    f"label {name!r} was read as {tuple(predicted[name].shape)} and is {tuple(truth[name].shape)} "
                    f"under a mask of {tuple(mask.shape)}: give one row a story and one column a frame"
                )
        ratios = frame_ratios(predicted, truth, mask)
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
