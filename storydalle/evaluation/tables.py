"""Scores as markdown: a line a row, a column a score, only those that were measured."""

from collections.abc import Mapping, Sequence

from storydalle.evaluation.toon_table import markdown, number, ordered
from storydalle.metrics.resampling import Interval

Rows = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Interval]]

PICTURES = {
    "fid": "FID",
    "kid": "KID",
    "fsd": "story FD",
    "toon_fd": "toon-FD",
    "toon_kd": "toon-KD",
    "toon_fsd": "toon story FD",
    "layout_fd": "layout-FD",
    "layout_kd": "layout-KD",
    "layout_fsd": "layout story FD",
    "r_precision": "R-precision",
    "clip_t": "CLIP-T",
    "clip_t_chance": "chance",
    "error": "error",
    "change": "change",
    "copied": "nearer to source",
    "nats": "nats",
    "story_order_auc": "story order",
}
CONTINUATION = {
    "copy_rate": "copy rate",
    "copy_rate_chance": "chance",
    "consistency_self": "alike: frames",
    "consistency_self_chance": "chance",
    "consistency_source": "to source",
    "consistency_source_chance": "chance",
}
CHARACTERS = {
    "character_micro_f1": "micro F1",
    "character_macro_f1": "macro F1",
    "character_micro_precision": "precision",
    "character_micro_recall": "recall",
    "frame_accuracy": "frames exact",
    "story_accuracy": "stories exact",
    "frame_accuracy_0": "0 of them",
    "frame_accuracy_1": "1",
    "frame_accuracy_2": "2",
    "frame_accuracy_3+": "3+",
    "character_recall_in_source": "recall, in source",
    "character_precision_in_source": "precision",
    "character_recall_not_in_source": "recall, not in source",
    "character_precision_not_in_source": "precision",
}
TITLES = {"Characters": CHARACTERS, "Pictures": PICTURES, "Continuation": CONTINUATION}
LEGENDS = {
    "Pictures": "*FD* and *KD*: Fréchet and kernel distance to the true frames, on the features that their name says; "
    "*error*: mean absolute difference to the true frame, *change*: to the source, of 1 between black and white; "
    "*nearer to source*: share of frames nearer to the source than to the true frame; *nats*: loss of the true frames, "
    "*story order*: AUC of a story discriminator for true stories against reordered ones, each only of models that "
    "have it.",
    "Continuation": "*Copy rate*: share of textured patches found in the source; *alike*: cosine of features, among a "
    "story's frames and to its source. *Chance* is the same with another story's.",
    "Characters": "*n of them*: frames with so many characters.",
}


def score_table(rows: Rows, columns: Mapping[str, str], intervals: Intervals | None = None) -> str:
    """A markdown table of the columns that some row has; nothing where there is none."""
    shown = {name: title for name, title in columns.items() if any(name in scores for scores in rows.values())}
    if not shown:
        return ""

    def cell(row: str, name: str) -> str:
        text, interval = compact(rows[row].get(name)), (intervals or {}).get(row, {}).get(name)
        if interval is None or text == "-" or interval[0] != interval[0]:
            return text
        return f"{text} [{compact(interval[0])}, {compact(interval[1])}]"

    lines = ([row, *(cell(row, name) for name in shown)] for row in ordered(rows))
    return markdown(["", *shown.values()], lines)


def compact(value: float | None) -> str:
    """Three digits, or a small number as it is."""
    if value is not None and 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return number(value)


def score_tables(rows: Rows, intervals: Intervals | None = None, titles: Sequence[str] = tuple(TITLES)) -> str:
    """All tables that have a column, each with its legend."""
    tables = {title: score_table(rows, TITLES[title], intervals) for title in titles}
    return "\n\n".join(f"{table}\n\n{LEGENDS[title]}" for title, table in tables.items() if table)
