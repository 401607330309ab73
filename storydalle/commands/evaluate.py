"""evaluate: scores of models, or of any system's pictures, under a protocol that is named and hashed.

  storydalle evaluate experiment=toon/story_dalle
  storydalle evaluate images=DIR data=toon                              pictures that any system has drawn
  storydalle evaluate data=pororo protocol=pororo_legacy data.root=/your/pororo images=DIR layout=storydalle
  storydalle evaluate compare=runs/toon/story_dalle/ablation            every model of a sweep, what each path is worth
  storydalle evaluate data=openstory data.root=DIR model=FOLDER
  storydalle evaluate -m seed=0,1,2                                     seeds, then: storydalle report runs=evaluated

Prints, for each split, the tables of a protocol's scores with the ceilings that make them readable, and writes
<split>/metrics.json, <split>/index.html and table.md. conf/protocol/README.md says what the protocols are.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from storydalle.commands import outputs
from storydalle.commands.application import Request
from storydalle.commands.default_folders import joined_names, named
from storydalle.commands.result_pages import fill_pages
from storydalle.evaluation.entries import StoredFrames, find_models, open_models
from storydalle.evaluation.evaluation import Evaluated, Subject, evaluate_split, folders_of_rows, tested_models
from storydalle.evaluation.protocols import check_protocol, names_of, open_judges
from storydalle.evaluation.toon_table import OWN_METRICS, TARGETS, ablation_table, markdown, targets_table, toon_table
from storydalle.evaluation.vistorybench import export_shots
from storydalle.files import locks
from storydalle.files.paths import file_name, user_path
from storydalle.files.reading import read_object
from storydalle.files.records import write_record
from storydalle.files.whole import write_text
from storydalle.metrics.networks.label_reader_training import reading_accuracies
from storydalle.metrics.resampling import Interval
from storydalle.metrics.seen import Judges
from storydalle.metrics.toon import ToonScores
from storydalle.mistakes import UserError, check_number, check_seed, nearest, told_in_one_line
from storydalle.models import cards
from storydalle.models.kinds import EXPERIMENTS, RERANKERS, zoo_names
from storydalle.models.pretrained import CARD_NAME, README_NAME
from storydalle.reporting.evaluation_page import write_page
from storydalle.stories import toon
from storydalle.training.building import newest_model

# What the default folder's name tells already, and what no score depends on.
UNNAMED = (
    *("out", "data", "data.root", "data.ids", "model", "images", "compare", "experiment", "runs"),
    *("batch_size", "save", "export", "diagnose", "readme", "card"),
)


def run(request: Request) -> None:
    settings = checked(request)
    subject = Subject.of(settings)
    folders = find_models(settings)
    out = user_path(settings["out"] or default_folder(request, settings))
    outputs.check_space(out, megabytes=50)
    with locks.held(out, "evaluate"):
        write(out, subject, folders, settings)


def write(out: Path, subject: Subject, folders: Mapping[str, Path], settings: dict[str, Any]) -> None:
    """Score every split, and write what was found into ``out``."""
    opened_models = open_models(folders, settings["compare"])
    judges = open_judges(settings["protocol"], subject.characters, user_path(settings["runs"]) / "cache" / "features")

    texts = [reader_accuracy(judges)] if ToonScores.asked_as in settings["protocol"]["metrics"] else []
    print(*texts, sep="\n")
    evaluated: dict[str, Evaluated] = {}
    for split in subject.splits:
        evaluated[split] = evaluate_split(subject, split, judges, opened_models, folders, settings)
        texts.append(evaluated[split].text())
        print(texts[-1])
        shown = write_page(out / file_name(split), evaluated[split])
        write_record(out / file_name(split) / "metrics.json", evaluated[split].record | {"strips": shown})
    endings = [text for text in summaries(evaluated, settings) if text]
    print("\n\n".join(endings))
    write_tables(out, [*texts, *endings], evaluated)
    fill_pages(settings["readme"], "\n\n".join([*texts, *endings]), next(iter(evaluated.values())).rows)
    if settings["card"]:
        fill_card(next(iter(folders.values())), {split: each.rows for split, each in evaluated.items()})
    if settings["export"] is not None:
        export(evaluated, settings)
    print(f"wrote {out / 'table.md'} and {out}/<split>/metrics.json, index.html")


# ------------------------------------------------------------------------------------------------ what is asked


def checked(request: Request) -> dict[str, Any]:
    """The settings, where they can be meant."""
    settings = dict(request.settings)
    check_seed(settings["seed"])
    for name in ("num_stories", "batch_size", "num_candidates", "diagnose"):
        if settings[name] is not None:
            check_number(name, settings[name], 1, None, whole=True)
    images, named = (names_of(settings[name]) for name in ("images", "model"))
    settings["images"], settings["model"] = images, named or default_models(request)
    if settings["compare"] is not None and (images or settings["card"]):
        raise UserError("compare= scores the models of several runs: leave out images= and card=")
    if settings["card"] and len(settings["model"]) > 1:
        raise UserError(f"card=true fills the card of one model, and {len(settings['model'])} are named; give one")
    if settings["export"] is not None and not images:
        raise UserError(f"export={settings['export']} copies the frames of images=: draw them first with save=DIR")
    if settings["reranker"] not in RERANKERS:
        raise UserError(f"no reranker={settings['reranker']}; {nearest(str(settings['reranker']), RERANKERS)}")
    if settings["card"] and (settings["data"]["name"] != "toon" or images):
        raise UserError("card=true fills the card of a model for ToonSV, whose scores need no other data; leave it out")
    settings["protocol"] = check_protocol(settings)
    return settings


def default_models(request: Request) -> list[str]:
    """What is scored where no model, no sweep and no pictures are named.

    The model of the newest finished run of the experiment, or the shipped one that it made; without an experiment the
    shipped StoryDALL-E.
    """
    if request.settings["images"] is not None or request.settings["compare"] is not None:
        return []
    experiment, runs = request.choices.get("experiment"), Path(request.settings["runs"])
    if experiment is None:
        return ["story_dalle"]
    newest = newest_model(experiment, runs)
    if newest is not None:
        print(f"note: the model of the newest finished run of {experiment} is scored, {newest}; model= names another")
        return [str(newest)]
    shipped = [name for name, made_by in EXPERIMENTS.items() if made_by == experiment]
    if not shipped:
        raise UserError(
            f"experiment={experiment} has no finished run in {runs / experiment}, and no shipped model is of it: "
            f"storydalle train experiment={experiment} makes one, or give model=FOLDER; {nearest('', zoo_names())}"
        )
    return shipped


def default_folder(request: Request, settings: Mapping[str, Any]) -> Path:
    """The data, what is scored on it, and what is changed beside: ``evaluated/toon/story_dalle-seed1``."""
    compared = [settings["compare"]] if settings["compare"] is not None else []
    scored = joined_names([*settings["images"], *compared] or settings["model"] or ["ceilings"])
    return named(Path("evaluated", settings["data"]["name"], scored), "evaluate", request, UNNAMED)


# ------------------------------------------------------------------------------------------------ what is written


def export(evaluated: Mapping[str, Evaluated], settings: Mapping[str, Any]) -> None:
    """The frames of ``images`` in ViStoryBench's layout, a mode a split."""
    now = f"{datetime.now():%Y%m%d_%H%M%S}"
    for split, each in evaluated.items():
        mode, ids = f"{each.scoring.protocol.name}-{split}", each.subjects.judged.ids()
        folders = folders_of_rows(each.systems)
        for system in each.systems.values():
            if isinstance(system, StoredFrames):
                frames = ((name, np.rint(system.drawn.read(name)).astype(np.uint8)) for name in ids)
                with told_in_one_line(""):
                    folder = export_shots(
                        str(settings["export"]),
                        frames,
                        method=folders[system.name],
                        mode=mode,
                        language="en",
                        timestamp=now,
                    )
                print(f"exported {folder}")


def write_tables(out: Path, texts: Sequence[str], evaluated: Mapping[str, Evaluated]) -> None:
    detailed = [each.text(intervals=True) for each in evaluated.values()]
    write_text(out / "table.md", "\n\n".join([*texts, *detailed]) + "\n")


def summaries(evaluated: Mapping[str, Evaluated], settings: Mapping[str, Any]) -> list[str]:
    """What stands under the tables: the probes, then the targets, or what each path of a sweep is worth."""
    tested = tested_models(next(iter(evaluated.values())).systems)
    texts = [probe_table({split: each.rows for split, each in evaluated.items()}, list(tested))] if tested else []
    if settings["data"]["name"] != "toon" or not tested or settings["num_candidates"] > 1:
        return texts
    if settings["compare"] is not None:
        return texts + [paths_table(split, each.intervals) for split, each in evaluated.items()]
    if "test" in evaluated:
        unseen = evaluated["unseen"].rows if "unseen" in evaluated else None
        for name, system in tested.items():
            targets = TARGETS[type(system.model).__name__]
            heading = f"**{name}**\n\n" if len(tested) > 1 else ""
            texts.append(heading + targets_table(evaluated["test"].rows, unseen, name, targets))
    return texts


def reader_accuracy(judges: Judges, num_stories: int = 100) -> str:
    """How well the ruler reads real frames that it was not trained on."""
    assert judges.labels is not None
    accuracies = reading_accuracies(judges.labels, toon.ToonSV("val", num_stories))
    return "Labels read on held-out real frames: " + ", ".join(
        f"{name} {value:.3f}" for name, value in accuracies.items()
    )


def probe_table(rows: Mapping[str, Mapping[str, Mapping[str, float]]], systems: Sequence[str]) -> str:
    """Rise of the loss of the true frames, in nats a frame, when one input is another story's."""
    lines = {
        f"{name}, {split}" if len(systems) > 1 else split: {
            score: value for score, value in each[name].items() if score.startswith("probe_")
        }
        for split, each in rows.items()
        for name in systems
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
    """What each path of a sweep is worth: runs are named VARIANT or VARIANT-seedN, and one variant is "full"."""
    variants = {name.partition("-seed")[0].replace("_", " "): each for name, each in intervals.items()}
    ablations = {name: variants[name] for name in OWN_METRICS if name in variants}
    if "full" not in variants:
        return f"{split}: no run is called full, so nothing says what a path is worth"
    if not ablations:
        return ""
    return f"**{split}**: each path taken away\n\n{ablation_table(variants['full'], ablations)}"


def fill_card(folder: Path, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """Put scores and tables into the model's own card, and those that the hub shows into its README."""
    path = folder / CARD_NAME
    card = read_object(path) if path.is_file() else {}
    card |= {"scores": rows, "tables": [toon_table(each) for each in rows.values()]}
    write_record(path, card)
    if (folder / README_NAME).is_file():
        cards.add_results(folder / README_NAME, folder.absolute().name, card)
