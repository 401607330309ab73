"""Scores of ToonSV: how many facts of a story can be read in the frames drawn for it."""

from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from storydalle.metrics.declared import COMPARED, DIAGNOSED, GUESTS, SCENE, Column, Ranking
from storydalle.metrics.label_scores import LOOK, Labels, LabelScores, Ratio
from storydalle.metrics.resampling import Interval as Interval
from storydalle.metrics.topics import CHARACTERS
from storydalle.stories.toon import CAST_KNOWN, HAT_KNOWN, SETTING_KNOWN

EXPLICIT, PRONOUN = (CAST_KNOWN.index(known) for known in ("explicit", "pronoun"))
FROM_SOURCE, SAID, CARRIED = (SETTING_KNOWN.index(known) for known in ("source", "said", "carried"))
HAT_SAID, HAT_CARRIED = (HAT_KNOWN.index(known) for known in ("said", "carried"))
READ_LABELS = ("characters", "setting", "tint", "action", "prop", "guest", *LOOK, "hat")
TRUE_LABELS = (*READ_LABELS, "cast_known", "setting_known", "hat_known")


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


class ToonScores(LabelScores):
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

    read_labels, true_labels = READ_LABELS, TRUE_LABELS
    lower_is_better = ("prop_false", "hat_false")
    asked_as = "labels"
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

    def ratios(self, predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
        return frame_ratios(predicted, truth, mask)
