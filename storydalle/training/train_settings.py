"""Settings of a training: read once; refused if they would silently spoil it, with notes on surprising ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from storydalle.mistakes import UserError
from storydalle.settings import Between, Count, Seed, filled
from storydalle.training.precision_names import SINGLE
from storydalle.training.search_settings import SearchSettings

Group = Mapping[str, object]  # of a config: what its ``_target_`` is given
STAGES = (
    "warmup_steps",
    "story_warmup_steps",
    "steps_without_quantization",
    "adversarial_start",
)  # from the first step
EXPERIMENT, PRETRAINED = "experiment", "pretrained"
NOT_IN_RECIPES = ("name", "runs", "resume", "retry", "sweep")  # a recipe says what is trained
# Options of Lightning's trainer that a run sets itself, and how they are chosen here.
SET_BY_RUNS = {
    "callbacks": "choose them with callbacks=[NAME,...], or add one with +callbacks.NAME._target_=",
    "logger": "choose them with logger=[NAME,...], or add one with +logger.NAME._target_=",
    "plugins": "a run's checkpoints are safetensors",
    "default_root_dir": "a run's folder is runs= with experiment= and name=",
}
TENSORBOARD = ("tensorboard", "tensorboardX")  # either of these packages writes its logger's files


@dataclass(frozen=True)
class RunChoice:
    """The choice of a run: a new one, or one to resume."""

    seed: Seed
    runs: Path
    name: str | None
    resume: bool
    retry: bool = field(default=False, kw_only=True)  # members of a sweep that failed


@dataclass(frozen=True)
class Steps:
    """The settings of the trainer that are used here."""

    max_steps: Count
    accumulate_grad_batches: Count = 1


@dataclass(frozen=True)
class Batches:
    """The settings of the data module that are used here."""

    batch_size: Count


@dataclass(frozen=True)
class TrainSettings(RunChoice):
    """The settings of ``storydalle train``; values with which nothing would be trained or saved are refused."""

    pretrained: Group | str | None  # a name, or a recipe
    save_every: Count
    ema_decay: Annotated[float | int, Between(0, 1)] | None
    memory_limit_gb: Annotated[float | int, Between(0)] | None  # 10^9 bytes
    sampling: Group | None  # goes into the model's card
    network: Group
    system: Group
    data: Group
    data_module: Group
    trainer: Group
    logger: Group
    callbacks: Group
    search: SearchSettings | None = None  # of a sweep that chooses its members' settings itself
    new_study: bool = False  # if the search's space has changed
    sized: Group | None = None  # which settings follow the number of pictures, of recipes for one's own

    def __post_init__(self) -> None:
        for name in SET_BY_RUNS:
            if name in self.trainer:
                raise UserError(f"trainer.{name}={self.trainer[name]} is set by each run itself: {SET_BY_RUNS[name]}")
        assert self.steps and self.batch_size  # which checks them
        check_loggers(self.logger)
        for name in ("clip", "gradient_clip"):
            value = self.system.get(name)
            if not isinstance(value, int | float | None):
                raise UserError(
                    f"system.{name}={value} is no number: use one above 0, or null to leave gradients alone"
                )
            if isinstance(value, int | float) and not value > 0:
                raise UserError(f"system.{name}={value} sets every gradient to zero: use a number above 0")
        recipe = recipe_of({PRETRAINED: self.pretrained})
        if recipe is not None and "runs" not in self.network:
            raise UserError("pretrained={...}: this training takes a name or a file there, and no recipe")
        if self.pretrained is not None and self.pretrained not in self.network.values():
            raise UserError(
                f"pretrained={self.pretrained}: this training starts from scratch, not from a model; leave it out"
            )

    @property
    def steps(self) -> Steps:
        return filled(Steps, self.trainer, "trainer.")

    @property
    def batch_size(self) -> int:
        return filled(Batches, self.data_module, "data_module.").batch_size

    @property
    def precision(self) -> str:
        return str(self.trainer.get("precision") or SINGLE)

    @property
    def num_targets(self) -> int | None:
        number = self.data["num_targets"]
        return number if isinstance(number, int) else None


def recipe_of(settings: Group) -> Group | None:
    """The recipe in the place of a pretrained model's name, if there is one. Raises UserError for one that is none."""
    recipe = settings[PRETRAINED]
    if not isinstance(recipe, Mapping):
        return None
    if not isinstance(recipe.get(EXPERIMENT), str):
        raise UserError(
            f"pretrained={dict(recipe)} names no experiment: a recipe is pretrained={{experiment:NAME,key:value,...}}"
        )
    if refused := sorted(recipe.keys() & set(NOT_IN_RECIPES)):
        raise UserError(
            f"pretrained.{refused[0]}={recipe[refused[0]]}: a recipe says only what is trained; leave it out"
        )
    return {str(key): value for key, value in recipe.items()}


def check_loggers(names: Iterable[str]) -> None:
    """Raise UserError if the package of a chosen logger is missing."""
    if "tensorboard" in names and not any(map(find_spec, TENSORBOARD)):
        raise UserError("logger=tensorboard needs the package tensorboard, which is missing: pip install tensorboard")


def fitted_trainer(settings: TrainSettings) -> tuple[dict[str, object], list[str]]:
    """The trainer's settings for this machine and this number of steps, and notes for the user.

    The validation interval is at most the number of steps, so there is at least one validation. The precision is
    written with the config of the run, for when it is resumed.
    """
    from storydalle.training.precision import resolved

    interval = settings.trainer.get("val_check_interval")
    last = settings.steps.max_steps * settings.steps.accumulate_grad_batches
    precision, note = resolved(settings.precision, str(settings.trainer.get("accelerator", "auto")))
    trainer = {**settings.trainer, "precision": precision}
    if isinstance(interval, int) and interval > last:
        trainer["val_check_interval"] = last
    return trainer, [note] if note else []


def unfinished_stages(settings: TrainSettings) -> list[str]:
    """Notes on stages at the beginning of a training that are longer than the training."""
    max_steps = settings.steps.max_steps
    return [
        f"note: trainer.max_steps={max_steps} ends the training before system.{name}={value} is over: "
        "what comes after it is not trained"
        for name in STAGES
        if isinstance(value := settings.system.get(name), int) and value >= max_steps
    ]
