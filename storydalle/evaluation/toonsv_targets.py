"""Scores that a model of ToonSV 2 must reach, and better ones to aim at, split by split."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from storydalle.evaluation.toon_table import Scores, markdown, number, verdict, with_shares


class SplitTarget(NamedTuple):
    """A score on a split, the value that it must reach, and the one to aim at."""

    name: str
    split: str
    score: str
    at_least: float
    aim: float
    lower_is_better: bool = False


TARGETS = (
    SplitTarget("cast exact, 1 or 2 characters", "test", "frame_accuracy_1_2", 0.95, 0.99),
    SplitTarget("cast exact, 3 or 4 characters", "test", "frame_accuracy_3_4", 0.85, 0.97),
    SplitTarget("each character's own action", "test", "action", 0.90, 0.98),
    SplitTarget("cast exact, pronoun frames", "test", "frame_accuracy_pronoun", 0.90, 0.97),
    SplitTarget("setting carried", "test", "setting_carried", 0.97, 0.99),
    SplitTarget("setting returned to", "test", "setting_returned", 0.90, 0.98),
    SplitTarget("hat said", "test", "hat_said", 0.90, 0.98),
    SplitTarget("hat carried", "test", "hat_carried", 0.80, 0.95),
    SplitTarget("hat after absence", "test", "hat_returned", 0.70, 0.90),
    SplitTarget("false hats, at most", "test", "hat_false", 0.03, 0.01, lower_is_better=True),
    SplitTarget("guest's look, share of the tokenizer's", "test", "guest_look_share", 0.90, 0.97),
    SplitTarget("unseen guest's look, share of the tokenizer's", "unseen", "guest_look_share", 0.80, 0.92),
    SplitTarget("what a caption says against the source", "misleading", "against_source", 0.85, 0.98),
    SplitTarget("all facts, last frame against the fourth", "long50", "facts_kept", 0.85, 0.97),
)


def split_targets_table(rows: Mapping[str, Mapping[str, Scores]], system: str) -> str:
    """Each target on a split that was scored, with what ``rows[split][system]`` measured."""
    lines = []
    for target in TARGETS:
        if target.split in rows:
            value = with_shares(rows[target.split])[system].get(target.score, math.nan)
            told = verdict(value, target.at_least, target.aim, target.lower_is_better)
            bars = (number(target.at_least), number(target.aim), number(value))
            lines.append([target.name, target.split, *bars, told])
    return markdown(["target", "split", "at least", "aim", "measured", ""], lines) if lines else ""
