"""evaluate: score models, or pictures of any system, under a named protocol.

  storydalle evaluate experiment=toon/story_dalle
  storydalle evaluate images=DIR data=toon                              pictures that any system has drawn
  storydalle evaluate data=pororo protocol=pororo_legacy data.root=/your/pororo images=DIR layout=storydalle
  storydalle evaluate compare=runs/toon/story_dalle/ablation            every model of a sweep, and what each path adds
  storydalle evaluate data=openstory data.root=DIR model=FOLDER
  storydalle evaluate images=strips/story assertions=FILE               is on each picture what a line of FILE says?
  storydalle evaluate -m seed=0,1,2                                     seeds, then: storydalle report runs=evaluated

For each split, prints tables of the protocol's scores, with upper limits and simple baselines to compare them with, and
writes <split>/metrics.json, <split>/index.html, table.md and <split>/stories.safetensors: the scores of single stories,
from which report combines seeds and tests differences. conf/protocol/README.md describes the protocols.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from storydalle.commands.application import Request
from storydalle.commands.asserting import check_assertions
from storydalle.commands.default_folders import joined_names, named
from storydalle.evaluation.entries import (
    FolderEntry,
    check_folders,
    entries_of,
    find_models,
    folders_of_rows,
    open_folders,
    open_models,
    without_gaps,
)
from storydalle.evaluation.evaluation import Evaluation, evaluate
from storydalle.evaluation.evaluation_settings import EvaluationSettings
from storydalle.evaluation.judges import Judges, open_judges
from storydalle.evaluation.splits import JudgedData, Split
from storydalle.evaluation.story_values import STORIES, write_story_values
from storydalle.evaluation.vistorybench import export_shots
from storydalle.files import locks, outputs
from storydalle.files.paths import file_name, user_path
from storydalle.files.process_memory import keep_freed_memory
from storydalle.files.records import write_record
from storydalle.files.whole import write_text
from storydalle.metrics.declared import needs_of
from storydalle.metrics.networks.label_reader_training import reading_accuracies
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.models.pretrained import PretrainedModel
from storydalle.models.zoo import EXPERIMENTS, zoo_names
from storydalle.reporting.evaluation_page import write_page
from storydalle.reporting.evaluation_summary import fill_card, summaries
from storydalle.reporting.result_pages import fill_pages
from storydalle.stories.drawn_worlds import WORLDS
from storydalle.training.building import newest_model
from storydalle.training.runs import METRICS

# What the default folder's name tells already, and what no score depends on.
UNNAMED = (
    *("out", "data", "data.root", "data.ids", "model", "images", "compare", "experiment", "sweep", "runs"),
    *("batch_size", "save", "export", "diagnose", "readme", "card"),
)


def run(request: Request) -> None:
    settings = checked(request)
    if settings.assertions is not None:
        base = Path("evaluated", "assertions", joined_names(settings.images))
        folder = user_path(settings.out or named(base, "evaluate", request, UNNAMED))
        return check_assertions(folder, settings)
    data = JudgedData.of(settings)
    folders = find_models(settings)
    check_folders(settings)
    out = user_path(settings.out or default_folder(request, settings))
    outputs.check_space(out, megabytes=50)
    with locks.held(out, "evaluate"):
        write(out, data, folders, settings)


def checked(request: Request) -> EvaluationSettings:
    """The settings; if they name nothing to score, with the model of the experiment or the shipped one."""
    settings = EvaluationSettings.of(request.settings)
    return settings if settings.model else replace(settings, model=tuple(default_models(request)))


def write(out: Path, data: JudgedData, folders: Mapping[str, Path], settings: EvaluationSettings) -> None:
    """Score every split, and write tables, records and pages into ``out``."""
    keep_freed_memory()
    models = open_models(folders, settings.compare)
    judges = open_judges(settings.protocol, data.characters, settings.runs / "cache" / "features")
    texts = [reader_accuracy(judges)] if "labels" in needs_of(settings.protocol.metrics) else []
    print(*texts, sep="\n")
    evaluations: dict[str, Evaluation] = {}
    for name in data.splits:
        evaluations[name] = evaluated(data.split(name), judges, models, folders, settings)
        texts.append(evaluations[name].text())
        print(texts[-1])
        shown = write_page(out / file_name(name), evaluations[name])
        write_story_values(out / file_name(name) / STORIES, evaluations[name].story_values())
        write_record(out / file_name(name) / METRICS, evaluations[name].record | {"strips": shown})
    endings = [text for text in summaries(evaluations, settings) if text]
    print("\n\n".join(endings))
    write_tables(out, [*texts, *endings], evaluations)
    fill_pages(list(settings.readme), "\n\n".join([*texts, *endings]), next(iter(evaluations.values())).rows)
    if settings.card:
        fill_card(next(iter(folders.values())), {name: each.rows for name, each in evaluations.items()})
    if settings.export is not None:
        export(evaluations, settings.export)
    print(f"wrote {out / 'table.md'} and {out}/<split>/metrics.json, index.html")


def evaluated(
    split: Split,
    judges: Judges,
    models: Mapping[str, PretrainedModel],
    folders: Mapping[str, Path],
    settings: EvaluationSettings,
) -> Evaluation:
    """Score models and folders of pictures on those stories whose pictures all folders have."""
    pictures = open_folders(settings, split)
    return evaluate(
        without_gaps(split, pictures),
        entries_of(settings, models, folders, pictures, judges.networks),
        judges,
        batch_size=settings.batch_size,
        seed=settings.seed,
        num_diagnosed=settings.diagnose,
        save=settings.save,
        sweep=None if settings.compare is None else user_path(settings.compare).name,
    )


# ------------------------------------------------------------------------------------------------ what is asked


def default_models(request: Request) -> list[str]:
    """The models to score if neither a model nor a sweep nor pictures are named.

    The model of the newest finished run of the experiment, or the shipped one that it made; without an experiment the
    shipped StoryDALL-E.
    """
    if request.settings["images"] is not None or request.settings["compare"] is not None:
        return []
    experiment, runs = request.choices.get("experiment"), user_path(request.settings["runs"])
    if experiment is None:
        return ["story_dalle"]
    newest = newest_model(experiment, runs)
    if newest is not None:
        print(f"note: scoring the model of the newest finished run of {experiment}, {newest}; model= chooses another")
        return [str(newest)]
    shipped = [name for name, made_by in EXPERIMENTS.items() if made_by == experiment]
    if not shipped:
        raise UserError(
            f"experiment={experiment} has no finished run in {runs / experiment}, and did not make a shipped model: "
            f"train it with storydalle train experiment={experiment}, or give model=FOLDER; {nearest('', zoo_names())}"
        )
    return shipped


def default_folder(request: Request, settings: EvaluationSettings) -> Path:
    """A folder named by the data, by what is scored, and by other changes: ``evaluated/toon/story_dalle-seed1``."""
    compared = [settings.compare] if settings.compare is not None else []
    scored = joined_names([*settings.images, *compared] or settings.model or ["ceilings"])
    return named(Path("evaluated", settings.data.name, scored), "evaluate", request, UNNAMED)


# ------------------------------------------------------------------------------------------------ what is written


def export(evaluations: Mapping[str, Evaluation], root: str) -> None:
    """Write the frames of ``images`` in ViStoryBench's layout, one mode for each split."""
    now = f"{datetime.now():%Y%m%d_%H%M%S}"
    for name, each in evaluations.items():
        mode, ids = f"{each.judges.protocol.name}-{name}", each.split.judged.ids()
        folders = folders_of_rows(each.entries)
        for entry in each.entries.values():
            if isinstance(entry, FolderEntry):
                frames = ((story, np.rint(entry.drawn.read(story)).astype(np.uint8)) for story in ids)
                with told_in_one_line(""):
                    method = folders[entry.name]
                    folder = export_shots(root, frames, method=method, mode=mode, language="en", timestamp=now)
                print(f"exported {folder}")


def write_tables(out: Path, texts: Sequence[str], evaluations: Mapping[str, Evaluation]) -> None:
    detailed = [each.text(intervals=True) for each in evaluations.values()]
    write_text(out / "table.md", "\n\n".join([*texts, *detailed]) + "\n")


def reader_accuracy(judges: Judges, num_stories: int = 100) -> str:
    """The accuracy of the label reader on real frames that it was not trained on."""
    reader = judges.networks.labels
    assert reader is not None
    stories = WORLDS[judges.asked.dataset].stories("val", num_stories, resolution=reader.resolution)
    accuracies = reading_accuracies(reader, stories)
    return "Labels read on held-out real frames: " + ", ".join(
        f"{name} {value:.3f}" for name, value in accuracies.items()
    )
