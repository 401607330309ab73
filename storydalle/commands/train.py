"""train: one run of an experiment, or a sweep with -m.

  storydalle train experiment=toon/story_dalle
  storydalle train experiment=toon/story_dalle resume=true           after a kill: goes on exactly where it was
  storydalle train -m experiment=toon/story_dalle sweep=ablation     several runs, then their table

A resumed run keeps the settings that it began with; logging, saving and more steps may change. A finished run is never
touched: its model trains on in another run, with pretrained= its folder. A loss that is not finite ends a training at
once, with exit status 1 and the last good checkpoint kept.

Writes runs/<experiment>/<name>: config.yaml, checkpoints/, model/ (opens with model=), strips/, csv/ and, last of all,
metrics.json.
"""

import logging
import os
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import wandb
from hydra.utils import instantiate
from omegaconf import OmegaConf

from storydalle.checkpoints.training_state import SafetensorsCheckpointIO, load_state
from storydalle.commands import inputs, locks, outputs, processes
from storydalle.commands.application import Request
from storydalle.commands.building import MODEL, learn_words
from storydalle.commands.mistakes import told_in_one_line
from storydalle.commands.models import TrainedStoryModel
from storydalle.commands.own_sizes import sizes_told
from storydalle.commands.report_runs import METRICS
from storydalle.commands.story_sets import tell
from storydalle.commands.training_callbacks import callbacks
from storydalle.commands.training_loggers import loggers
from storydalle.commands.training_memory import check_memory
from storydalle.commands.training_runs import LAST, run_folder
from storydalle.licences import inherited
from storydalle.metrics.record import git_state, metrics_record, write_record
from storydalle.paths import user_path
from storydalle.pretrained import PretrainedModel
from storydalle.stories.story import Stories
from storydalle.systems import ForeignState
from storydalle.systems.precision import AUTO, SINGLE, resolved
from storydalle.whole_files import write_text

NOT_IN_NAME = ("experiment", "sweep", "seed", "name", "runs", "resume", "save_every")


def run(request: Request) -> None:
    """Train in a folder that no other command writes meanwhile; of several processes the first one begins."""
    started = time.monotonic()
    with processes.beside_the_first(), ExitStack() as held:
        plan = processes.agreed(lambda: begin(request, held))
        checkpoint = None if plan["checkpoint"] is None else Path(plan["checkpoint"])
        train(request._replace(settings=plan["settings"]), Path(plan["folder"]), checkpoint, started)


def begin(request: Request, held: ExitStack) -> dict[str, Any]:
    """Check, take the folder, write the config: settings, folder and checkpoint, which all processes train from."""
    settings, experiment = request.settings, request.choices["experiment"]
    inputs.check_seed(settings["seed"])
    folder = run_folder(user_path(settings["runs"]) / experiment, settings["name"], bool(settings["resume"]))
    outputs.check_space(folder, megabytes=500)
    held.enter_context(locks.held(folder, "train"))
    checkpoint = folder / LAST if (folder / LAST).is_file() else None
    if checkpoint:
        with told_in_one_line(""):
            load_state(checkpoint)
    if checkpoint and settings["trainer"].get("precision") == AUTO:
        settings["trainer"]["precision"] = OmegaConf.select(OmegaConf.load(folder / "config.yaml"), "trainer.precision")
    precision_note = resolve_precision(settings["trainer"])
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    print(f"{'resuming' if checkpoint else 'writing'} {folder}")
    if precision_note:
        print(precision_note)
    return {"settings": settings, "folder": str(folder), "checkpoint": checkpoint and str(checkpoint)}


def train(request: Request, folder: Path, checkpoint: Path | None, started: float) -> None:
    """Seed, build, resume, fit, save."""
    settings, experiment = request.settings, request.choices["experiment"]
    quieten()
    pl.seed_everything(settings["seed"] % 2**32, verbose=False)
    config, seeds = config_name(request), [settings["seed"]]
    try:
        with told_in_one_line("a setting is refused", ValueError, TypeError):
            model = instantiate(settings["network"])
            system = instantiate(settings["system"], _partial_=True)(model)
            data = instantiate(settings["data_module"], _partial_=True)(**tokenizers_of(model))
            trainer = instantiate(settings["trainer"], _partial_=True)(
                default_root_dir=folder,
                logger=loggers(folder, experiment),
                callbacks=callbacks(folder, settings, model, stories := instantiate(settings["data"]["val"])),
                plugins=[SafetensorsCheckpointIO()],
            )
        tell(stories.notes)
        if "sized" in settings:
            print(sizes_told(settings, request.given))
        check_memory(system, stories, settings, on_cpu=trainer.strategy.root_device.type == "cpu")
        processes.prepare(trainer, request.overrides)
        with processes.running(trainer), told_in_one_line("", ForeignState):
            trainer.fit(system, data, ckpt_path=checkpoint)
    except Exception as error:
        text = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        if processes.is_first():
            write_record(folder / METRICS, {"config": config, "seeds": seeds, "error": text})
        raise
    finally:
        wandb.finish()
    if not processes.is_first():
        return
    num_steps = processes.steps_made(trainer)
    if isinstance(model, TrainedStoryModel):
        model.card = {"experiment": experiment} | card(model, stories, settings, num_steps)
    if isinstance(model, PretrainedModel):
        learn_words(model, getattr(data, "train", None), getattr(system, "texts", "captions"))
    model.save_pretrained(folder / MODEL)
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    write_record(
        folder / METRICS,
        metrics_record(
            values,
            protocol={"kind": "training", "data": settings["data"], "max_steps": settings["trainer"]["max_steps"]},
            n={"steps": num_steps},
            wall_seconds=time.monotonic() - started,
            seeds=seeds,
            device=device_name(),
            precision=settings["trainer"]["precision"],
            config=config,
        ),
    )
    print(f"wrote {folder / MODEL} and {folder / METRICS}")


def resolve_precision(trainer: dict[str, Any]) -> str | None:
    """Put the precision that the run trains in into its settings; return what to tell the user, if anything.

    The resolved one is written with the run's config, where a resumed run finds it.
    """
    asked, accelerator = trainer.get("precision") or SINGLE, str(trainer.get("accelerator", "auto"))
    trainer["precision"], note = resolved(str(asked), accelerator)
    return note


def tokenizers_of(model: Any) -> dict[str, Any]:
    """What the data module needs of a model that works on tokens and codes."""
    names = ("image_tokenizer", "caption_tokenizer")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


def card(model: TrainedStoryModel, stories: Stories, settings: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """What a model says of itself: how it was made, and the settings that its use depends on."""
    commit, dirty = git_state(Path(__file__).parent)
    return {
        "sampling": settings["sampling"],
        "pretrained": settings["pretrained"],
        "data": settings["data"],
        "system": settings["system"],
        "num_steps": num_steps,
        "seed": settings["seed"],
        "commit": commit,
        "dirty": dirty,
        "story_window": settings["data"]["num_targets"],  # captions that the story encoder read at once in training
        "guidance": bool(settings["system"].get("caption_dropout")),
        **model.measured(stories),
        **inherited(model.card),
    }


def config_name(request: Request) -> str:
    """What tells runs of an experiment apart in a report: the settings that were changed, but for the seed."""
    changed = [override for override in request.overrides if override.partition("=")[0].lstrip("+~") not in NOT_IN_NAME]
    return " ".join([request.choices["experiment"], *sorted(changed)])


def quieten() -> None:
    """Keep tips and remarks on Lightning's own workings off the terminal."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        *("LeafSpec.* is deprecated", "in eval mode", "does not have many workers"),
        *("not supported by the model summary", "no pre-optimization state was saved"),
    ):
        warnings.filterwarnings("ignore", message=f".*{text}")
    os.environ.setdefault("WANDB_SILENT", "true")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
