"""Recipes: the settings of a training in the place of its model's name, for what several runs are built on.

``pretrained={experiment: toon/text_to_image, max_steps: 500}`` means the model of that training. Its run is
``runs/<experiment>/shared/<hash>``, by the hash of its settings; ``shared`` trains it where it is not there yet.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from storydalle.commands.application import Request, composed, reading
from storydalle.commands.typed import Reading, quoted
from storydalle.files.dotted import value_at
from storydalle.mistakes import UserError
from storydalle.settings import filled
from storydalle.training.runs import SHARED
from storydalle.training.sweeps import settings_hash
from storydalle.training.train_settings import EXPERIMENT, PRETRAINED, Group, RunChoice, TrainSettings, recipe_of

LETTERS = 12  # of a hash that name a folder


class SharedRun(NamedTuple):
    """The run that a recipe means."""

    request: Request
    sha256: str  # of its settings

    @property
    def folder(self) -> Path:
        choice = filled(RunChoice, self.request.settings)
        return choice.runs / self.request.choices[EXPERIMENT] / str(choice.name)


def shared_run(recipe: Group, by: Request) -> SharedRun:
    """The run of a recipe in the settings of ``by``.

    Its settings are those of its experiment and of the recipe. Where things are is the same for both: the folder of
    runs, the loggers, and the root of the same data set. Raises UserError for a recipe that cannot be trained.
    """
    given = [f"{key}={literal(value)}" for key, value in flat(recipe)]
    given.append(f"runs={literal(by.settings['runs'])}")
    try:
        request = composed_training(*given)
        if root := root_of_data(request, by):
            request = composed_training(*given, f"data.root={literal(root)}")
        filled(TrainSettings, request.settings)
    except UserError as error:
        raise UserError(f"the recipe pretrained.experiment={recipe[EXPERIMENT]}: {error}") from error
    sha256 = settings_hash(request.settings)
    name = f"{SHARED}/{sha256[:LETTERS]}"
    loggers = {} if "logger" in recipe else {"logger": by.settings["logger"]}
    settings = {**request.settings, **loggers, "name": name, "resume": True, "retry": True}
    overrides = (*request.overrides, f"name={name}", "resume=true")
    return SharedRun(Request(settings, overrides, request.choices, is_member=True), sha256)


@lru_cache(maxsize=64)  # the members of a sweep ask for the same
def composed_training(*overrides: str) -> Request:
    return composed("train", overrides)


def flat(recipe: Group, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Keys and values of a recipe, those of groups by dotted keys; a recipe inside it stays whole."""
    for key, value in recipe.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != PRETRAINED:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def root_of_data(request: Request, by: Request) -> object:
    """The folder of the same data set, if a recipe does not tell it."""
    is_same = request.choices["data"] == by.choices["data"]
    return value_at(by.settings, "data.root") if is_same and value_at(request.settings, "data.root") is None else None


def check_recipes(request: Request) -> None:
    """Refuse a recipe in the settings of a training that could not be trained, or one that its own recipe holds."""
    recipe = recipe_of(request.settings)
    if recipe is not None:
        check_recipes(shared_run(recipe, request).request)


def literal(value: object) -> str:
    """A value as an override has it."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{literal(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(literal, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    is_plain = not isinstance(value, str) or (value and reading(value) is Reading.TEXT)
    return str(value) if is_plain else quoted(str(value))
