"""evaluate: scores of a model on ToonSV or any story set, with the ceilings that make them readable.

  storydalle evaluate experiment=toon/story_dalle
  storydalle evaluate model=runs/toon/story_dalle/2026-01-31_12-00-00/model splits='[test]' num_stories=100
  storydalle evaluate images=frames                     any system's pictures: frames/toon/test/000000/01.png, ...
  storydalle evaluate compare=runs/toon/story_dalle/ablation        every model of a sweep, and what each path is worth
  storydalle evaluate data=pororo data.root=/your/pororo model=FOLDER         a set from a folder: table and strips

Prints how well labels are read off real frames, one table a split, the path probes and the targets; writes
metrics.json and table.md. A set without ToonSV's labels gets distances of frames, the path probes and a page of strips.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from storydalle.commands import inputs, models, outputs
from storydalle.commands.application import Request
from storydalle.commands.mistakes import UserError, nearest, told_in_one_line
from storydalle.commands.set_scores import score_story_set
from storydalle.commands.systems import (
    Frames,
    drawn_batches,
    find_systems,
    open_story_dalle,
    open_systems,
    stored_batches,
)
from storydalle.metrics.label_reader import LabelReader
from storydalle.metrics.label_reader_training import reading_accuracies
from storydalle.metrics.probes import measure_probes
from storydalle.metrics.record import metrics_record, toon_protocol, write_record
from storydalle.metrics.toon import Interval, ToonScores
from storydalle.metrics.toon_rows import (
    score_copied_source,
    score_frames,
    score_real_frames,
    score_reconstructions,
)
from storydalle.metrics.toon_table import (
    COPY,
    OWN_METRICS,
    REAL,
    RECONSTRUCTION,
    TEXT_TO_IMAGE,
    ablation_table,
    markdown,
    targets_table,
    toon_table,
)
from storydalle.stories import toon
from storydalle.story_dalle import CARD_NAME, StoryDALLE

READER = "label_reader"


def run(request: Request) -> None:
    score = score_story_set if "set" in request.settings["data"] else score_toon
    score(request)


class Evaluated(NamedTuple):
    """One split: the scores of each row, their intervals, and the record of both."""

    rows: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval]]
    record: dict[str, Any]


def score_toon(request: Request) -> None:
    settings = request.settings
    check_settings(settings)
    folders = find_systems(settings)
    first = next(iter(folders))
    out = Path(str(settings["out"] or Path("evaluated") / Path(first).name)).expanduser()
    outputs.check_space(out, megabytes=10)
    reader_folder = models.zoo_folder() / READER
    with told_in_one_line(f"cannot open the label reader {reader_folder}", ValueError, OSError):
        reader = LabelReader.from_pretrained(reader_folder)
    systems = open_systems(folders)

    texts = [reader_accuracy(reader, systems[first].resolution)]
    print(texts[0])
    evaluated: dict[str, Evaluated] = {}
    for split in settings["splits"]:
        evaluated[split] = evaluate_split(reader, split, systems, folders, settings)
        texts.append(f"**{split}**, {settings['num_stories']} stories\n\n{toon_table(evaluated[split].rows)}")
        print(texts[-1])
        write_record(out / split / "metrics.json", evaluated[split].record)
    endings = summaries(evaluated, list(folders), settings)
    print("\n\n".join(endings))

    text = "\n\n".join([*texts, *endings])
    tables = [
        f"**{split}**, 95 % intervals over stories\n\n{toon_table(each.rows, each.intervals)}"
        for split, each in evaluated.items()
    ]
    (out / "table.md").write_text("\n\n".join([text, *tables]) + "\n")
    if settings["readme"] is not None:
        outputs.fill_results(Path(str(settings["readme"])), text)
    if settings["card"]:
        fill_card(folders[first], {split: each.rows for split, each in evaluated.items()})
    print(f"wrote {out / 'table.md'} and {out}/<split>/metrics.json")


def evaluate_split(
    reader: LabelReader,
    split: str,
    systems: dict[str, StoryDALLE],
    folders: dict[str, Path],
    settings: dict[str, Any],
) -> Evaluated:
    """Scores of the ceilings and of every system on one split."""
    started, model = time.monotonic(), next(iter(systems.values()))
    stories = toon.ToonSV(split, settings["num_stories"], resolution=model.resolution)
    scores = score_rows(reader, stories, systems, settings)
    rows = {row: each.compute() for row, each in scores.items()}
    intervals = {row: each.compute_intervals() for row, each in scores.items()}
    if settings["images"] is None:
        for name, system in systems.items():
            rows[name] |= probed(system, split, settings)
    record = metrics_record(
        rows,
        protocol=toon_protocol(
            version=str(model.card.get("data_version", "1")),
            split=split,
            num_targets=stories.num_targets,
            ids=[f"toon/{split}/{i:06d}" for i in range(len(stories))],
            resolution=model.resolution,
            reader_weights=models.zoo_folder() / READER / models.WEIGHTS,
            sampling=vars(model.sampling()),
            metrics=ToonScores.names,
        ),
        n={row: each.counts() for row, each in scores.items()},
        intervals=intervals,
        seeds=[settings["seed"]],
        device=str(model.device),
        wall_seconds=time.monotonic() - started,
        config=f"toon/{split}" + (f" compare={Path(settings['compare']).name}" if settings["compare"] else ""),
        weights_sha256={name: models.weights_sha256(folder) for name, folder in folders.items()},
    )
    return Evaluated(rows, intervals, record)


def summaries(evaluated: dict[str, Evaluated], names: list[str], settings: dict[str, Any]) -> list[str]:
    """What stands under the tables: the probes, then the targets, or what each path of a sweep is worth."""
    texts = []
    if settings["images"] is None:
        texts.append(probe_table({split: each.rows for split, each in evaluated.items()}, names))
    if settings["compare"] is not None:
        texts += [paths_table(split, each.intervals) for split, each in evaluated.items()]
    elif "test" in evaluated:
        unseen = evaluated.get("unseen")
        texts.append(targets_table(evaluated["test"].rows, unseen.rows if unseen else None, names[0]))
    return texts


def check_settings(settings: dict[str, Any]) -> None:
    inputs.check_seed(settings["seed"])
    inputs.check_number("num_stories", settings["num_stories"], 1, None, whole=True)
    inputs.check_number("batch_size", settings["batch_size"], 1, None, whole=True)
    images = settings["images"]
    if settings["compare"] is not None and (images is not None or settings["card"]):
        raise UserError("compare= scores the models of several runs: leave out images= and card=")
    if images is not None and not Path(str(images)).expanduser().is_dir():
        raise UserError(f"images={images} is no folder: give one with <story id>/<number>.png in it")
    splits = settings["splits"]
    for split in splits if isinstance(splits, list) else [splits]:
        if split not in toon.SPLITS:
            raise UserError(f"{settings['data']['name']} has no split {split!r}; {nearest(str(split), toon.SPLITS)}")
    if not isinstance(splits, list):
        settings["splits"] = [splits]


def reader_accuracy(reader: LabelReader, resolution: int, num_stories: int = 100) -> str:
    """How well the ruler reads real frames that it was not trained on."""
    accuracies = reading_accuracies(reader, toon.ToonSV("val", num_stories, resolution=resolution))
    return "Labels read on held-out real frames: " + ", ".join(
        f"{name} {value:.3f}" for name, value in accuracies.items()
    )


def score_rows(
    reader: LabelReader, stories: toon.ToonSV, systems: dict[str, StoryDALLE], settings: dict[str, Any]
) -> dict[str, ToonScores]:
    """The ceilings, then the systems, which share their tokenizer's."""
    model = next(iter(systems.values()))

    def reconstruct(images: Tensor) -> Tensor:
        return model.image_tokenizer.decode(model.image_tokenizer.encode(images))

    def scored(batches: Iterator[Frames]) -> ToonScores:
        scores = ToonScores()
        for frames, labels, mask in batches:
            score_frames(reader, frames, labels, mask, scores)
        return scores

    batch_size, seed = settings["batch_size"], settings["seed"]

    rows = {
        REAL: score_real_frames(reader, stories),
        RECONSTRUCTION: score_reconstructions(reader, stories, reconstruct),
        COPY: score_copied_source(reader, stories),
    }
    if settings["text_to_image"] is not None:
        alone = open_story_dalle(models.locate(str(settings["text_to_image"])))
        rows[TEXT_TO_IMAGE] = scored(drawn_batches(alone, stories, batch_size, seed))
    for name, system in systems.items():
        if settings["images"] is None:
            rows[name] = scored(drawn_batches(system, stories, batch_size, seed))
        else:
            rows[name] = scored(stored_batches(Path(name).expanduser(), stories, batch_size))
    return rows


def probed(model: StoryDALLE, split: str, settings: dict[str, Any]) -> dict[str, float]:
    """The path probes, with the stories' other sources drawn too."""
    stories = toon.ToonSV(split, settings["num_stories"], resolution=model.resolution, probes=True)
    return measure_probes(model, stories, settings["data"]["probes"], settings["data"]["source_probes"])


def probe_table(rows: dict[str, dict[str, dict[str, float]]], systems: list[str]) -> str:
    """Rise of the loss of the true frames, in nats a frame, when one input is another story's."""
    lines = {
        f"{name}, {split}" if len(systems) > 1 else split: {
            score: value for score, value in each[name].items() if score.startswith("probe_")
        }
        for split, each in rows.items()
        for name in systems
    }
    names = list(dict.fromkeys(name for values in lines.values() for name in values))
    titles = [name.removeprefix("probe_").replace("_", " ") for name in names]
    cells = ([line, *(signed(values.get(name)) for name in names)] for line, values in lines.items())
    title = "Loss added by a wrong input, in nats a frame (64 codes)"
    return f"{title}\n\n{markdown(['nats a frame', *titles], cells)}"


def signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def paths_table(split: str, intervals: dict[str, dict[str, Interval]]) -> str:
    """What each path of a sweep is worth: runs are named VARIANT or VARIANT-seedN, and one variant is "full"."""
    variants = {name.partition("-seed")[0].replace("_", " "): each for name, each in intervals.items()}
    ablations = {name: variants[name] for name in OWN_METRICS if name in variants}
    if "full" not in variants or not ablations:
        return f"{split}: no run is called full, so nothing says what a path is worth"
    return f"**{split}**: each path taken away\n\n{ablation_table(variants['full'], ablations)}"


def fill_card(folder: Path, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """Put scores and tables into the model's own card."""
    path = folder / CARD_NAME
    card = json.loads(path.read_text()) if path.is_file() else {}
    write_record(path, card | {"scores": rows, "tables": [toon_table(each) for each in rows.values()]})
