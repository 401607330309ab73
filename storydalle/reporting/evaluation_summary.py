"""An evaluation of several splits in short: texts under its tables, and scores in the model's own card."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from storydalle.evaluation.entries import tested_models
from storydalle.evaluation.evaluation import Evaluation
from storydalle.evaluation.evaluation_settings import EvaluationSettings
from storydalle.evaluation.toon_table import OWN_METRICS, TARGETS, ablation_table, markdown, targets_table, toon_table
from storydalle.evaluation.toonsv_targets import split_targets_table
from storydalle.files.reading import read_object
from storydalle.files.records import write_record
from storydalle.metrics.resampling import Interval
from storydalle.models import cards
from storydalle.models.pretrained import CARD_NAME, README_NAME


def summaries(evaluations: Mapping[str, Evaluation], settings: EvaluationSettings) -> list[str]:
    """Texts under the tables: the probes, then the targets or, for a sweep, how much each path helps."""
    tested = tested_models(next(iter(evaluations.values())).entries)
    texts = [probe_table({split: each.rows for split, each in evaluations.items()}, list(tested))] if tested else []
    if settings.data.name == "toon2" and settings.compare is None:
        rows = {split: each.rows for split, each in evaluations.items()}
        tables = {name: split_targets_table(rows, name) for name in tested}
        return texts + [f"**{name}**\n\n{table}" for name, table in tables.items() if table]
    if settings.data.name != "toon" or not tested or settings.num_candidates > 1:
        return texts
    if settings.compare is not None:
        return texts + [paths_table(split, each.intervals) for split, each in evaluations.items()]
    if "test" in evaluations:
        unseen = evaluations["unseen"].rows if "unseen" in evaluations else None
        for name, entry in tested.items():
            targets = TARGETS[type(entry.model).__name__]
            heading = f"**{name}**\n\n" if len(tested) > 1 else ""
            texts.append(heading + targets_table(evaluations["test"].rows, unseen, name, targets))
    return texts


def probe_table(rows: Mapping[str, Mapping[str, Mapping[str, float]]], entries: Sequence[str]) -> str:
    """Rise of the loss of the true frames, in nats a frame, when one input is another story's."""
    lines = {
        f"{name}, {split}" if len(entries) > 1 else split: {
            score: value for score, value in each[name].items() if score.startswith("probe_")
        }
        for split, each in rows.items()
        for name in entries
        if name in each
    }
    names = list(dict.fromkeys(name for values in lines.values() for name in values))
    titles = [name.removeprefix("probe_").replace("_", " ") for name in names]
    cells = ([line, *(signed(values.get(name)) for name in names)] for line, values in lines.items())
    if not names:
        return ""
    return f"Loss added by a wrong input, in nats a frame\n\n{markdown(['nats a frame', *titles], cells)}"


def signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def paths_table(split: str, intervals: Mapping[str, Mapping[str, Interval]]) -> str:
    """The scores that fall without each path; runs are named VARIANT or VARIANT-seedN, and one variant is "full"."""
    variants = {name.partition("-seed")[0].replace("_", " "): each for name, each in intervals.items()}
    ablations = {name: variants[name] for name in OWN_METRICS if name in variants}
    if "full" not in variants:
        return f"{split}: no run is called full, so the others have nothing to be compared with"
    if not ablations:
        return ""
    return f"**{split}**: without each path\n\n{ablation_table(variants['full'], ablations)}"


def fill_card(folder: Path, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """Put scores and tables into the model's own card, and those that the hub shows into its README."""
    path = folder / CARD_NAME
    card: dict[str, object] = {**read_object(path)} if path.is_file() else {}
    card |= {"scores": rows, "tables": [toon_table(each) for each in rows.values()]}
    write_record(path, card)
    if (folder / README_NAME).is_file():
        cards.add_results(folder / README_NAME, folder.absolute().name, card)
