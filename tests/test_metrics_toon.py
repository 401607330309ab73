"""ToonSV's scores on confusions made by hand, with results computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from storydalle.metrics.toon import (
    CARRIED,
    FROM_SOURCE,
    HAT_CARRIED,
    HAT_SAID,
    PRONOUN,
    READ_LABELS,
    SAID,
    TRUE_LABELS,
    ToonScores,
)
from storydalle.stories.toon import ToonSV
from tests.test_metrics_story_rows import gather_with

BEAR, CAT, GUEST = 0, 1, 9


def true_labels(num_stories: int, num_frames: int = 1) -> dict[str, Tensor]:
    """Frames with the bear alone in setting 1, tint 1, action 1, holding nothing."""
    shape = (num_stories, num_frames)
    labels = {name: torch.ones(shape, dtype=torch.long) for name in ("setting", "tint", "action")}
    labels |= {name: torch.zeros(shape, dtype=torch.long) for name in ("prop", "guest", "cast_known", "setting_known")}
    labels |= {name: torch.full(shape, -1) for name in ("guest_shape", "guest_color", "guest_accessory")}
    labels |= {name: torch.zeros(*shape, 10, dtype=torch.long) for name in ("characters", "hat", "hat_known")}
    labels["characters"][..., BEAR] = 1
    return labels


def add_guest(labels: dict[str, Tensor], where: tuple[int, int], look: tuple[int, int, int] = (2, 3, 4)) -> None:
    labels["guest"][where] = labels["characters"][where][GUEST] = 1
    for name, value in zip(("guest_shape", "guest_color", "guest_accessory"), look, strict=True):
        labels[name][where] = value


def clone(labels: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in labels.items()}


def scores(predicted: dict[str, Tensor], truth: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, float]:
    metric = ToonScores()
    metric.update(predicted, truth, torch.ones(truth["tint"].shape, dtype=torch.bool) if mask is None else mask)
    return metric.compute()


def random_pair(num_stories: int, num_frames: int = 3, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Labels at random, read with one error in five."""
    draw = torch.Generator().manual_seed(seed)
    shape = (num_stories, num_frames)

    def choice(num: int, *more: int) -> Tensor:
        return torch.randint(num, (*shape, *more), generator=draw)

    truth = true_labels(*shape)
    truth |= {"setting": choice(3), "action": choice(3), "prop": choice(3), "tint": choice(3)}
    truth |= {"cast_known": choice(2), "setting_known": choice(3)}
    truth["characters"] = choice(2, 10)
    truth["guest"] = truth["characters"][..., GUEST]
    for name in ("guest_shape", "guest_color", "guest_accessory"):
        truth[name] = torch.where(truth["guest"] > 0, choice(2), -1)
    truth["hat"] = choice(3, 10) * truth["characters"]
    truth["hat_known"] = (1 + choice(2, 10)) * (truth["hat"] > 0)
    predicted = {
        name: torch.where(torch.rand(value.shape, generator=draw) < 0.8, value, (value + 1).clamp(max=1))
        for name, value in truth.items()
    }
    return predicted, truth


def test_right_readings_score_one_and_false_rates_zero() -> None:
    _, truth = random_pair(20)
    assert set(scores(truth, truth).values()) == {0.0, 1.0}
    assert {name for name, value in scores(truth, truth).items() if value == 0} == {"prop_false", "hat_false"}


def test_character_f1_is_that_of_a_confusion_by_hand() -> None:
    truth = true_labels(1, 4)
    truth["characters"][0, 3, CAT] = 1
    predicted = clone(truth)
    predicted["characters"][0, 0] = 0  # the bear is missed
    predicted["characters"][0, 1, CAT] = 1  # a false cat
    result = scores(predicted, truth)
    bear, cat = 2 * 3 / (2 * 3 + 0 + 1), 2 * 1 / (2 * 1 + 1 + 0)
    assert result["character_micro_f1"] == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))
    assert result["character_macro_f1"] == pytest.approx((bear + cat) / 2), "absent characters are left out"
    assert result["frame_accuracy"] == pytest.approx(2 / 4)


def test_frame_accuracy_tells_explicit_frames_from_pronouns() -> None:
    truth = true_labels(1, 5)
    truth["cast_known"][0, 3:] = PRONOUN
    predicted = clone(truth)
    predicted["characters"][0, 0, CAT] = predicted["characters"][0, 4, CAT] = 1
    result = scores(predicted, truth)
    assert result["frame_accuracy_explicit"] == pytest.approx(2 / 3)
    assert result["frame_accuracy_pronoun"] == pytest.approx(1 / 2)


def test_setting_is_scored_by_how_it_is_known() -> None:
    truth = true_labels(1, 6)
    truth["setting_known"][0] = torch.tensor([FROM_SOURCE, FROM_SOURCE, FROM_SOURCE, SAID, CARRIED, CARRIED])
    predicted = clone(truth)
    predicted["setting"][0, [0, 4, 5]] = 7
    result = scores(predicted, truth)
    assert result["setting_source"] == pytest.approx(2 / 3)
    assert (result["setting_said"], result["setting_carried"], result["setting"]) == (1, 0, 0.5)


def test_tint_action_and_prop_scores_are_those_counted_by_hand() -> None:
    truth = true_labels(1, 4)
    truth["prop"][0] = torch.tensor([2, 2, 0, 0])
    predicted = clone(truth)
    predicted["tint"][0, 0] = 2
    predicted["action"][0, :3] = 5
    predicted["prop"][0] = torch.tensor([2, 0, 0, 6])
    result = scores(predicted, truth)
    assert (result["tint"], result["action"]) == (0.75, 0.25)
    assert (result["prop"], result["prop_false"]) == (0.5, 0.5), "held props and bare hands are counted apart"


def test_guest_looks_count_only_with_the_right_cast_and_action() -> None:
    truth = true_labels(1, 6)
    for frame in range(5):
        add_guest(truth, (0, frame))
    predicted = clone(truth)
    predicted["characters"][0, 0, BEAR] = 0  # cast wrong, look right
    predicted["action"][0, 1] = 6  # action wrong
    predicted["guest_color"][0, [1, 2]] = 0  # colour wrong, in a frame that counts and in one that does not
    result = scores(predicted, truth)
    assert result["guest_scored"] == pytest.approx(3 / 5)
    assert [result[name] for name in ("guest_shape", "guest_color", "guest_look")] == pytest.approx([1, 2 / 3, 2 / 3])
    names = ("guest_shape_any", "guest_color_any", "guest_accessory_any", "guest_look_any")
    assert [result[name] for name in names] == pytest.approx([1, 3 / 5, 1, 3 / 5])
    assert result["guest_look_joint"] == pytest.approx(2 / 5)


def test_a_look_that_mixes_two_guests_is_not_a_right_look() -> None:
    truth = true_labels(1, 2)
    add_guest(truth, (0, 0))
    add_guest(truth, (0, 1))
    predicted = clone(truth)
    predicted["guest_shape"][0, 0] = predicted["guest_accessory"][0, 1] = 0
    result = scores(predicted, truth)
    assert (result["guest_shape"], result["guest_accessory"], result["guest_color"]) == (0.5, 0.5, 1)
    assert result["guest_look"] == 0


def test_copying_the_source_does_not_win_the_guests_look() -> None:
    """The source shows the guest alone, action 1; only one of four targets asks for just that."""
    truth = true_labels(1, 4)
    for frame in range(4):
        add_guest(truth, (0, frame))
    truth["characters"][0, 0, BEAR] = truth["characters"][0, 1, BEAR] = 0
    truth["action"][0, 1] = 4
    copied = clone(truth)
    copied["characters"][..., BEAR] = 0
    copied["action"][:] = 1
    result = scores(copied, truth)
    assert result["guest_look_any"] == 1, "unconditional scores are fooled"
    assert result["guest_scored"] == 0.25
    assert result["guest_look_joint"] == 0.25


def test_hats_said_and_carried_are_counted_apart_and_need_the_character() -> None:
    truth = true_labels(1, 5)
    truth["hat"][0, :, BEAR] = torch.tensor([3, 3, 3, 3, 0])
    truth["hat_known"][0, :, BEAR] = torch.tensor([HAT_SAID, HAT_CARRIED, HAT_CARRIED, HAT_CARRIED, 0])
    predicted = clone(truth)
    predicted["hat"][0, 1, BEAR] = 2  # the wrong colour
    predicted["characters"][0, 2, BEAR] = 0  # nobody there to wear it
    result = scores(predicted, truth)
    assert result["hat_said"] == 1
    assert result["hat_carried"] == pytest.approx(1 / 3)
    assert result["hat_carried_if_present"] == pytest.approx(1 / 2)


def test_false_hats_are_counted_on_bare_heads_that_are_there_and_should_be() -> None:
    truth = true_labels(1, 4)
    truth["hat"][0, 0, BEAR], truth["hat_known"][0, 0, BEAR] = 1, HAT_SAID
    predicted = clone(truth)
    predicted["hat"][0, 0, BEAR] = 2  # a wrong colour is no false hat
    predicted["hat"][0, 1, BEAR] = 4  # false
    predicted["characters"][0, 2, BEAR] = 0  # not there
    predicted["characters"][0, 3, CAT] = predicted["hat"][0, 3, CAT] = 1  # the cat should not be there
    assert scores(predicted, truth)["hat_false"] == pytest.approx(1 / 2)


def test_scores_without_an_item_are_nan_and_never_zero() -> None:
    truth = true_labels(2, 2)
    result = scores(truth, truth)
    absent = {name for name in result if name.startswith(("guest_", "hat_said", "hat_carried"))}
    absent |= {"frame_accuracy_pronoun", "setting_said", "setting_carried", "prop"}
    assert {name for name, value in result.items() if math.isnan(value)} == absent


def test_stories_without_an_item_do_not_dilute_the_others() -> None:
    truth = true_labels(50)
    add_guest(truth, (7, 0))
    assert scores(truth, truth)["guest_look"] == 1


def test_masked_frames_change_nothing() -> None:
    predicted, truth = random_pair(6, 4)
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    expected = scores(predicted, truth, mask)
    for labels in (predicted, truth):
        for value in labels.values():
            value[~mask] = 0
    assert scores(predicted, truth, mask) == pytest.approx(expected, nan_ok=True)
    assert expected != pytest.approx(scores(predicted, truth), nan_ok=True)


@pytest.mark.parametrize("batch_size", [1, 3, 11])
def test_scores_and_intervals_do_not_depend_on_batches_or_their_order(batch_size: int) -> None:
    predicted, truth = random_pair(11)
    mask = torch.ones(11, 3, dtype=torch.bool)
    whole, parts = ToonScores(), ToonScores()
    whole.update(predicted, truth, mask)
    for rows in torch.randperm(11, generator=torch.Generator().manual_seed(batch_size)).split(batch_size):
        parts.update(
            {name: value[rows] for name, value in predicted.items()},
            {name: value[rows] for name, value in truth.items()},
            mask[rows],
        )
    assert parts.compute() == whole.compute()
    assert parts.compute_intervals(100) == whole.compute_intervals(100)
    assert parts.counts() == whole.counts()


def test_processes_gather_to_the_whole() -> None:
    predicted, truth = random_pair(4)
    mask = torch.ones(4, 3, dtype=torch.bool)
    whole, *parts = (ToonScores() for _ in range(3))
    whole.update(predicted, truth, mask)
    for part, rows in zip(parts, (slice(3, 4), slice(0, 3)), strict=True):
        labels = ({name: value[rows] for name, value in each.items()} for each in (predicted, truth))
        part.update(*labels, mask[rows])
    gather_with(*parts)
    assert parts[0].compute() == whole.compute() != parts[1].compute()


def test_intervals_hold_the_score_and_shrink_with_more_stories() -> None:
    widths = []
    for num_stories in (20, 500):
        predicted, truth = random_pair(num_stories)
        metric = ToonScores()
        metric.update(predicted, truth, torch.ones(num_stories, 3, dtype=torch.bool))
        intervals = metric.compute_intervals()
        for name, value in metric.compute().items():
            assert intervals[name].low <= value <= intervals[name].high, name
        widths.append(intervals["action"].high - intervals["action"].low)
    assert widths[1] < widths[0] / 3


def test_the_interval_of_a_share_of_stories_is_the_binomial_one() -> None:
    truth = true_labels(400)
    predicted = clone(truth)
    predicted["action"][:100] = 0
    metric = ToonScores()
    metric.update(predicted, truth, torch.ones(400, 1, dtype=torch.bool))
    low, high = metric.compute_intervals()["action"]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.005)


def test_intervals_resample_stories_and_not_frames() -> None:
    """Ten frames that stand or fall together are one observation: their interval is that of single frames."""
    widths = []
    for num_frames in (1, 10):
        truth = true_labels(100, num_frames)
        predicted = clone(truth)
        predicted["tint"][:50] = 0
        metric = ToonScores()
        metric.update(predicted, truth, torch.ones(100, num_frames, dtype=torch.bool))
        low, high = metric.compute_intervals()["tint"]
        widths.append(high - low)
    assert widths[0] == widths[1]


def test_intervals_repeat_with_their_seed() -> None:
    predicted, truth = random_pair(30)
    metric = ToonScores()
    metric.update(predicted, truth, torch.ones(30, 3, dtype=torch.bool))
    assert metric.compute_intervals(seed=3) == metric.compute_intervals(seed=3)
    assert metric.compute_intervals(seed=3) != metric.compute_intervals(seed=4)


def test_counts_name_what_each_score_stands_on() -> None:
    truth = true_labels(3, 2)
    add_guest(truth, (0, 1))
    metric = ToonScores()
    metric.update(truth, truth, torch.tensor([[True, True], [True, False], [True, True]]))
    counts = metric.counts()
    assert (counts["stories"], counts["frame_accuracy"], counts["guest_look_any"], counts["hat_said"]) == (3, 5, 1, 0)


def test_missing_labels_and_foreign_shapes_are_named() -> None:
    truth, mask = true_labels(1, 2), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="without tint"):
        ToonScores().update({name: value for name, value in truth.items() if name != "tint"}, truth, mask)
    with pytest.raises(ValueError, match="'characters'"):
        ToonScores().update(truth | {"characters": truth["characters"][:, :1]}, truth, mask)
    with pytest.raises(ValueError, match="call update first"):
        ToonScores().compute_intervals()


def test_copying_the_source_of_toonsv_wins_only_what_the_source_tells() -> None:
    """ToonSV's own labels, as if every frame were the source: right on few guest frames, blind to what changes."""
    stories = ToonSV("test", 100)
    labels = [stories.outline(i).labels for i in range(len(stories))]
    truth = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in TRUE_LABELS}
    source = {name: torch.from_numpy(np.stack([label[f"source_{name}"] for label in labels])) for name in READ_LABELS}
    result = scores({name: value[:, None].expand_as(truth[name]) for name, value in source.items()}, truth)
    assert result["setting_source"] == result["tint"] == 1
    assert result["setting_said"] == result["setting_carried"] == result["hat_said"] == result["hat_carried"] == 0
    assert result["guest_look_any"] == 1 and result["guest_look_joint"] == result["guest_scored"] < 0.15
