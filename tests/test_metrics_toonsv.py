"""The scores of ToonSV 2 on confusions made by hand, with results computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from storydalle.metrics.toonsv import LOOK, SOURCE_LOOK, FactScores, with_guests_of_story
from storydalle.stories.toonsv import ToonSV2
from storydalle.stories.toonsv.facts import KNOWN_CARRIED, KNOWN_PRONOUN, KNOWN_SAID, RETURNED, SOURCE, UNSAID
from storydalle.stories.toonsv.labels import drawn_labels, labels_of

Labels = dict[str, Tensor]
PIP, LULU, BRUNO, FIRST, SECOND = 0, 1, 2, 9, 10
STAR, CLOUD = (2, 1, 3), (5, 6, 0)  # looks: shape, colour, accessory


def true_labels(num_frames: int, num_stories: int = 1) -> Labels:
    """Frames with Pip alone, who does action 1, has nothing, and is named; setting 1 and light 1, as the source's."""
    shape = (num_stories, num_frames)
    labels = {name: torch.ones(shape, dtype=torch.long) for name in ("setting", "light")}
    labels |= {f"{name}_known": torch.full(shape, SOURCE) for name in ("setting", "light")}
    for name in ("characters", "prop", "hat", *(f"{name}_known" for name in ("cast", "action", "prop", "hat"))):
        labels[name] = torch.zeros(*shape, 11, dtype=torch.long)
    labels["action"] = torch.full((*shape, 11), -1)
    labels |= {name: torch.full((*shape, 2), -1) for name in LOOK}
    labels |= {name: torch.full((num_stories, 2), -1) for name in SOURCE_LOOK}
    labels |= {f"source_{name}": torch.ones(num_stories, dtype=torch.long) for name in ("setting", "light")}
    for name in ("characters", "hat", "prop"):
        labels[f"source_{name}"] = torch.zeros(num_stories, 11, dtype=torch.long)
    labels["source_characters"][:, PIP] = 1
    for frame in range(num_frames):
        show(labels, frame, PIP)
    return labels


def show(labels: Labels, frame: int, who: int, **values: int) -> None:
    """Let a character be shown and named, with action 1 said, or with other values."""
    labels["characters"][:, frame, who] = 1
    told = {"cast_known": KNOWN_SAID, "action": 1, "action_known": KNOWN_SAID} | values
    for name, value in told.items():
        labels[name][:, frame, who] = value


def show_guest(labels: Labels, frame: int, who: int, look: tuple[int, int, int]) -> None:
    show(labels, frame, who)
    for name, value in zip(LOOK, look, strict=True):
        labels[name][:, frame, who - FIRST] = value


def in_source(labels: Labels, who: int, look: tuple[int, int, int]) -> None:
    for name, value in zip(SOURCE_LOOK, look, strict=True):
        labels[name][:, who - FIRST] = value


def clone(labels: Labels) -> Labels:
    return {name: value.clone() for name, value in labels.items()}


def metric_of(predicted: Labels, truth: Labels, mask: Tensor | None = None) -> FactScores:
    metric = FactScores(8)
    metric.update(predicted, truth, torch.ones(truth["light"].shape, dtype=torch.bool) if mask is None else mask)
    return metric


def scores(predicted: Labels, truth: Labels, mask: Tensor | None = None) -> dict[str, float]:
    return metric_of(predicted, truth, mask).compute()


def stacked(rows: list[dict[str, np.ndarray]]) -> Labels:
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


@pytest.mark.parametrize("split", ["test", "unseen", "misleading"])
def test_what_is_drawn_is_right_in_every_score(split: str) -> None:
    """The true labels know which guest is which; those that can be read have them from left to right."""
    tales = [ToonSV2(split, 120, num_targets=4).facts(i) for i in range(120)]
    truth, drawn = (stacked([told(tale) for tale in tales]) for told in (labels_of, drawn_labels))
    predicted = {name: value[:, 1:] for name, value in drawn.items()}
    assert (predicted["characters"] != truth["characters"]).any(), "nowhere is the second guest alone"
    metric = FactScores(4)
    metric.update(predicted, truth, torch.ones(120, 4, dtype=torch.bool))
    found, counts = metric.compute(), metric.counts()
    assert {name for name, value in found.items() if value == 0} == {"prop_false", "hat_false"}
    assert set(found.values()) == {0.0, 1.0} and min(counts.values()) > 2, (found, counts)


def test_casts_are_scored_by_their_size_and_by_how_the_caption_tells_them() -> None:
    truth = true_labels(6)
    for who in (LULU, BRUNO):
        show(truth, 1, who)
        show(truth, 2, who)
    truth["cast_known"][0, 2, BRUNO] = truth["cast_known"][0, 3, PIP] = KNOWN_PRONOUN
    truth["cast_known"][0, 4, PIP] = KNOWN_CARRIED
    predicted = clone(truth)
    predicted["characters"][0, 2, LULU] = 0
    predicted["characters"][0, 4, LULU] = 1
    found = scores(predicted, truth)
    assert found["frame_accuracy"] == pytest.approx(4 / 6)
    assert (found["frame_accuracy_1_2"], found["frame_accuracy_3_4"]) == (3 / 4, 1 / 2)
    assert found["frame_accuracy_explicit"] == 1 and found["frame_accuracy_carried"] == 0
    assert found["frame_accuracy_pronoun"] == 1 / 2
    assert found["character_micro_f1"] == pytest.approx(2 * 9 / (2 * 9 + 1 + 1))


def test_each_characters_own_action_counts_where_it_is_told() -> None:
    truth = true_labels(4)
    show(truth, 0, LULU, action=5)
    truth["action_known"][0, 1, PIP] = KNOWN_CARRIED
    truth["action"][0, 3, PIP], truth["action_known"][0, 3, PIP] = -1, UNSAID
    predicted = clone(truth)
    predicted["action"][0, 0, LULU] = 1  # as Pip does
    predicted["characters"][0, 2, PIP] = 0  # missing, so not right
    predicted["action"][0, 3, PIP] = 7
    found = scores(predicted, truth)
    assert (found["action"], found["action_said"], found["action_carried"]) == (2 / 4, 1 / 3, 1)
    assert metric_of(predicted, truth).counts()["action"] == 4


@pytest.mark.parametrize("name", ["hat", "prop"])
def test_hats_and_things_are_scored_by_how_they_are_known(name: str) -> None:
    truth = true_labels(8)
    ways = (SOURCE, KNOWN_SAID, KNOWN_SAID, KNOWN_CARRIED, RETURNED)
    truth[name][0, :5, PIP] = 3
    truth[f"{name}_known"][0, :5, PIP] = torch.tensor(ways)
    truth[f"{name}_known"][0, 5:7, PIP] = KNOWN_SAID  # it is gone
    predicted = clone(truth)
    predicted[name][0, 2, PIP] = 2
    predicted[name][0, 4, PIP] = predicted["characters"][0, 4, PIP] = 0
    predicted[name][0, 5, PIP] = 3  # still there
    predicted["characters"][0, 7, PIP] = 0
    predicted[name][0, 7, LULU] = 1  # read on one who should not be there at all
    found = scores(predicted, truth)
    assert [found[f"{name}_{way}"] for way in ("source", "said", "carried", "returned")] == [1, 0.5, 1, 0]
    assert (found[name], found[f"{name}_none"], found[f"{name}_false"]) == (3 / 5, 1 / 2, 1 / 2)


def test_setting_and_light_are_scored_by_how_they_are_known() -> None:
    truth = true_labels(5)
    truth["setting_known"][0] = torch.tensor([SOURCE, KNOWN_SAID, KNOWN_CARRIED, RETURNED, RETURNED])
    truth["light_known"][0] = torch.tensor([SOURCE, SOURCE, KNOWN_SAID, KNOWN_CARRIED, KNOWN_CARRIED])
    predicted = clone(truth)
    predicted["setting"][0, 2:4] = 0
    predicted["light"][0, 1] = 0
    found = scores(predicted, truth)
    assert [found[f"setting_{way}"] for way in ("source", "said", "carried", "returned")] == [1, 1, 0, 0.5]
    assert [found[f"light_{way}"] for way in ("source", "said", "carried")] == [0.5, 1, 1]
    assert (found["setting"], found["light"]) == (3 / 5, 4 / 5)


def test_looks_count_in_frames_with_the_right_cast_and_stories_with_two_guests_apart() -> None:
    alone, pair = true_labels(3), true_labels(3)
    for frame in range(3):
        show_guest(alone, frame, FIRST, STAR)
        show_guest(pair, frame, FIRST, STAR)
        show_guest(pair, frame, SECOND, CLOUD)
    truth = {name: torch.cat([alone[name], pair[name]]) for name in alone}
    predicted = clone(truth)
    predicted["guest_color"][0, 0, 0] = 0
    predicted["characters"][0, 1, PIP] = 0  # a right look in a wrong cast
    predicted["guest_accessory"][1, 2, 1] = 4
    found = scores(predicted, truth)
    assert found["guest_scored"] == 8 / 9
    assert [found[name] for name in LOOK] == [1, 7 / 8, 7 / 8]
    assert (found["guest_look"], found["guest_look_alone"], found["guest_look_pair"]) == (6 / 8, 1 / 2, 5 / 6)
    assert found["guest_look_joint"] == 6 / 9


def two_guests(*shown: tuple[int, tuple[int, int, int]]) -> tuple[Labels, Labels]:
    """A frame in a story whose source has a star and a cloud; what is read is as true."""
    truth = true_labels(1)
    in_source(truth, FIRST, STAR)
    in_source(truth, SECOND, CLOUD)
    for who, look in shown:
        show_guest(truth, 0, who, look)
    return truth, clone(truth)


def read_guests(labels: Labels, *looks: tuple[int, int, int]) -> None:
    """Read guests of these looks, from left to right; the one at place i does action i + 2."""
    labels["characters"][..., FIRST:] = 0
    labels["action"][..., FIRST:] = -1
    for name in LOOK:
        labels[name][:] = -1
    for place, look in enumerate(looks):
        show_guest(labels, 0, FIRST + place, look)
        labels["action"][:, 0, FIRST + place] = place + 2


def test_a_guest_is_recognised_by_its_look_wherever_it_stands() -> None:
    truth, predicted = two_guests((FIRST, STAR), (SECOND, CLOUD))
    truth["action"][0, 0, FIRST:] = torch.tensor([3, 2])
    read_guests(predicted, CLOUD, STAR)  # in the other order, each with its own action
    assert scores(predicted, truth)["facts_right"] == 1
    mask = torch.ones(1, 1, dtype=torch.bool)
    again = with_guests_of_story(predicted, truth, mask)
    assert again["guest_shape"].tolist() == [[[STAR[0], CLOUD[0]]]] and again["action"][0, 0, SECOND] == 2


def test_the_second_guest_alone_is_the_second_and_the_wrong_one_of_two_is_a_wrong_cast() -> None:
    truth, predicted = two_guests((SECOND, CLOUD))
    read_guests(predicted, CLOUD)
    assert scores(predicted, truth)["frame_accuracy"] == 1
    read_guests(predicted, STAR)
    assert scores(predicted, truth)["frame_accuracy"] == 0
    read_guests(predicted, (0, CLOUD[1], 5))  # one feature of the cloud, none of the star
    found = scores(predicted, truth)
    assert (found["frame_accuracy"], found["guest_color"], found["guest_look"]) == (1, 1, 0)


def test_a_look_that_is_no_guests_is_the_expected_guest_and_a_guest_too_many_is_a_wrong_cast() -> None:
    for expected in ((FIRST, STAR), (SECOND, CLOUD)):
        truth, predicted = two_guests(expected)
        read_guests(predicted, (0, 0, 5))
        assert scores(predicted, truth)["frame_accuracy"] == 1
        read_guests(predicted, CLOUD, STAR)
        assert scores(predicted, truth)["frame_accuracy"] == 0
    truth = true_labels(1)
    show_guest(truth, 0, FIRST, STAR)
    predicted = clone(truth)
    read_guests(predicted, (0, 0, 5))
    assert scores(predicted, truth)["guest_look"] == 0, "the story's only guest, badly drawn"


def test_all_facts_are_right_only_where_each_is() -> None:
    truth, _ = two_guests((FIRST, STAR), (SECOND, CLOUD))
    show(truth, 0, LULU, hat=2, prop=1)
    assert scores(clone(truth), truth)["facts_right"] == 1
    for name, place in (
        ("setting", (0, 0)),
        ("light", (0, 0)),
        ("characters", (0, 0, BRUNO)),
        *((name, (0, 0, LULU)) for name in ("characters", "action", "hat", "prop")),
        *((name, (0, 0, PIP)) for name in ("hat", "prop")),
        *((name, (0, 0, 1)) for name in LOOK),
    ):
        predicted = clone(truth)
        predicted[name][place] = 1 - predicted[name][place].clamp(max=1)
        assert scores(predicted, truth)["facts_right"] == 0, (name, place)
    truth["action"][0, 0, LULU] = -1  # nothing says it
    predicted = clone(truth)
    predicted["action"][0, 0, LULU] = 6
    assert scores(predicted, truth)["facts_right"] == 1


def test_what_a_first_caption_says_against_the_source_is_scored() -> None:
    truth = true_labels(2, num_stories=4)
    show(truth, 0, LULU, hat=2, hat_known=KNOWN_SAID)  # the source does not show her, so nothing is against it
    truth["hat"][:, :, PIP], truth["hat_known"][:, :, PIP] = 3, KNOWN_SAID
    truth["light"][0], truth["light_known"][0] = 2, KNOWN_SAID
    truth["setting_known"][1] = KNOWN_SAID  # said again
    truth["source_prop"][1, PIP], truth["prop_known"][1, :, PIP] = 4, KNOWN_SAID  # said to be gone
    truth["source_hat"][2, PIP] = 3  # said again
    predicted = clone(truth)
    predicted["light"][0] = 1  # as in the source
    predicted["characters"][3, :, PIP] = 0
    metric = metric_of(predicted, truth)
    assert metric.counts()["against_source"] == 5 and metric.compute()["against_source"] == 3 / 5


def test_facts_by_position_and_what_is_kept_of_them_to_the_end() -> None:
    truth = true_labels(8, num_stories=2)
    predicted = clone(truth)
    predicted["light"][0, 7] = predicted["light"][1, 2] = 0
    found = scores(predicted, truth)
    assert [found[f"facts_right_at_{i}"] for i in (2, 3, 4, 8)] == [1, 0.5, 1, 0.5]
    assert found["facts_right"] == 14 / 16 and found["facts_kept"] == 0.5


def test_frames_that_do_not_exist_count_nowhere() -> None:
    truth = true_labels(3, num_stories=2)
    show_guest(truth, 0, FIRST, STAR)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    predicted = clone(truth)
    for labels in (truth, predicted):  # padding
        for value in labels.values():
            if value.dim() > 1 and value.shape[1] == 3:
                value[1, 1:] = 0
    predicted["light"][1, 2] = predicted["characters"][1, 1, LULU] = 1
    metric = metric_of(predicted, truth, mask)
    found = metric.compute()
    assert metric.counts()["frame_accuracy"] == 4 and found["facts_right"] == found["character_micro_f1"] == 1
    assert math.isnan(found["facts_right_at_4"]) and metric.counts()["facts_right_at_3"] == 1
    assert found["guest_look_alone"] == 1 and math.isnan(found["guest_look_pair"])


def test_a_story_that_is_too_long_and_labels_that_are_missing_are_named() -> None:
    truth = true_labels(9)
    with pytest.raises(ValueError, match="9 frames with num_frames=8"):
        scores(truth, truth)
    truth = true_labels(2)
    lacking = {name: value for name, value in truth.items() if name != "light"}
    with pytest.raises(ValueError, match="without light"):
        scores(lacking, truth)
