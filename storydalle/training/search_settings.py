"""Settings of a search: which settings take which values, by what a run is judged, and when it is cut short.

search:
  metric: val/nats
  direction: minimize
  trials: 12
  sampler: tpe                                       # or {name: tpe, seed: 1, n_startup_trials: 5}
  pruner: median
  space:
    system.learning_rate: {low: 1e-4, high: 2e-3, log: true}
    system.story_warmup_steps: {low: 0, high: 400, step: 100}
    retrofit: [full, no_story]
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from storydalle.files.dotted import value_at
from storydalle.files.json_values import as_object
from storydalle.mistakes import UserError, nearest
from storydalle.settings import Count, Number, OneOf, filled, mapping
from storydalle.training.sweeps import is_trained

Named = str | Mapping[str, object]  # tpe, or {name: tpe, seed: 1}
Choice = str | int | float | bool | None
# Each with the class of Optuna that it stands for; its own options are those of the class.
SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "qmc": "QMCSampler", "gp": "GPSampler"}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
}
METRIC = "search.metric="  # the beginning of the error of a run that does not log what it is judged by
NOT_SEARCHED = ("experiment", "sweep")
FORM = "use a list of choices, [A, B], or {low: 1e-4, high: 1e-2, log: true}"


class Range(NamedTuple):
    """Numbers between two bounds, both included; whole ones if the bounds and the setting itself are whole."""

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None
    is_whole: bool = False

    @property
    def ends(self) -> tuple[Choice, ...]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + ", log" * self.log + f", step {self.step}" * (self.step is not None)


class Choices(NamedTuple):
    """Values without an order."""

    values: tuple[Choice, ...]

    @property
    def ends(self) -> tuple[Choice, ...]:
        return self.values

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.values))}]"


Axis = Range | Choices


@dataclass(frozen=True)
class SearchSettings:
    """The settings of a search."""

    metric: str
    direction: Annotated[str, OneOf(("minimize", "maximize"))]
    trials: Count
    space: Mapping[str, object]
    sampler: Named = "tpe"
    pruner: Named = "median"

    def __post_init__(self) -> None:
        if not self.space:
            raise UserError("search.space is empty: give at least one setting with its values")
        for key, values in self.space.items():
            axis_of(key, values)
        named_options("sampler", self.sampler, SAMPLERS)
        named_options("pruner", self.pruner, PRUNERS)

    def axes(self, settings: Mapping[str, object]) -> dict[str, Axis]:
        """What is searched, by dotted key; a setting that is a fraction in ``settings`` takes fractions."""
        return {key: axis_of(key, values, value_at(settings, key.lstrip("+"))) for key, values in self.space.items()}


def told_of_search(settings: Mapping[str, object]) -> list[str]:
    """How many trials a search has, and what its axes are."""
    search = filled(SearchSettings, mapping("search", settings["search"]), "search.")
    axes = [f"  {key}: {axis}" for key, axis in search.axes(settings).items()]
    return [f"This is a search of {search.trials} trials, which have these settings but for:", *axes]


def axis_of(key: str, values: object, now: object = None) -> Axis:
    """Read the values of one setting of a space. Raises UserError with the form that it should have."""
    name = f"search.space.{key}"
    if key in NOT_SEARCHED or not is_trained(key):
        raise UserError(f"{name}: no training depends on it; leave it out")
    if isinstance(values, list | tuple):
        return choices_of(name, values)
    if not isinstance(values, Mapping):
        raise UserError(f"{name}={values}: {FORM}")
    if unknown := sorted(values.keys() - {"low", "high", "log", "step"}):
        raise UserError(f"{name} has no {unknown[0]!r}; {nearest(unknown[0], ('low', 'high', 'log', 'step'))}")
    return range_of(name, as_object(dict(values)), now)


def choices_of(name: str, values: list[object] | tuple[object, ...]) -> Choices:
    for value in values:
        if not isinstance(value, str | int | float | bool | None):
            raise UserError(f"{name}: {value} is no single value; give names, numbers, true, false or null")
    found = Choices(tuple(values))  # type: ignore[arg-type]  # which was checked
    if not values or len({repr(value) for value in values}) < len(values):
        raise UserError(f"{name}={found}: give each of its values once, and at least one")
    return found


def range_of(name: str, values: Mapping[str, object], now: object) -> Range:
    numbers = [values.get(key) for key in ("low", "high", "step")]
    is_log = values.get("log", False)
    low, high, step = numbers
    if not (is_number(low) and is_number(high) and (step is None or is_number(step)) and isinstance(is_log, bool)):
        told = ", ".join(f"{key}: {value}" for key, value in values.items())
        raise UserError(f"{name}={{{told}}}: low, high and step are numbers, and log is true or false; {FORM}")
    assert isinstance(low, int | float) and isinstance(high, int | float) and isinstance(step, int | float | None)
    is_whole = all(isinstance(each, int | None) for each in numbers) and not isinstance(now, float)
    found = Range(low, high, is_log, step, is_whole)
    if not low < high:
        raise UserError(f"{name}={found}: low must be below high")
    if is_log and (low <= 0 or step is not None):
        raise UserError(f"{name}={found}: on a logarithmic axis low is above 0, and there is no step")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"{name}={found}: the step is above 0, and not above high minus low")
    return found


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def named_options(what: str, given: Named, known: Mapping[str, str]) -> tuple[str, dict[str, object]]:
    """The name of a sampler or pruner, and its options."""
    options: dict[str, object] = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in known:
        raise UserError(f"no search.{what}={name}; {nearest(str(name), known)}")
    return name, options
