"""ToonSV's tables say what was measured, ceilings first."""

import math

import pytest
import torch

from storydalle.evaluation.toon_table import (
    GUEST_COLUMNS,
    OWN_METRICS,
    SCENE_COLUMNS,
    SHARES,
    TARGETS,
    ablation_table,
    loses_clearly,
    number,
    ordered,
    targets_table,
    toon_table,
    verdict,
)
from storydalle.metrics.toon import Interval, ToonScores

TOKENIZER = {"action": 0.96, "guest_look": 0.9, "guest_scored": 0.95}
OURS = {"action": 0.912, "guest_look": 0.45, "guest_scored": 0.8, "hat_false": 0.05, "hat_carried": 0.2, "tint": 1.0}


def cells(table: str, row: str) -> dict[str, str]:
    """The cells of a row in the first markdown table that has it."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    place = next(i for i, line in enumerate(lines) if line[0] == row)
    header = next(i for i in range(place, -1, -1) if lines[i][0] == "---") - 1
    return dict(zip(lines[header], lines[place], strict=True))


def test_ceilings_come_first_whatever_the_order_given() -> None:
    ceilings = ["real frames", "tokenizer reconstruction", "copy the source", "text-to-image alone"]
    assert ordered(["ours", *reversed(ceilings), "no story"]) == [*ceilings, "ours", "no story"]


def test_every_score_of_the_tables_and_targets_is_one_that_is_computed() -> None:
    known = {
        "character_micro_f1",
        "character_macro_f1",
        *ToonScores.names,
        *SHARES,
        "probe_captions_pronoun",
        "story_order_auc",
    }
    used = [
        *SCENE_COLUMNS,
        *GUEST_COLUMNS,
        *SHARES.values(),
        *(target.score for each in TARGETS.values() for target in each),
    ]
    used += [score for scores in OWN_METRICS.values() for score in scores]
    assert set(used) <= known


def test_shares_are_of_the_tokenizers_own_score() -> None:
    table = toon_table({"ours": OURS, "tokenizer reconstruction": TOKENIZER})
    scene, guest = table.split("\n\n")[:2]
    assert cells(scene, "ours")["action"] == ".912"
    assert cells(scene, "ours")["share of tokenizer"] == ".950"
    assert cells(guest, "ours")["share of tokenizer"] == ".500"
    assert cells(guest, "tokenizer reconstruction")["share of tokenizer"] == "1.000"


def test_a_share_without_a_tokenizer_row_is_a_dash() -> None:
    assert cells(toon_table({"ours": OURS}), "ours")["share of tokenizer"] == "-"


def test_intervals_stand_beside_their_score() -> None:
    table = toon_table({"ours": OURS}, {"ours": {"tint": Interval(0.98, 1.0), "prop": Interval(math.nan, math.nan)}})
    assert cells(table, "ours")["tint"] == "1.000 [.980, 1.000]" and cells(table, "ours")["prop held"] == "-"


def test_a_look_scored_on_few_of_the_guests_frames_is_in_parentheses() -> None:
    rows = {"copy the source": {"guest_look": 1.0, "guest_scored": 0.07}, "ours": OURS}
    guest = toon_table(rows).split("\n\n")[1]
    assert cells(guest, "copy the source")["look"] == "(1.000)" and cells(guest, "ours")["look"] == ".450"


@pytest.mark.parametrize(
    ("value", "text"), [(0.9134, ".913"), (1.0, "1.000"), (0.0, ".000"), (math.nan, "-"), (None, "-"), (19.12, "19.1")]
)
def test_a_score_is_written_with_three_digits_and_a_missing_one_as_a_dash(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "lower_is_better", "text"),
    [(0.96, False, "pass, aim met"), (0.9, False, "pass"), (0.899, False, "FAIL"), (math.nan, False, "not measured")],
)
def test_a_score_passes_at_its_bar_and_fails_below_it(value: float, lower_is_better: bool, text: str) -> None:
    assert verdict(value, 0.9, 0.95, lower_is_better) == text


def test_false_hats_pass_from_above() -> None:
    assert [verdict(v, 0.10, 0.03, True) for v in (0.02, 0.1, 0.11)] == ["pass, aim met", "pass", "FAIL"]


def test_targets_are_judged_on_test_and_where_they_say_so_on_unseen() -> None:
    test = {"ours": OURS, "tokenizer reconstruction": TOKENIZER}
    unseen = {"ours": OURS | {"guest_look": 0.2}, "tokenizer reconstruction": TOKENIZER | {"guest_look": 0.8}}
    lines = [
        line for line in targets_table(test, unseen, "ours", TARGETS["StoryDALLE"]).splitlines() if "whole look" in line
    ]
    assert lines == [
        "| guest's whole look, share of the tokenizer's | .400 (.250) | .850 (.700) | .500 | pass | .250 | pass |"
    ]
    table = targets_table(test, None, "ours", TARGETS["StoryDALLE"])
    assert "| carried state | .400 | .900 | .200 | FAIL | - | - |" in table
    assert "| false hats, at most | .100 | .030 | .050 | pass | - | - |" in table
    assert "| character micro F1 | .930 | .980 | - | not measured | - | - |" in table


def test_every_target_of_a_kind_has_a_line_of_the_table() -> None:
    for kind, count in (("StoryDALLE", 13), ("StoryGANc", 5)):
        assert len(targets_table({"ours": OURS}, None, "ours", TARGETS[kind]).splitlines()) == 2 + count


def test_an_ablation_loses_clearly_only_beyond_both_intervals() -> None:
    full = {"tint": Interval(0.9, 1.0)}
    assert loses_clearly(full, {"tint": Interval(0.3, 0.5)}, "tint")
    assert not loses_clearly(full, {"tint": Interval(0.7, 0.91)}, "tint")


def test_the_ablation_table_lists_a_paths_own_metrics() -> None:
    full = {score: Interval(0.9, 1.0) for scores in OWN_METRICS.values() for score in scores}
    ablated = full | {"tint": Interval(0.3, 0.4)}
    lines = ablation_table(full, {"no source": ablated}).splitlines()
    assert "| no source | tint | [.900, 1.000] | [.300, .400] | yes |" in lines
    assert [line.endswith("NO |") for line in lines[2:]] == [True, False, True]


def test_a_table_takes_the_scores_as_computed() -> None:
    labels = {name: torch.zeros(2, 1, dtype=torch.long) for name in ("setting", "tint", "action", "prop", "guest")}
    labels |= {name: torch.full((2, 1), -1) for name in ("guest_shape", "guest_color", "guest_accessory")}
    labels |= {name: torch.zeros(2, 1, 10, dtype=torch.long) for name in ("characters", "hat", "hat_known")}
    labels |= {name: torch.zeros(2, 1, dtype=torch.long) for name in ("cast_known", "setting_known")}
    metric = ToonScores()
    metric.update(labels, labels, torch.ones(2, 1, dtype=torch.bool))
    table = toon_table({"real frames": metric.compute()}, {"real frames": metric.compute_intervals()})
    assert cells(table, "real frames")["tint"] == "1.000 [1.000, 1.000]" and "nan" not in table
