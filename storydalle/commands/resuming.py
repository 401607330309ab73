"""A resumed run has the settings that it began with, from its ``config.yaml``; later defaults have no effect.

The command line may repeat them. Different values are refused, except for a short list (``MAY_CHANGE``).
"""

import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path

from storydalle.commands.application import Request, as_written, read_yaml
from storydalle.files.dotted import key_of, leaves, put, value_at
from storydalle.mistakes import UserError, first_few
from storydalle.training.moved import with_names_of_today
from storydalle.training.precision_names import AUTO
from storydalle.training.runs import CONFIG

STEPS = ("max_steps", "trainer.max_steps", "system.max_steps")  # may grow
MAY_CHANGE = (
    *("name", "runs", "resume", "retry", "sweep", "logger*", "callbacks*", "save_every", "memory_limit_gb", *STEPS),
    *("trainer.log_every_n_steps", "trainer.val_check_interval", "trainer.limit_val_batches", "trainer.max_time"),
    *("trainer.enable_*", "trainer.accelerator", "trainer.strategy*", "data_module.*workers"),
    # The data module refuses what would move the position in its data.
    *("trainer.devices", "trainer.num_nodes", "data_module.batch_size", "system.batch_size"),
)
CHOSEN_ANEW = ("logger", "callbacks")  # groups that the command line chooses as a whole, and not one setting at a time
MOST_NAMED = 3
ABSENT = "(nothing)"


def resumed_settings(request: Request, folder: Path) -> dict[str, object]:
    """The run's own settings with the changes of the command line. Raises UserError for one that is not allowed."""
    own = own_settings(folder)
    own |= {group: request.settings[group] for group in CHOSEN_ANEW if group in request.given}
    refused = []
    for key, value in asked(request).items():
        has = value_at(own, key, ABSENT)
        if value == has or (value == AUTO and key == "trainer.precision"):  # which had been resolved
            continue
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE):
            refused.append(f"{key}={value} (it has {has})")
        elif key in STEPS and not (isinstance(value, int) and isinstance(has, int) and value > has):
            refused.append(f"{key}={value} (it has {has}, and may have more)")
        elif value != ABSENT:
            put(own, key, value)
    if refused:
        raise UserError(
            f"{folder} can only be resumed with the settings that it began with; these differ: "
            f"{first_few(refused, MOST_NAMED)}; leave them out, or start a new run without resume=true"
        )
    return request.settings | own


def own_settings(folder: Path) -> dict[str, object]:
    """The settings in a run's folder, with the names of today."""
    try:
        settings = with_names_of_today(read_yaml(folder / CONFIG))
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} cannot be read ({error}): start without resume=true") from error
    logger = settings.get("logger")
    return settings | {"logger": by_name(logger)} if isinstance(logger, Mapping) and "kind" in logger else settings


def by_name(logger: Mapping[str, object]) -> dict[str, object]:
    """The logger of a run from the time of a single one, under its name in conf/logger."""
    where = {name: value for name, value in logger.items() if name != "kind"}
    made: dict[str, object] = {"csv": {"_target_": "storydalle.training.loggers.RunLog", "_partial_": True}}
    if logger["kind"] == "wandb":
        made["wandb"] = {"_target_": "storydalle.training.loggers.wandb_log", "_partial_": True, **where}
    return made | where


def asked(request: Request) -> dict[str, object]:
    """The settings that the command line names or makes differ from the experiment, with their values.

    A setting that is given as another one (``${max_steps}``) follows it.
    """
    experiment = f"experiment={request.choices['experiment']}"
    usual, now = (
        dict(leaves(as_written("train", overrides)))
        for overrides in ([experiment], [experiment, *groups_and_values(request)])
    )
    changed = {key for key in usual.keys() | now.keys() if usual.get(key, ABSENT) != now.get(key, ABSENT)}
    changed |= {key for key in now if any(is_within(key, given) for given in request.given)}
    followers = changed
    while followers := {key for key, value in now.items() if any(depends(value, each) for each in followers)} - changed:
        changed |= followers
    found: dict[str, object] = {}
    for key in sorted(changed, key=lambda key: (key not in request.given, key)):
        value = value_at(request.settings, key, ABSENT)
        found |= leaves(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return found


def groups_and_values(request: Request) -> list[str]:
    """The overrides of the command line, except those that say which run is meant."""
    others = ("experiment", "sweep", "search", "new_study", "name", "runs", "resume", "retry")
    return [each for each in request.overrides if key_of(each).partition(".")[0] not in others]


def is_within(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def depends(value: object, key: str) -> bool:
    """True if a setting, as it is written, takes its value from another one."""
    named = re.findall(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else []
    return any(is_within(key, name) for name in named)
