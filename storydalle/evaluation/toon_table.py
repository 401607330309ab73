"""ToonSV's results as markdown: one row a system, upper limits and baselines first, and a table of targets."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from storydalle.evaluation.ceilings import CEILINGS, RECONSTRUCTION
from storydalle.metrics.declared import GUESTS, SCENE
from storydalle.metrics.toon import Interval, ToonScores

Scores = Mapping[str, float]
Intervals = Mapping[str, Interval]

FEW_SCORED = 0.25  # A look scored on a smaller share of the guest's frames is set in parentheses.

SCENE_COLUMNS, GUEST_COLUMNS = (
    {column.score: column.heading for column in ToonScores.columns if column.table == table}
    for table in (SCENE, GUESTS)
)
SHARES = {"action_share": "action", "guest_look_share": "guest_look"}
CONDITIONAL = ("guest_shape", "guest_color", "guest_accessory", "guest_look", "guest_look_share")


class Target(NamedTuple):
    """The value that a score must reach, and a better one to aim at; unseen looks can have their own value."""

    name: str
    score: str
    at_least: float
    aim: float
    unseen_at_least: float | None = None
    unseen_aim: float | None = None
    lower_is_better: bool = False


TARGETS = {
    "StoryDALLE": (
        Target("character micro F1", "character_micro_f1", 0.93, 0.98),
        Target("exact frame accuracy, explicit frames", "frame_accuracy_explicit", 0.96, 0.99),
        Target("exact frame accuracy, pronoun frames", "frame_accuracy_pronoun", 0.75, 0.95),
        Target("setting from source", "setting_source", 0.97, 0.99),
        Target("setting carried", "setting_carried", 0.95, 0.99),
        Target("tint", "tint", 0.99, 1.0),
        Target("held prop", "prop", 0.99, 1.0),
        Target("action, share of the tokenizer's", "action_share", 0.95, 0.99),
        Target("guest colour", "guest_color", 0.85, 0.97),
        Target("guest's whole look, share of the tokenizer's", "guest_look_share", 0.40, 0.85, 0.25, 0.70),
        Target("carried state", "hat_carried", 0.40, 0.90),
        Target("false hats, at most", "hat_false", 0.10, 0.03, lower_is_better=True),
        Target("probe: other captions on pronoun frames, nats", "probe_captions_pronoun", 10.0, 25.0),
    ),
    "StoryGANc": (
        Target("character micro F1", "character_micro_f1", 0.80, 0.95),
        Target("exact frame accuracy, explicit frames", "frame_accuracy_explicit", 0.60, 0.90),
        Target("setting from source", "setting_source", 0.90, 0.99),
        Target("guest colour", "guest_color", 0.60, 0.90),
        Target("story discriminator: true order against another, AUC", "story_order_auc", 0.80, 0.95),
    ),
}

# The metrics a path is for: without the path the model must lose on one of them, beyond both intervals.
OWN_METRICS = {
    "no source": ("setting_source", "tint", "guest_look_joint"),
    "no story": ("frame_accuracy_pronoun", "setting_carried", "hat_carried"),
    "no attention": ("setting_source", "tint", "guest_look_joint"),
}


def ordered(names: Iterable[str]) -> list[str]:
    """Ceilings first, in their fixed order; the others as given."""
    given = list(names)
    return [name for name in CEILINGS if name in given] + [name for name in given if name not in CEILINGS]


def with_shares(rows: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Rows with shares of the tokenizer's own score, if its row exists."""
    ceiling = rows.get(RECONSTRUCTION, {})
    return {
        row: {share: ratio(scores.get(score), ceiling.get(score)) for share, score in SHARES.items()} | dict(scores)
        for row, scores in rows.items()
    }


def ratio(value: float | None, ceiling: float | None) -> float:
    """A share; nan without an upper limit."""
    return value / ceiling if value is not None and ceiling else math.nan


def number(value: float | None) -> str:
    """``.913``, ``1.000``; a dash if nothing was measured."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}".removeprefix("0") if abs(value) < 10 else f"{value:.1f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table: first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def toon_table(rows: Mapping[str, Scores], intervals: Mapping[str, Intervals] | None = None) -> str:
    """Two tables, who and where, then guests and hats: a line a row, ``.913`` or ``.913 [.90, .93]``.

    ``rows`` maps a system's name to its scores; the names of ``CEILINGS`` come first, whatever their order there.
    """
    shared = with_shares(rows)
    intervals = intervals or {}

    def cell(row: str, score: str) -> str:
        text = number(shared[row].get(score))
        interval = intervals.get(row, {}).get(score)
        if interval is not None and not math.isnan(interval.low):
            text += f" [{number(interval.low)}, {number(interval.high)}]"
        few = score in CONDITIONAL and shared[row].get("guest_scored", 1.0) < FEW_SCORED
        return f"({text})" if few and text != "-" else text

    tables = [
        markdown(["", *columns.values()], ([row, *(cell(row, score) for score in columns)] for row in ordered(rows)))
        for columns in (SCENE_COLUMNS, GUEST_COLUMNS)
    ]
    note = (
        "Guest shape, colour, accessory and look are scored on the guest's frames whose cast and action are right; "
        f"in parentheses where those are under {FEW_SCORED:.0%} of them. *Look, cast and action*: all right, over all "
        "of the guest's frames."
    )
    return "\n\n".join([*tables, note])


def verdict(value: float, at_least: float, aim: float, lower_is_better: bool = False) -> str:
    """A value against its bar, in words."""
    if math.isnan(value):
        return "not measured"
    sign = -1 if lower_is_better else 1
    if sign * value >= sign * aim:
        return "pass, aim met"
    return "pass" if sign * value >= sign * at_least else "FAIL"


def loses_clearly(full: Intervals, ablated: Intervals, score: str) -> bool:
    """True if an ablation's interval is completely below that of the full model."""
    return ablated[score].high < full[score].low


def targets_table(
    rows: Mapping[str, Scores],
    unseen_rows: Mapping[str, Scores] | None,
    system: str,
    targets: Sequence[Target],
) -> str:
    """Each target with its bars and what ``rows[system]`` measured on test, and on unseen looks where given."""
    measured = with_shares(rows)[system]
    unseen = with_shares(unseen_rows)[system] if unseen_rows is not None else {}
    lines = []
    for target in targets:
        value, unseen_value = measured.get(target.score, math.nan), unseen.get(target.score, math.nan)
        bars = [number(target.at_least), number(target.aim)]
        unseen_verdict = "-"
        if target.unseen_at_least is not None and target.unseen_aim is not None:
            bars = [
                f"{bars[0]} ({number(target.unseen_at_least)})",
                f"{bars[1]} ({number(target.unseen_aim)})",
            ]
            unseen_verdict = verdict(unseen_value, target.unseen_at_least, target.unseen_aim, target.lower_is_better)
        test_verdict = verdict(value, target.at_least, target.aim, target.lower_is_better)
        lines.append([target.name, *bars, number(value), test_verdict, number(unseen_value), unseen_verdict])
    return markdown(["target", "at least", "aim", "test", "", "unseen", ""], lines)


def ablation_table(full: Intervals, ablations: Mapping[str, Intervals]) -> str:
    """Each ablation of ``OWN_METRICS`` on its own metrics: both intervals, and if it is clearly worse."""
    lines = []
    for name, intervals in ablations.items():
        for score in OWN_METRICS[name]:
            ends = [f"[{number(low)}, {number(high)}]" for low, high in (full[score], intervals[score])]
            lines.append([name, score, *ends, "yes" if loses_clearly(full, intervals, score) else "NO"])
    return markdown(["ablation", "score", "full", "ablated", "loses clearly"], lines)
