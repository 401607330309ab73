"""train: train an experiment, or a sweep with -m.

  storydalle train experiment=toon/story_dalle
  storydalle train experiment=toon/story_dalle resume=true           continue an interrupted run exactly
  storydalle train -m experiment=toon/story_dalle sweep=ablation     several runs, then a table of them
  storydalle train -m experiment=toon/story_dalle seeds=3            one run for each seed

The runs of a sweep are in one folder, with a plan of them. The same command continues it: runs that are finished, or
that another launch trains, are skipped; interrupted ones go on; failed ones are tried again with retry=true, and end no
other. Other settings are other runs. --cfg job shows the settings of the first run, and a list of all.
pretrained={experiment:NAME,key:value} is a recipe: the model of that training, which is made first, once for all runs.
A resumed run keeps the settings that it began with; only logging, saving and the number of steps may change. A finished
run is never changed: to train its model further, start another run with pretrained= and its folder. A loss that is not
finite stops a training at once, with exit status 1; the last good checkpoint is kept.

Writes runs/<experiment>/<name>, or in a sweep runs/<experiment>/<sweep>/<name>: config.yaml, checkpoints/, model/ (for
model= of other commands), strips/, csv/ and, at the very end, metrics.json.
"""

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from storydalle.commands.application import Request, config_flags, factory, instantiate, read_yaml, to_yaml
from storydalle.commands.members import check_member, hash_of_run
from storydalle.commands.resuming import own_settings, resumed_settings
from storydalle.commands.shared import shared_model, shared_work
from storydalle.files import locks, outputs
from storydalle.files.conf import conf_folder
from storydalle.files.dotted import leaves, value_at
from storydalle.files.records import git_state, metrics_record, write_record
from storydalle.files.whole import write_text
from storydalle.mistakes import Failure, UserError, told_in_one_line
from storydalle.models.licences import inherited
from storydalle.models.pretrained import PretrainedModel
from storydalle.reporting.sample_strips import sample_strips
from storydalle.settings import filled, mapping
from storydalle.stories.opening import tell
from storydalle.stories.own_sizes import sizes_told
from storydalle.stories.story import Stories
from storydalle.tokens.cache import StoryCodes
from storydalle.training import processes
from storydalle.training.building import learn_words, model_folder
from storydalle.training.callbacks import callbacks
from storydalle.training.cost import cost_of
from storydalle.training.finite import Kept, values_of
from storydalle.training.memory_limit import check_memory
from storydalle.training.pruning import Pruning, pruned_at
from storydalle.training.quiet import quieten
from storydalle.training.runs import (
    CONFIG,
    LAST,
    MEMORY,
    METRICS,
    MODEL,
    KeptByRun,
    TrainingRun,
    check_unfinished,
    folder_for_run,
    memory,
    write_failure,
)
from storydalle.training.state import SafetensorsCheckpointIO, load_state
from storydalle.training.sweeps import settings_hash
from storydalle.training.train_settings import RunChoice, TrainSettings, fitted_trainer, unfinished_stages
from storydalle.training.validated import best_of, reason_to_stop

OF_SEARCHES = ("search", "new_study")
NOT_IN_NAME = ("experiment", "sweep", "seed", "name", "runs", "resume", "retry", "save_every", "logger", *OF_SEARCHES)


class Plan(NamedTuple):
    """The decisions of the first process, as JSON, from which all processes of a run train."""

    folder: str
    experiment: str
    tree: dict[str, object]  # of settings
    network: dict[str, object]  # of the settings, with the folder of the model that it is built on
    shared: list[dict[str, str]]  # that other runs are built on too: what, hash, where
    config: str  # the run's name in reports
    checkpoint: str | None
    start: int  # the step of the checkpoint
    values: dict[str, float]  # what had been logged by then

    @property
    def settings(self) -> TrainSettings:
        return filled(TrainSettings, self.tree)


def run(request: Request) -> None:
    """Train, with the run's folder locked; of several processes the first one decides."""
    with processes.beside_the_first(), ExitStack() as held:
        plan = Plan(**processes.agreed(lambda: begin(request, held)._asdict()))
        train(plan, request.overrides, started=time.monotonic())


def begin(request: Request, held: ExitStack) -> Plan:
    """Choose the run's folder and settings, and write them down; the record of an earlier, failed try is deleted."""
    choice, experiment = filled(RunChoice, request.settings), request.choices["experiment"]
    if request.settings.get("search") and not (request.is_member or choice.resume):
        raise UserError("a search is a sweep of many runs: give -m, as in storydalle train -m ... sweep=search")
    folder = held.enter_context(folder_for_run(choice.runs / experiment, choice.name, choice.resume))
    outputs.check_space(folder, megabytes=500)
    held.enter_context(locks.held(folder, "train"))
    check_unfinished(folder)  # another process may have ended the run before this one got its lock
    check_member(request, folder)
    checkpoint, state = last_checkpoint(folder)
    kept = memory(folder) if checkpoint else {}
    found, shared = kept.get("pretrained"), kept.get("shared", [])
    if not (found and Path(found).is_dir()):  # before anything asks a device, which other processes could not share
        own = own_settings(folder) if checkpoint else {}
        found, shared = built_on(request._replace(settings=request.settings | own))
    tree, notes = settings_of_run(request, folder, is_resumed=checkpoint is not None)
    settings = filled(TrainSettings, tree)
    config, number = kept.get("config") or config_name(request), kept.get("wandb") or secrets.token_hex(4)
    start = state.get("global_step", 0)
    of_settings = hash_of_run(request, folder, tree) if checkpoint else settings_hash(request.settings)
    # First, so that a run with a config says of which settings it is.
    told = KeptByRun(config=config, settings=of_settings, wandb=number, pretrained=found, shared=shared)
    write_record(folder / MEMORY, told | {"start": start, "max_steps": settings.steps.max_steps})
    write_text(folder / CONFIG, to_yaml(tree))
    (folder / METRICS).unlink(missing_ok=True)
    print(f"{'resuming' if checkpoint else 'writing'} {folder}", *notes, sep="\n")
    return Plan(
        folder=str(folder),
        experiment=experiment,
        tree=tree,
        network=with_model(settings, found),
        shared=shared,
        config=config,
        checkpoint=str(checkpoint) if checkpoint else None,
        start=start,
        values=state.get("values", {}),
    )


def last_checkpoint(folder: Path) -> tuple[Path | None, Mapping[str, Any]]:
    """A run's last checkpoint and its content; None and nothing if there is none yet."""
    path = folder / LAST
    if not path.is_file():
        return None, {}
    with told_in_one_line(""):
        return path, load_state(path)


def settings_of_run(request: Request, folder: Path, is_resumed: bool) -> tuple[dict[str, object], list[str]]:
    """All settings of a run, and notes for the user on some of them."""
    tree = resumed_settings(request, folder) if is_resumed else request.settings
    trainer, notes = fitted_trainer(filled(TrainSettings, tree))
    tree = tree | {"trainer": trainer}
    notes = unfinished_stages(filled(TrainSettings, tree)) + notes
    if not is_resumed:
        notes += set_by_trainer(request)
    if "sized" in tree:
        notes.append(sizes_told(tree, request.given))
    return tree, notes


def set_by_trainer(request: Request) -> list[str]:
    """A note on the settings outside ``trainer`` that the chosen trainer sets."""
    name = request.choices["trainer"]
    path = conf_folder() / "trainer" / f"{name}.yaml"
    if not path.is_file():  # a folder of the user's own has it
        return []
    beside = {key: value for key, value in read_yaml(path).items() if key not in ("defaults", "trainer")}
    is_global = path.read_text(encoding="utf-8").startswith("# @package _global_")
    found = {key: value_at(request.settings, key) for key, _ in leaves(beside)} if is_global else {}
    told = [f"{key}={value}" for key, value in found.items() if key not in request.given]
    return [f"trainer={name} sets {', '.join(told)}"] if told else []


def built_on(request: Request) -> tuple[str | None, list[dict[str, str]]]:
    """The folder of the pretrained model, if there is one, and what other runs share; a recipe's is trained here."""
    settings = filled(TrainSettings, request.settings)
    asked = settings.pretrained
    if asked is None or "runs" not in settings.network:  # networks that build on a model look for it in their runs
        return None, []
    if isinstance(asked, str):
        return str(model_folder(asked, settings.runs)), []
    return str(shared_model(asked, request, run) / MODEL), shared_work(asked, request)


def with_model(settings: TrainSettings, found: str | None) -> dict[str, object]:
    """The network's settings, with the name of the pretrained model replaced by its folder."""
    is_named = found is not None
    return {
        key: found if is_named and value == settings.pretrained else value for key, value in settings.network.items()
    }


def train(plan: Plan, overrides: Sequence[str], started: float) -> None:
    """Seed, build, resume, fit; the first process saves."""
    folder, settings = Path(plan.folder), plan.settings
    about: dict[str, Any] = {"config": plan.config, "seeds": [settings.seed]}
    quieten()
    pl.seed_everything(settings.seed % 2**32, verbose=False)
    try:
        trained = fit(plan, overrides)
        if processes.is_first():
            about |= end_of(trained, settings.steps.max_steps)
            trained = with_best(trained)
            save(trained, plan)
    except Exception as error:
        if processes.is_first():
            write_failure(folder, about, error)
        raise
    finally:
        wandb.finish()
    if processes.is_first():
        write_result(plan, trained, about, wall_seconds=time.monotonic() - started)
        print(f"wrote {folder / MODEL} and {folder / METRICS}")


def write_result(plan: Plan, trained: "Trained", about: Mapping[str, Any], wall_seconds: float) -> None:
    """Record the last values of a finished training."""
    settings = plan.settings
    record = metrics_record(
        plan.values | values_of(trained.trainer) | dict(trained.values),
        protocol={"kind": "training", "data": settings.data, "max_steps": settings.steps.max_steps},
        n={"steps": trained.num_steps},
        wall_seconds=wall_seconds,
        device=device_name(),
        precision=settings.precision,
        shared=[*plan.shared, *(trained.data.shared_work() if isinstance(trained.data, StoryCodes) else ())],
        cost=cost_of(trained.trainer, trained.model if isinstance(trained.model, torch.nn.Module) else trained.system),
        **about,
    )
    write_record(Path(plan.folder) / METRICS, record)


@runtime_checkable
class Saved(Protocol):
    """A trained model that draws, or another network, such as an image tokenizer."""

    def save_pretrained(self, save_directory: Path) -> object: ...


class Trained(NamedTuple):
    trainer: pl.Trainer
    num_steps: int
    model: Saved
    system: pl.LightningModule
    data: pl.LightningDataModule
    stories: Stories  # of validation
    values: Mapping[str, float] = MappingProxyType({})  # of the model, where it is not that of the last step
    num_model_steps: int | None = None  # that the model was trained for, where they are not all


def fit(plan: Plan, overrides: Sequence[str]) -> Trained:
    """Build model, data and trainer from the settings, and train from the first step or from the checkpoint."""
    folder, settings = Path(plan.folder), plan.settings
    with told_in_one_line("a setting is refused", ValueError, TypeError):
        model = instantiate(plan.network)
        system = factory(settings.system)(model)
        data = factory(settings.data_module)(**tokenizers_of(model))
        stories = instantiate(mapping("data.val", settings.data["val"]))
        run = TrainingRun(folder, f"{plan.experiment}/{folder.name}", plan.start, getattr(system, "MONITOR", None))
        strips = sample_strips(folder, settings.save_every, model, stories)
        loggers, more = (chosen(group, run) for group in (settings.logger, settings.callbacks))
        more += [Pruning(folder, settings.search)] if settings.search else []
        with told_in_one_line(device_of(settings), MisconfigurationException):
            trainer = factory(settings.trainer)(
                default_root_dir=folder,
                logger=loggers,
                callbacks=[*strips, *callbacks(folder, settings, more)],
                plugins=[SafetensorsCheckpointIO()],
            )
    tell(stories.notes)
    check_memory(system, data, stories, settings, trainer.strategy.root_device)
    processes.prepare(trainer, [*config_flags(), *overrides])
    with processes.running(trainer), told_in_one_line("", ValueError, MisconfigurationException):
        trainer.fit(system, data, ckpt_path=plan.checkpoint)
    return Trained(trainer, processes.steps_made(trainer), model, system, data, stories)


def chosen(group: Mapping[str, object], run: TrainingRun) -> list[Any]:
    """Build the entries of a config group; those with ``_partial_`` also get the run."""
    entries = [each for each in group.values() if isinstance(each, Mapping) and "_target_" in each]
    made = [factory(each)(run) if each.get("_partial_") else instantiate(each) for each in entries]
    return [each for each in made if each is not None]


def end_of(trained: Trained, max_steps: int) -> dict[str, object]:
    """Print why a training ended before its last step, if it did; the same goes into the record."""
    if trained.num_steps >= max_steps:
        return {}
    pruned = pruned_at(trained.trainer)
    reason = "the search gave it up" if pruned is not None else reason_to_stop(trained.trainer)
    told = f"step {trained.num_steps} of {max_steps}" + (f": {reason}" if reason else "")
    print(f"stopped early, after {told}")
    return {"stopped_early": told} | ({} if pruned is None else {"pruned": pruned})


def with_best(trained: Trained) -> Trained:
    """Give the model the weights of the best validation, if the settings ask for it."""
    path = best_of(trained.trainer)
    if path is None:
        return trained
    with told_in_one_line(""):
        state = load_state(path)
    trained.system.load_state_dict(state["state_dict"])
    print(f"the model is from step {state['global_step']}, which had the best validation")
    return trained._replace(values=state["values"], num_model_steps=state["global_step"])


def device_of(settings: TrainSettings) -> str:
    """The beginning of the message about a missing device."""
    accelerator, devices = (settings.trainer.get(key, "auto") for key in ("accelerator", "devices"))
    return (
        f"trainer.accelerator={accelerator} with trainer.devices={devices} is not available here (accelerator=auto "
        "uses what is)"
    )


def save(trained: Trained, plan: Plan) -> None:
    """Write the model with its card and words. Raises Failure if a weight is not finite."""
    model, folder = trained.model, Path(plan.folder)
    if isinstance(model, PretrainedModel):
        made = card(model, trained.stories, plan.settings, trained.num_model_steps or trained.num_steps)
        model.card = {"experiment": plan.experiment} | made
        learn_words(model, getattr(trained.data, "train", None), getattr(trained.system, "texts", "captions"))
    try:
        model.save_pretrained(folder / MODEL)
    except ValueError as error:
        raise Failure(f"{error}; {Kept(folder)}") from error


def tokenizers_of(model: object) -> dict[str, object]:
    """The tokenizers of a model that works on tokens and codes; its data module needs them."""
    names = ("image_tokenizer", "caption_tokenizer")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


def card(model: PretrainedModel, stories: Stories, settings: TrainSettings, num_steps: int) -> dict[str, object]:
    """The card of a model: how it was made, and the settings that its use depends on."""
    commit, dirty = git_state(Path(__file__).parent)
    return {
        "sampling": settings.sampling,
        "pretrained": settings.pretrained,
        "data": settings.data,
        "system": settings.system,
        "num_steps": num_steps,
        "seed": settings.seed,
        "commit": commit,
        "dirty": dirty,
        "story_window": settings.num_targets,  # captions that the story encoder read at once in training
        "guidance": bool(settings.system.get("caption_dropout")),
        **model.measured(stories),
        **inherited(model.card),
    }


def config_name(request: Request) -> str:
    """A name that distinguishes the runs of an experiment in a report: the changed settings, except the seed."""
    changed = [each for each in request.overrides if re.split(r"[.=@]", each.lstrip("+~"))[0] not in NOT_IN_NAME]
    return " ".join([request.choices["experiment"], *sorted(changed)])


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
