"""Scores of ToonSV 2: how many facts of a story can be read in the frames drawn for it, by how each is known.

A picture does not tell which guest of a story it shows. The reader reads guests from left to right, and here each of
them becomes the guest of the story whose look it resembles most; where looks do not decide, the one that is expected.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from storydalle.metrics.declared import COMPARED, DIAGNOSED, Column, Ranking, Setting
from storydalle.metrics.label_scores import LOOK, Labels, LabelScores, Ratio
from storydalle.metrics.topics import CAST, CHARACTERS, LOOKS, PLACES, THINGS
from storydalle.stories.toonsv.facts import KNOWN_CARRIED, KNOWN_PRONOUN, KNOWN_SAID, RETURNED, SOURCE
from storydalle.stories.toonsv.labels import NUM_GUESTS

OF_CHARACTERS = ("characters", "action", "prop", "hat")
READ_LABELS = (*OF_CHARACTERS, "setting", "light", *LOOK)
KNOWN_LABELS = ("cast_known", "action_known", "prop_known", "hat_known", "setting_known", "light_known")
SOURCE_LOOK = tuple(f"source_{name}" for name in LOOK)
SOURCE_LABELS = ("source_characters", *(f"source_{name}" for name in ("hat", "prop", "setting", "light")))
WAYS = {"source": SOURCE, "said": KNOWN_SAID, "carried": KNOWN_CARRIED, "returned": RETURNED}
NAMES = (
    "frame_accuracy",
    *(f"frame_accuracy_{frames}" for frames in ("1_2", "3_4", "explicit", "pronoun", "carried")),
    *("action", "action_said", "action_carried"),
    *("prop", *(f"prop_{way}" for way in WAYS), "prop_none", "prop_false"),
    *("hat", *(f"hat_{way}" for way in WAYS), "hat_none", "hat_false"),
    *("setting", *(f"setting_{way}" for way in WAYS)),
    *("light", "light_source", "light_said", "light_carried"),
    *("guest_scored", *LOOK, "guest_look", "guest_look_alone", "guest_look_pair", "guest_look_joint"),
    *("against_source", "facts_right"),
)
FEW = 2  # characters, whose figures have the full size
EARLY = 4  # the frame that the last one is compared with


# ------------------------------------------------------------------------------------------------ who is which guest


def looks_of_stories(truth: Labels, mask: Bool[Tensor, "b f"]) -> Int[Tensor, "b g 3"]:
    """Shape, colour and accessory of both guests of each story, wherever it shows them; -1 of a guest it lacks."""
    looks = []
    for name, of_source in zip(LOOK, SOURCE_LOOK, strict=True):
        in_targets = torch.where(mask[..., None], truth[name], -1).amax(1)
        looks.append(torch.maximum(in_targets, truth[of_source]))
    return torch.stack(looks, dim=-1)


def swapped_guests(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> Bool[Tensor, "b f"]:
    """True where the guests read in a frame are the story's in the other order."""
    looks = looks_of_stories(truth, mask)[:, None, None]  # b 1 1 guest 3
    read = torch.stack([predicted[name] for name in LOOK], dim=-1)[:, :, :, None]  # b f place 1 3
    alike = ((read == looks) & (looks >= 0)).sum(-1)  # b f place guest
    as_read, otherwise = (alike[..., 0, i] + alike[..., 1, 1 - i] for i in (0, 1))
    expected = truth["characters"][..., -NUM_GUESTS:] > 0
    only_second = expected[..., 1] & ~expected[..., 0] & (predicted["characters"][..., -1] == 0)
    return (otherwise > as_read) | ((otherwise == as_read) & only_second)


def with_guests_of_story(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Tensor]:
    """The read labels with each guest in its column."""
    swapped = swapped_guests(predicted, truth, mask)[..., None]
    labels = dict(predicted)
    for name in (*OF_CHARACTERS, *LOOK):
        values = predicted[name]
        guests = values[..., -NUM_GUESTS:]
        guests = torch.where(swapped, guests.flip(-1), guests)
        labels[name] = torch.cat([values[..., :-NUM_GUESTS], guests], dim=-1)
    return labels


# ------------------------------------------------------------------------------------------------ ratios


def cast_ratios(right: Bool[Tensor, "b f"], truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
    """Frames whose cast is right: all; small and large casts; by how the caption tells the cast.

    ``pronoun``: it means one of them, at least, without a name; ``carried``: it mentions nobody; ``explicit``: it names
    all.
    """
    shown = truth["characters"] > 0
    pronoun, carried = ((shown & (truth["cast_known"] == known)).any(-1) for known in (KNOWN_PRONOUN, KNOWN_CARRIED))
    is_small = shown.sum(-1) <= FEW
    return {
        "frame_accuracy": Ratio(right, mask),
        "frame_accuracy_1_2": Ratio(right, mask & is_small),
        "frame_accuracy_3_4": Ratio(right, mask & ~is_small),
        "frame_accuracy_explicit": Ratio(right, mask & ~pronoun & ~carried),
        "frame_accuracy_pronoun": Ratio(right, mask & pronoun),
        "frame_accuracy_carried": Ratio(right, mask & carried),
    }


def by_way(
    name: str, right: Bool[Tensor, "b f *k"], asked: Bool[Tensor, "b f *k"], known: Int[Tensor, "b f *k"], *ways: str
) -> dict[str, Ratio]:
    """A fact, and the same by how it is known."""
    parts = {f"{name}_{way}": Ratio(right, asked & (known == WAYS[way])) for way in ways}
    return {name: Ratio(right, asked), **parts}


def own_ratios(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
    """Actions, things and hats of those who should be there; whoever is missing has none right.

    ``_none`` are hats and things that the caption says are no more there, ``_false`` those that are read on one who is
    there, should be, and should have none.
    """
    there = mask[..., None] & (truth["characters"] > 0)
    read = predicted["characters"] > 0
    right = {name: read & (predicted[name] == truth[name]) for name in ("action", "prop", "hat")}
    known = {name: truth[f"{name}_known"] for name in right}
    asked = there & (truth["action"] >= 0)
    ratios = by_way("action", right["action"], asked, known["action"], "said", "carried")
    for name in ("prop", "hat"):
        has = truth[name] > 0
        ratios |= by_way(name, right[name], there & has, known[name], *WAYS)
        ratios[f"{name}_none"] = Ratio(right[name], there & ~has & (known[name] == KNOWN_SAID))
        ratios[f"{name}_false"] = Ratio(predicted[name] > 0, there & read & ~has)
    return ratios


def look_ratios(
    predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"], cast_right: Bool[Tensor, "b f"]
) -> dict[str, Ratio]:
    """Looks of guests in frames whose cast is right, the whole look also by the number of the story's guests.

    ``guest_scored`` is the share of such frames, and ``guest_look_joint`` a right look in a right cast, of all guests.
    """
    guest = mask[..., None] & (truth["characters"][..., -NUM_GUESTS:] > 0)
    in_cast = cast_right[..., None].expand_as(guest)
    scored = guest & in_cast
    right = {name: predicted[name] == truth[name] for name in LOOK}
    look = torch.stack(list(right.values())).all(0)
    is_pair = (looks_of_stories(truth, mask)[..., 0] >= 0).all(-1)[:, None, None]
    return {
        "guest_scored": Ratio(in_cast, guest),
        **{name: Ratio(values, scored) for name, values in right.items()},
        "guest_look": Ratio(look, scored),
        "guest_look_alone": Ratio(look, scored & ~is_pair),
        "guest_look_pair": Ratio(look, scored & is_pair),
        "guest_look_joint": Ratio(look & in_cast, guest),
    }


def against_source(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> Ratio:
    """Facts of first captions that their source shows otherwise: hats and things of those it shows, setting, light."""
    frame = {name: values[:, 0] for name, values in truth.items() if not name.startswith("source_")}
    in_both = (frame["characters"] > 0) & (truth["source_characters"] > 0) & mask[:, :1]
    read = predicted["characters"][:, 0] > 0
    right, asked = [], []
    for name in ("hat", "prop", "setting", "light"):
        is_own = name in OF_CHARACTERS
        is_told = (frame[f"{name}_known"] == KNOWN_SAID) & (frame[name] != truth[f"source_{name}"])
        is_right = predicted[name][:, 0] == frame[name]
        asked.append(is_told & in_both if is_own else (is_told & mask[:, 0])[:, None])
        right.append(is_right & read if is_own else is_right[:, None])
    return Ratio(torch.cat(right, dim=1), torch.cat(asked, dim=1))


def all_right(predicted: Labels, truth: Labels, cast_right: Bool[Tensor, "b f"]) -> Bool[Tensor, "b f"]:
    """Frames in which every fact is right: cast, hats, things, looks, setting, light, and the actions that are told."""
    absent = truth["characters"] == 0
    right = cast_right & (predicted["setting"] == truth["setting"]) & (predicted["light"] == truth["light"])
    right = right & (absent | (truth["action"] < 0) | (predicted["action"] == truth["action"])).all(-1)
    for name in ("prop", "hat"):
        right = right & (absent | (predicted[name] == truth[name])).all(-1)
    for name in LOOK:
        right = right & (absent[..., -NUM_GUESTS:] | (predicted[name] == truth[name])).all(-1)
    return right


def fact_ratios(predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
    """All ratios but those of positions and the characters' F1; guests are those of the story."""
    cast_right = (predicted["characters"] == truth["characters"]).all(-1)
    setting, light = (predicted[name] == truth[name] for name in ("setting", "light"))
    return {
        **cast_ratios(cast_right, truth, mask),
        **own_ratios(predicted, truth, mask),
        **by_way("setting", setting, mask, truth["setting_known"], *WAYS),
        **by_way("light", light, mask, truth["light_known"], "source", "said", "carried"),
        **look_ratios(predicted, truth, mask, cast_right),
        "against_source": against_source(predicted, truth, mask),
        "facts_right": Ratio(all_right(predicted, truth, cast_right), mask),
    }


# ------------------------------------------------------------------------------------------------ the metric


class FactScores(LabelScores):
    """Scores of ToonSV 2 from the labels read in drawn frames and the true ones.

    ``compute`` returns one float for each score, nan if no frame had an item of that kind. ``facts_right_at_<i>`` are
    of the i-th frames of stories of up to ``num_frames``, and ``facts_kept`` is the last of these over the fourth.
    """

    read_labels = READ_LABELS
    true_labels = (*READ_LABELS, *KNOWN_LABELS, *SOURCE_LOOK, *SOURCE_LABELS)
    lower_is_better = ("prop_false", "hat_false")
    asked_as = "facts"
    columns = (
        Column("character_micro_f1", "char F1", CAST),
        Column("frame_accuracy", "cast exact", CAST),
        Column("frame_accuracy_1_2", "of 1, 2", CAST),
        Column("frame_accuracy_3_4", "of 3, 4", CAST),
        Column("frame_accuracy_explicit", "explicit", CAST),
        Column("frame_accuracy_pronoun", "pronoun", CAST),
        Column("frame_accuracy_carried", "carried", CAST),
        Column("action", "own action", CAST),
        Column("action_carried", "goes on", CAST),
        Column("against_source", "against source", CAST),
        Column("facts_right", "all facts", CAST),
        Column("facts_right_at_4", "in frame 4", CAST),
        Column("facts_right_at_20", "20", CAST),
        Column("facts_right_at_50", "50", CAST),
        Column("facts_kept", "last / frame 4", CAST),
        Column("hat_source", "hat: source", THINGS),
        Column("hat_said", "said", THINGS),
        Column("hat_carried", "carried", THINGS),
        Column("hat_returned", "returned", THINGS),
        Column("hat_none", "taken off", THINGS),
        Column("hat_false", "false hat", THINGS),
        Column("prop_source", "thing: source", THINGS),
        Column("prop_said", "said", THINGS),
        Column("prop_carried", "carried", THINGS),
        Column("prop_returned", "returned", THINGS),
        Column("prop_none", "put down", THINGS),
        Column("prop_false", "false thing", THINGS),
        Column("setting", "setting", PLACES),
        Column("setting_source", "source", PLACES),
        Column("setting_said", "said", PLACES),
        Column("setting_carried", "carried", PLACES),
        Column("setting_returned", "returned", PLACES),
        Column("light", "light", PLACES),
        Column("light_source", "source", PLACES),
        Column("light_said", "said", PLACES),
        Column("light_carried", "carried", PLACES),
        Column("guest_scored", "in right casts", LOOKS),
        Column("guest_shape", "shape", LOOKS),
        Column("guest_color", "colour", LOOKS),
        Column("guest_accessory", "accessory", LOOKS),
        Column("guest_look", "look", LOOKS),
        Column("guest_look_share", "share of tokenizer", LOOKS),
        Column("guest_look_alone", "one guest", LOOKS),
        Column("guest_look_pair", "two guests", LOOKS),
        Column("guest_look_joint", "look and cast", LOOKS),
        *(Column("facts_right", "all facts", table) for table in (COMPARED, DIAGNOSED)),
    )
    legend: ClassVar[Mapping[str, str]] = {
        CAST: "*pronoun*: the caption means somebody without a name, *carried*: nobody is mentioned; *goes on*: an "
        "action that is told only by that; *against source*: what a first caption says and the source shows otherwise; "
        "*all facts*: everything that is known of a frame is right at once",
        THINGS: "*returned*: kept while its owner was away; *taken off*, *put down*: the caption says so, and none is "
        "read; *false*: read on one who should have none",
        PLACES: "*source*: still as the source shows it, *carried*: told by an earlier caption, *returned*: the "
        "caption goes back without naming the place",
        LOOKS: "shape, colour, accessory and all three at once, of guests in frames with the right cast, and in "
        "stories with one or two guests; *look and cast*: both right, of all guests",
    }
    families: ClassVar = {
        CHARACTERS: "frame_accuracy_(1_2|3_4)|frame_accuracy_carried",
        "All facts": "facts_.*|against_source",
        "Setting and action": "setting.*|light.*|action.*|prop.*",
        "Guests and hats": "guest_.*|hat.*",
    }
    curves: ClassVar = {"facts_right_at_": "Frames with all facts right, by frame"}
    details = r"facts_right_at_\d+"
    ranking = Ranking(("facts_right", "frame_accuracy", "action"), "the facts read in it")

    def __init__(self, num_frames: int = 50) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.names = (*NAMES, *(f"facts_right_at_{i}" for i in range(1, num_frames + 1)))

    @classmethod
    def made(cls, setting: Setting) -> "FactScores":
        return cls(setting.num_frames)

    def update(
        self, predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"], ids: Sequence[str] | None = None
    ) -> None:
        """Add stories: labels as a reader of ToonSV 2 reads them, and the true ones; ``mask`` is true at frames."""
        if mask.shape[1] > self.num_frames:
            raise ValueError(f"a story of {mask.shape[1]} frames with num_frames={self.num_frames}: raise num_frames")
        predicted, truth = self.checked(predicted, self.read_labels), self.checked(truth, self.true_labels)
        super().update(with_guests_of_story(predicted, truth, mask.to(self.device)), truth, mask, ids)

    def ratios(self, predicted: Labels, truth: Labels, mask: Bool[Tensor, "b f"]) -> dict[str, Ratio]:
        ratios = fact_ratios(predicted, truth, mask)
        right, none = ratios["facts_right"].right, torch.zeros_like(mask[:, 0])
        for i in range(self.num_frames):
            exists = i < mask.shape[1]
            at = Ratio(right[:, i], mask[:, i]) if exists else Ratio(none, none)
            ratios[f"facts_right_at_{i + 1}"] = Ratio(at.right[:, None], at.of[:, None])
        return ratios

    def scores_of_sums(self, sums: Float[Tensor, "*r k 2"]) -> dict[str, Float[Tensor, "*r"]]:
        scores = super().scores_of_sums(sums)
        if self.num_frames > EARLY:
            scores["facts_kept"] = scores[f"facts_right_at_{self.num_frames}"] / scores[f"facts_right_at_{EARLY}"]
        return scores
