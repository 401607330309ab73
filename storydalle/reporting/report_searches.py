"""Searches in a report: their trials with what they were judged by, the best first, and what mattered."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from storydalle.mistakes import UserError
from storydalle.reporting.report_tables import digits, number, table
from storydalle.training import studies

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FINISHED, PRUNED = "finished", "pruned"
STATES = {"COMPLETE": FINISHED, "PRUNED": PRUNED, "FAIL": "failed", "RUNNING": "begun", "WAITING": "begun"}
MAX_ROWS = 20
LEAST = 4  # finished trials that tell which settings matter


class TrialRow(NamedTuple):
    """A trial of a search."""

    name: str  # of its run's folder
    state: str
    value: float | None
    step: int | None  # at which it was judged last
    settings: Mapping[str, object]


class ShownAxis(NamedTuple):
    """What plots know of a setting that is searched."""

    choices: tuple[object, ...] | None  # none for numbers
    is_log: bool

    def place(self, value: object) -> float:
        """Where a value stands: a choice by its number."""
        return float(self.choices.index(value) if self.choices else value)  # type: ignore[arg-type]  # else a number


class FoundSearch(NamedTuple):
    """A search as it stands."""

    folder: Path
    metric: str
    direction: str
    space: Mapping[str, ShownAxis]
    trials: list[TrialRow]  # in the order in which they were begun
    importances: Mapping[str, float]

    @property
    def best_first(self) -> list[TrialRow]:
        sign = 1 if self.direction == "minimize" else -1

        def rank(trial: TrialRow) -> tuple[bool, bool, float]:
            value = trial.value
            return trial.state != FINISHED, value is None, 0.0 if value is None else sign * value

        return sorted(self.trials, key=rank)

    @property
    def heading(self) -> str:
        states = [trial.state for trial in self.trials]
        told = ", ".join(
            f"{states.count(state)} {state}" for state in dict.fromkeys(STATES.values()) if state in states
        )
        return f"Search {self.folder.name}, {self.direction} {self.metric}: {len(states)} trials, {told}"

    @property
    def note(self) -> str:
        """A sentence on what mattered."""
        if not self.importances:
            return f"Which settings matter is told from {LEAST} finished trials on."
        told = ", ".join(f"{key} {number(share, 2, least=2)}" for key, share in self.importances.items())
        return f"Share of each setting in the differences between finished trials (PED-ANOVA): {told}."

    def rows(self) -> list[list[str]]:
        """A header, then a trial a line."""
        values = [trial.value for trial in self.trials if trial.value is not None]
        decimals = digits(max(values) - min(values) or max(map(abs, values)), 3) if values else 0
        rows = [
            [
                *(trial.name, trial.state, "-" if trial.value is None else number(trial.value, decimals)),
                "-" if trial.step is None else str(trial.step),
                *(str(trial.settings.get(key, "-")) for key in self.space),
            ]
            for trial in self.best_first
        ]
        more = [[f"and {len(rows) - MAX_ROWS} more", *[""] * (3 + len(self.space))]] if len(rows) > MAX_ROWS else []
        return [["trial", "state", self.metric, "step", *self.space], *rows[:MAX_ROWS], *more]

    def text(self) -> str:
        return "\n\n".join([f"{self.heading}", table(self.rows()), self.note])


def searches_below(folder: Path) -> list[FoundSearch]:
    """The newest study of every search below a folder; none where the extra for searches is missing."""
    paths = sorted(folder.rglob(studies.STUDY))
    try:
        return [found for path in paths for found in read_search(path.parent)]
    except UserError as error:
        if str(error) != studies.MISSING:
            raise
        return []


def note_on_searches(folder: Path) -> str:
    """A sentence where there are searches that cannot be shown."""
    is_there = next(folder.rglob(studies.STUDY), None) is not None
    return "" if not is_there or studies.is_installed() else f"Searches are not shown: {studies.MISSING}"


def read_search(folder: Path) -> Iterator[FoundSearch]:
    with studies.opened(folder) as study:
        begun_with, counted = study.user_attrs.get(studies.BEGUN_WITH, {}), studies.asked(study)
        trials = [
            TrialRow(
                Path(trial.user_attrs[studies.MEMBER]).name,
                STATES[trial.state.name],
                trial.value,
                trial.last_step,
                studies.first_of(study, trial).params,
            )
            for trial in studies.newest_of_each(study)
        ]
        if trials:
            direction, space = begun_with["search.direction"], axes_of(counted[0])
            yield FoundSearch(folder, begun_with["search.metric"], direction, space, trials, importances(study))


def axes_of(trial: "FrozenTrial") -> dict[str, ShownAxis]:
    return {
        key: ShownAxis(getattr(axis, "choices", None), getattr(axis, "log", False))
        for key, axis in sorted(trial.distributions.items())
    }


def importances(study: "optuna.Study") -> dict[str, float]:
    """The share of each setting in the differences between finished trials, the largest first."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < LEAST or len({trial.value for trial in finished}) == 1:
        return {}
    return get_param_importances(study)
