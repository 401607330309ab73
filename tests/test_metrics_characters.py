"""Scores of characters against scikit-learn and against sums by hand, with frames that show no character."""

import math
import warnings

import pytest
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from torch import Tensor

from storydalle.metrics.characters import CharacterScores
from storydalle.metrics.toon import ToonScores

NAMES = ("pororo", "crong", "eddy", "poby")
LETTERS = "pceb"
BY_HAND = (  # who is read in a frame, and who should be there
    [("p", "p"), ("pc", "p"), ("", "")],
    [("", "pe"), ("c", ""), ("pce", "pce")],
)


def multi_hot(letters: str) -> list[int]:
    return [int(letter in letters) for letter in LETTERS]


def by_hand() -> tuple[Tensor, Tensor]:
    """Two stories of three frames; the poby is never read and never there."""
    sides = [torch.tensor([[multi_hot(pair[side]) for pair in story] for story in BY_HAND]) for side in (0, 1)]
    return sides[0], sides[1]


def random_labels(num_stories: int, num_frames: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predicted, true, mask, source: a third of the frames without a character, one label in five read wrong."""
    draw = torch.Generator().manual_seed(seed)
    shape = (num_stories, num_frames, len(NAMES))
    often = torch.tensor([0.6, 0.3, 0.15, 0.05])
    truth = (torch.rand(shape, generator=draw) < often).long()
    truth[torch.rand(shape[:2], generator=draw) < 1 / 3] = 0
    predicted = torch.where(torch.rand(shape, generator=draw) < 0.2, 1 - truth, truth)
    lengths = torch.randint(1, num_frames + 1, (num_stories, 1), generator=draw)
    source = (torch.rand((num_stories, len(NAMES)), generator=draw) < 0.4).long()
    return predicted, truth, torch.arange(num_frames) < lengths, source


def scores(
    predicted: Tensor, truth: Tensor, mask: Tensor | None = None, source: Tensor | None = None
) -> dict[str, float]:
    metric = CharacterScores(NAMES, truth.shape[1])
    metric.update(predicted, truth, torch.ones(truth.shape[:2], dtype=torch.bool) if mask is None else mask, source)
    return metric.compute()


def sklearn_scores(predicted: Tensor, truth: Tensor, **choice: object) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frames without a character
        values = precision_recall_fscore_support(truth.numpy(), predicted.numpy(), **choice)
    return values[0], values[1], values[2]


def test_averages_are_those_of_scikit_learn() -> None:
    predicted, truth, mask, _ = random_labels(40)
    found = scores(predicted, truth, mask)
    read, true = predicted[mask], truth[mask]
    assert (true.sum(1) == 0).any() and ((true + read).sum(1) == 0).any(), "frames without characters take part"
    for average in ("micro", "macro"):
        names = [f"character_{average}_{name}" for name in ("precision", "recall", "f1")]
        assert [found[name] for name in names] == pytest.approx(sklearn_scores(read, true, average=average), abs=1e-12)
    assert found["character_weighted_f1"] == pytest.approx(sklearn_scores(read, true, average="weighted")[2])
    each = sklearn_scores(read, true, average=None)[2]
    assert [found[f"character_f1_{name}"] for name in NAMES] == pytest.approx(each)
    assert found["frame_accuracy"] == pytest.approx(accuracy_score(true.numpy(), read.numpy()))


def test_scores_by_number_and_position_are_those_of_scikit_learn_on_these_frames() -> None:
    predicted, truth, mask, _ = random_labels(60)
    found = scores(predicted, truth, mask)
    numbers = truth.sum(-1)
    groups = {"0": numbers == 0, "1": numbers == 1, "2": numbers == 2, "3+": numbers >= 3}
    groups |= {f"at_{i + 1}": (torch.arange(5) == i).expand_as(mask) for i in range(5)}
    for name, group in groups.items():
        read, true = predicted[mask & group], truth[mask & group]
        assert found[f"frame_accuracy_{name}"] == pytest.approx(accuracy_score(true.numpy(), read.numpy()))
        if name != "0":
            micro = sklearn_scores(read, true, average="micro")[2]
            assert found[f"character_micro_f1_{name}"] == pytest.approx(micro)
    assert "character_micro_f1_0" not in found


def test_scores_of_a_confusion_are_those_counted_by_hand() -> None:
    found = scores(*by_hand())
    # pororo: 3 found, 3 read, 4 true; crong: 1, 3, 1; eddy: 1, 1, 2; poby never.
    assert found["character_micro_f1"] == pytest.approx(2 * 5 / (7 + 7))
    assert found["character_micro_precision"] == found["character_micro_recall"] == pytest.approx(5 / 7)
    assert found["character_macro_f1"] == pytest.approx((6 / 7 + 2 / 4 + 2 / 3) / 3), "who never occurs is left out"
    assert found["character_macro_precision"] == pytest.approx((3 / 3 + 1 / 3 + 1 / 1) / 3)
    assert found["character_macro_recall"] == pytest.approx((3 / 4 + 1 / 1 + 1 / 2) / 3)
    assert found["character_weighted_f1"] == pytest.approx((4 * 6 / 7 + 1 * 2 / 4 + 2 * 2 / 3) / 7)
    assert found["frame_accuracy"] == pytest.approx(3 / 6)
    assert found["story_accuracy"] == 0
    assert [found[f"frame_accuracy_{number}"] for number in ("0", "1", "2", "3+")] == [1 / 2, 1 / 2, 0, 1]
    assert [found[f"frame_accuracy_at_{i}"] for i in (1, 2, 3)] == [1 / 2, 0, 1]
    assert [found[f"character_micro_f1_at_{i}"] for i in (1, 2, 3)] == pytest.approx([2 / 4, 2 / 4, 1])


def test_macro_counts_a_missed_character_as_zero_as_scikit_learn_does() -> None:
    truth = torch.tensor([[[1, 0, 0, 0], [0, 1, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 0, 0], [0, 0, 1, 0]]])  # crong is never read, eddy never there
    found = scores(predicted, truth)
    expected = sklearn_scores(predicted[0], truth[0], average="macro", labels=[0, 1, 2], zero_division=0)
    names = [f"character_macro_{name}" for name in ("precision", "recall", "f1")]
    assert list(expected) == pytest.approx([1 / 3] * 3)
    assert [found[name] for name in names] == pytest.approx(expected)


def test_a_story_is_right_only_where_all_its_frames_are() -> None:
    truth = torch.ones(4, 3, 4, dtype=torch.long)
    predicted = truth.clone()
    predicted[1, 2, 0] = predicted[2, 0, 3] = 0
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 0]]) > 0
    assert scores(predicted, truth, mask)["story_accuracy"] == pytest.approx(2 / 3), "two of three stories with frames"


def test_a_collapse_onto_the_source_shows_as_recall_in_it_and_none_beside_it() -> None:
    _, truth, mask, source = random_labels(30)
    copied = source[:, None].expand_as(truth)
    found = scores(copied, truth, mask, source)
    true_in_source = (truth * copied)[mask]
    assert found["character_recall_in_source"] == 1
    assert found["character_recall_not_in_source"] == 0
    assert found["character_micro_f1_not_in_source"] == 0
    assert found["character_precision_in_source"] == pytest.approx(true_in_source.sum().item() / copied[mask].sum())
    assert math.isnan(found["character_precision_not_in_source"]), "no one else is ever read"


def test_in_source_and_not_in_source_divide_the_characters_by_hand() -> None:
    predicted, truth = by_hand()
    source = torch.tensor([multi_hot("p"), multi_hot("c")])
    found = scores(predicted, truth, source=source)
    # In the source: pororo of the first story (2 found, 2 read, 2 true), crong of the second (1, 2, 1).
    assert found["character_recall_in_source"] == pytest.approx(3 / 3)
    assert found["character_precision_in_source"] == pytest.approx(3 / 4)
    assert found["character_micro_f1_in_source"] == pytest.approx(6 / 7)
    # Not in it: crong of the first (0, 1, 0), pororo and eddy of the second (1, 1, 2 and 1, 1, 2).
    assert found["character_recall_not_in_source"] == pytest.approx(2 / 4)
    assert found["character_precision_not_in_source"] == pytest.approx(2 / 3)
    assert found["character_micro_f1_not_in_source"] == pytest.approx(4 / 7)


def test_stories_without_a_known_source_count_for_neither_side() -> None:
    predicted, truth, mask, source = random_labels(20)
    metric = CharacterScores(NAMES, 5)
    metric.update(predicted[:10], truth[:10], mask[:10], source[:10])
    metric.update(predicted[10:], truth[10:], mask[10:])
    first = scores(predicted[:10], truth[:10], mask[:10], source[:10])
    found = metric.compute()
    for name in ("character_recall_in_source", "character_recall_not_in_source", "character_micro_f1_in_source"):
        assert found[name] == first[name]
    assert found["character_micro_f1"] == scores(predicted, truth, mask)["character_micro_f1"]
    assert math.isnan(scores(predicted, truth, mask)["character_recall_in_source"])


def test_a_drift_that_is_built_in_is_read_by_position() -> None:
    truth = torch.ones(10, 4, 4, dtype=torch.long)
    predicted = torch.ones(10, 4, 4, dtype=torch.long)
    for position in range(4):
        predicted[: 2 * position, position] = 0  # 0, 2, 4, 6 of ten stories
    found = scores(predicted, truth)
    assert [found[f"frame_accuracy_at_{i}"] for i in (1, 2, 3, 4)] == [1, 0.8, 0.6, 0.4]
    expected = [2 * right / (right + 10) for right in (10, 8, 6, 4)]
    assert [found[f"character_micro_f1_at_{i}"] for i in (1, 2, 3, 4)] == pytest.approx(expected)


def test_nothing_to_find_is_nan_and_an_empty_frame_read_as_empty_is_right() -> None:
    nothing = torch.zeros(1, 2, 4, dtype=torch.long)
    found = scores(nothing, nothing)
    right = {name for name, value in found.items() if value == 1}
    assert right == {
        "frame_accuracy",
        "story_accuracy",
        "frame_accuracy_0",
        "frame_accuracy_at_1",
        "frame_accuracy_at_2",
    }
    assert all(math.isnan(value) for name, value in found.items() if name not in right)


def test_what_the_mask_leaves_out_changes_nothing() -> None:
    predicted, truth, mask, source = random_labels(20)
    before = scores(predicted, truth, mask, source)
    predicted, truth = torch.where(mask[..., None], predicted, 1), torch.where(mask[..., None], truth, 1)
    assert scores(predicted, truth, mask, source) == pytest.approx(before, nan_ok=True)


def test_scores_depend_neither_on_order_nor_on_batches() -> None:
    predicted, truth, mask, source = random_labels(20)
    ids = [f"story {i}" for i in range(20)]
    whole, parts = CharacterScores(NAMES, 5), CharacterScores(NAMES, 5)
    whole.update(predicted, truth, mask, source, ids)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    for part in order.split(7):
        width = int(mask[part].sum(1).max())  # each batch is padded to its own longest story
        named = [ids[i] for i in part.tolist()]
        parts.update(predicted[part, :width], truth[part, :width], mask[part, :width], source[part], named)
    assert parts.compute() == pytest.approx(whole.compute(), nan_ok=True, abs=0)
    assert str(parts.compute_intervals(50)) == str(whole.compute_intervals(50))
    assert set(whole.compute()) == set(whole.names) == set(whole.compute_intervals(2))


def test_f1_and_accuracy_are_those_that_toon_scores_gives() -> None:
    draw = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randint(2, (12, 3, 10), generator=draw) for _ in range(2))
    truth[..., 7] = predicted[..., 7] = 0
    mask = torch.rand(12, 3, generator=draw) < 0.8
    rest = {name: torch.zeros(12, 3, dtype=torch.long) for name in ("setting", "tint", "action", "prop", "guest")}
    rest |= {name: torch.zeros(12, 3, dtype=torch.long) for name in ("guest_shape", "guest_color", "guest_accessory")}
    rest |= {name: torch.zeros(12, 3, dtype=torch.long) for name in ("cast_known", "setting_known")}
    rest |= {name: torch.zeros(12, 3, 10, dtype=torch.long) for name in ("hat", "hat_known")}
    toon = ToonScores()
    toon.update(rest | {"characters": predicted}, rest | {"characters": truth}, mask)
    metric = CharacterScores([str(i) for i in range(10)], 3)  # names that are numbers are no group's
    metric.update(predicted, truth, mask)
    theirs, ours = toon.compute(), metric.compute()
    for name in ("character_micro_f1", "character_macro_f1", "frame_accuracy"):
        assert ours[name] == pytest.approx(theirs[name])
    assert ours["character_f1_0"] != pytest.approx(ours["frame_accuracy_0"], nan_ok=True)


def test_counts_say_what_each_score_stands_on() -> None:
    metric = CharacterScores(NAMES, 3)
    predicted, truth = by_hand()
    metric.update(predicted, truth, torch.ones(2, 3, dtype=torch.bool))
    counts = metric.counts()
    assert (counts["stories"], counts["frame_accuracy"], counts["story_accuracy"]) == (2, 6, 2)
    assert [counts[f"frame_accuracy_{number}"] for number in ("0", "1", "2", "3+")] == [2, 2, 1, 1]
    assert [counts[f"character_f1_{name}"] for name in NAMES] == [4, 1, 2, 0]


def test_labels_that_fit_no_story_are_refused() -> None:
    metric = CharacterScores(NAMES, 3)
    labels, mask = torch.zeros(1, 3, 4, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="num_frames=3: raise"):
        metric.update(labels.repeat(1, 2, 1), labels.repeat(1, 2, 1), mask.repeat(1, 2))
    with pytest.raises(ValueError, match="predicted has labels of 3 characters and 4 are named: pororo"):
        metric.update(labels[..., :3], labels[..., :3], mask)
    with pytest.raises(ValueError, match="predicted holds 0 to 2"):
        metric.update(labels + torch.tensor([0, 0, 1, 2]), labels, mask)
    with pytest.raises(ValueError, match="own name"):
        CharacterScores(("pororo", "pororo"), 3)
    with pytest.raises(ValueError, match="num_frames=0"):
        CharacterScores(NAMES, 0)
