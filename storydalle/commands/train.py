"""train: one run of an experiment, or a sweep with -m.

  storydalle train experiment=toon/story_dalle
  storydalle train experiment=toon/story_dalle resume=true           after a kill: goes on exactly where it was
  storydalle train -m experiment=toon/story_dalle sweep=ablation     several runs, then their table

Writes runs/<experiment>/<name>: config.yaml, checkpoints/, model/ (opens with model=), strips/, csv/ and
metrics.json.
"""

import datetime
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import wandb
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from torch import Tensor

from storydalle.checkpoints.training_state import SafetensorsCheckpointIO, load_state
from storydalle.commands import inputs, outputs
from storydalle.commands.application import Request
from storydalle.commands.building import MODEL
from storydalle.commands.mistakes import UserError, told_in_one_line
from storydalle.commands.models import StoryModel, TrainedStoryModel
from storydalle.commands.report import METRICS
from storydalle.commands.training_strips import SampleStrips
from storydalle.metrics.record import git_state, metrics_record, write_record
from storydalle.stories.story import Stories
from storydalle.systems import ForeignState
from storydalle.systems.memory import training_memory
from storydalle.systems.precision import AUTO, SINGLE, resolved
from storydalle.systems.story_dalle import StoryDALLETraining

LAST = Path("checkpoints") / "last.safetensors"
NOT_IN_NAME = ("experiment", "sweep", "seed", "name", "runs", "resume", "save_every")


class Checkpoints(ModelCheckpoint):
    FILE_EXTENSION = ".safetensors"


class RunningMean(WeightAveraging):
    """The running mean of the weights, which is the model when the run has ended.

    Over its first steps the mean is shorter than ``decay`` makes it, as what it began with is random and must not
    weigh on a short run: it never reaches back over more than about a ninth of the steps that were made.

    Parts that a system names in ``NOT_AVERAGED`` are kept as they are: judges that begin to learn late would be, for
    the most part, what they were before.

    A run killed between its last checkpoint and its end has no step left to train: Lightning then skips the hook that
    puts the mean in place, but not this one.
    """

    def __init__(self, decay: float) -> None:
        @torch.no_grad()
        def mean(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
            kept = min(decay, (1 + int(num_averaged)) / (10 + int(num_averaged)))
            return kept * averaged + (1 - kept) * current

        super().__init__(avg_fn=mean)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        assert self._average_model is not None
        current, mean = (dict(system.named_modules()) for system in (pl_module, self._average_model.module))
        for name in getattr(pl_module, "NOT_AVERAGED", ()):
            if name in current:
                mean[name].load_state_dict(current[name].state_dict())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_end(trainer, pl_module)


def run(request: Request) -> None:
    """Seed, build, resume, fit, save."""
    settings, started = request.settings, time.monotonic()
    inputs.check_seed(settings["seed"])
    experiment = request.choices["experiment"]
    folder = run_folder(Path(settings["runs"]) / experiment, settings["name"], bool(settings["resume"]))
    outputs.check_space(folder, megabytes=500)
    checkpoint = folder / LAST if (folder / LAST).is_file() else None
    if checkpoint:
        with told_in_one_line(""):
            load_state(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint and settings["trainer"].get("precision") == AUTO:
        settings["trainer"]["precision"] = OmegaConf.select(OmegaConf.load(folder / "config.yaml"), "trainer.precision")
    precision_note = resolve_precision(settings["trainer"])
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings)))
    print(f"{'resuming' if checkpoint else 'writing'} {folder}")
    if precision_note:
        print(precision_note)

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
        check_memory(system, stories, settings, on_cpu=trainer.strategy.root_device.type == "cpu")
        with told_in_one_line("", ForeignState):
            trainer.fit(system, data, ckpt_path=checkpoint)
    except Exception as error:
        text = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        write_record(folder / METRICS, {"config": config, "seeds": seeds, "error": text})
        raise
    finally:
        wandb.finish()
    if isinstance(model, TrainedStoryModel):
        model.card = {"experiment": experiment} | card(model, stories, settings, trainer.global_step)
    model.save_pretrained(folder / MODEL)
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    write_record(
        folder / METRICS,
        metrics_record(
            values,
            protocol={"kind": "training", "data": settings["data"], "max_steps": settings["trainer"]["max_steps"]},
            n={"steps": trainer.global_step},
            wall_seconds=time.monotonic() - started,
            seeds=seeds,
            device=device_name(),
            precision=settings["trainer"]["precision"],
            config=config,
        ),
    )
    print(f"wrote {folder / MODEL} and {folder / METRICS}")


def run_folder(experiment: Path, name: str | None, resume: bool) -> Path:
    """The folder of a run: a new one, or with ``resume`` the one to go on with."""
    if name is not None:
        folder = experiment / str(name)
        if (folder / LAST).is_file() and not resume:
            raise UserError(f"{folder} holds a run: go on with resume=true, or choose another name=")
        return folder
    if resume:
        found = list(experiment.glob(f"**/{LAST}"))
        if not found:
            raise UserError(f"nothing to resume: no checkpoint under {experiment}; start without resume=true")
        return max(found, key=lambda path: path.stat().st_mtime).parent.parent
    stamp = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    number = 1
    while True:
        folder = experiment / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        return folder


def resolve_precision(trainer: dict[str, Any]) -> str | None:
    """Put the precision that the run trains in into its settings; return what to tell the user, if anything.

    The resolved one is written with the run's config, where a resumed run finds it.
    """
    asked, accelerator = trainer.get("precision") or SINGLE, str(trainer.get("accelerator", "auto"))
    trainer["precision"], note = resolved(str(asked), accelerator)
    return note


def check_memory(system: Any, stories: Stories, settings: dict[str, Any], on_cpu: bool) -> None:
    """Say what a StoryDALL-E's training needs where the trainer sets a limit, and refuse one that needs more."""
    limit, num_frames = settings["memory_limit_gb"], settings["data"]["num_targets"]
    if limit is None or not isinstance(system, StoryDALLETraining):
        return
    inputs.check_number("memory_limit_gb", limit, 0, None)
    needed = training_memory(
        system,
        settings["data_module"]["batch_size"],
        int(stories.story_lengths().max()) if num_frames is None else num_frames,
        str(settings["trainer"]["precision"]),
        on_cpu,
        has_average=settings["ema_decay"] is not None,
    )
    if needed.total > limit * 1e9:
        raise UserError(f"needs about {needed}; memory_limit_gb={limit}: {less_memory(system, settings)}")
    print(f"needs about {needed}")


def less_memory(system: StoryDALLETraining, settings: dict[str, Any]) -> str:
    """What can be changed that is not changed yet, from what costs least."""
    changes = {
        "system.activation_checkpointing=true": not system.model.backbone.activation_checkpointing,
        "data_module.batch_size=1 with trainer.accumulate_grad_batches": settings["data_module"]["batch_size"] > 1,
        "ema_decay=null": settings["ema_decay"] is not None,
        "system.optimizer=adamw8bit": system.optimizer != "adamw8bit",
        "retrofit=released": len(system.model.source_attention) > system.model.backbone.depth // 3,
        "system.tuning=prompt or retrofit": system.tuning == "full",
    }
    possible = [change for change, helps in changes.items() if helps]
    return f"try {', '.join(possible)}" if possible else "take a trainer= of a larger device"


def tokenizers_of(model: Any) -> dict[str, Any]:
    """What the data module needs of a model that works on tokens and codes."""
    names = ("image_tokenizer", "caption_tokenizer")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


def loggers(folder: Path, experiment: str) -> list[Logger]:
    """CSV always; W&B in its own folder, online where a key is set and offline otherwise."""
    offline = "WANDB_API_KEY" not in os.environ
    settings = wandb.Settings(silent=True, console="off")
    name = f"{experiment}/{folder.name}"
    online = WandbLogger(project="storydalle", name=name, save_dir=folder, offline=offline, settings=settings)
    # Lightning hands on a setting that is gone, about which every run would be warned.
    getattr(online, "_wandb_init", {}).pop("anonymous", None)
    return [CSVLogger(folder, name="csv"), online]


def callbacks(folder: Path, settings: dict[str, Any], model: Any, stories: Stories) -> list[Callback]:
    every, decay = settings["save_every"], settings["ema_decay"]
    strips = [SampleStrips(model, stories, folder / "strips", every=every)] if isinstance(model, StoryModel) else []
    average = [RunningMean(decay=decay)] if decay else []
    return [
        *strips,
        *average,
        Checkpoints(dirpath=folder / LAST.parent, save_last=True, save_top_k=0, every_n_train_steps=every),
        TQDMProgressBar(refresh_rate=10),
    ]


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
    }


def config_name(request: Request) -> str:
    """What tells runs of an experiment apart in a report: the settings that were changed, but for the seed."""
    changed = [override for override in request.overrides if override.partition("=")[0].lstrip("+~") not in NOT_IN_NAME]
    return " ".join([request.choices["experiment"], *sorted(changed)])


def quieten() -> None:
    """Keep tips and remarks on Lightning's own workings off the terminal."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in (
        *("LeafSpec.* is deprecated", "in eval mode", "does not have many workers"),
        *("not supported by the model summary", "no pre-optimization state was saved"),
    ):
        warnings.filterwarnings("ignore", message=f".*{text}")
    os.environ.setdefault("WANDB_SILENT", "true")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
