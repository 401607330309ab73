"""The study of a search: which values its trials have, and what came of them, in ``study.db`` of the sweep's folder.

Each trial is a member of the sweep, and what came of it follows from that member's files. So a search that is killed at
any moment loses nothing: what ended is told to the study by the next one who opens it, what was interrupted goes on.
The values of a trial depend on the seed, on its number and on the trials before it, and not on when it is asked for.
"""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storydalle.files import locks
from storydalle.files.reading import read_object
from storydalle.mistakes import Failure, Taken, UserError, first_few
from storydalle.training import sweeps
from storydalle.training.runs import METRICS, State, state_of
from storydalle.training.search_settings import PRUNERS, SAMPLERS, Axis, Choices, SearchSettings, named_options

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDY = "study.db"
PATIENCE = 600.0  # seconds to wait for another process that writes into the study; it may be one that was stopped
MEMBER, RETRY, BEGUN_WITH = "member", "retry", "begun_with"  # what a study and its trials remember
FIRST = "1"  # the name of the first study of a folder
MOST_NAMED = 3
MISSING = 'a search needs the package optuna: pip install "storydalle[search]"'


# ------------------------------------------------------------------------------------------------ the file


@contextmanager
def opened(folder: Path, search: SearchSettings | None = None) -> Iterator["optuna.Study"]:
    """The newest study of a sweep's folder, with the pruner of a search.

    Nothing stays open afterwards: a process that forks must not share it.
    """
    with storage_of(folder) as storage:
        import optuna

        pruner, names = None if search is None else pruner_of(search), study_names(storage)
        if not names:
            raise UserError(f"{folder / STUDY} holds no study yet: the command that began the search makes one")
        yield optuna.load_study(study_name=names[-1], storage=storage, pruner=pruner)


@contextmanager
def storage_of(folder: Path) -> Iterator["optuna.storages.RDBStorage"]:
    """The storage of a sweep's studies, which is made if there is none yet."""
    check_installed()
    import optuna
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / STUDY
    url = URL.create("sqlite", database=str(path)).render_as_string()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.RDBStorage(url, {"connect_args": {"timeout": PATIENCE}})
            try:
                yield storage
            finally:
                storage.remove_session()
                storage.engine.dispose()
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise Failure(f"{path}: {cause}; if it is damaged, move it away and the search begins anew") from error


def is_installed() -> bool:
    return find_spec("optuna") is not None


def check_installed() -> None:
    if not is_installed():
        raise UserError(MISSING)


def study_names(storage: "optuna.storages.RDBStorage") -> list[str]:
    """Names of all studies, the newest last: a search whose space has changed has several."""
    import optuna

    return sorted(optuna.get_all_study_names(storage), key=int)


def begin(folder: Path, search: SearchSettings, begun_with: Mapping[str, object], is_new: bool) -> None:
    """Make the study, or see that it asks the same question still. Raises UserError naming what has changed."""
    import optuna
    from optuna.study import StudyDirection

    with storage_of(folder) as storage:
        names = study_names(storage)
        study = optuna.load_study(study_name=names[-1], storage=storage) if names else None
        before = study.user_attrs.get(BEGUN_WITH) if study is not None else None
        if before == dict(begun_with):
            return
        if before is not None and not is_new:
            told = changes(before, begun_with)
            raise UserError(f"{folder} was begun with other settings: {told}; new_study=true searches anew beside it")
        if study is None or before is not None:  # else it was made by a launch that was killed before it said for what
            name = str(len(names) + int(FIRST))
            study = optuna.create_study(
                study_name=name, storage=storage, direction=StudyDirection[search.direction.upper()]
            )
        study.set_user_attr(BEGUN_WITH, dict(begun_with))


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """``max_steps is 20 and was 10, ...``."""
    keys = [key for key in dict.fromkeys([*now, *before]) if before.get(key) != now.get(key)]
    told = [f"{key} is {now.get(key, 'left out')} and was {before.get(key, 'not there')}" for key in keys]
    return first_few(told, MOST_NAMED)


def begun_with(search: SearchSettings, settings: Mapping[str, object]) -> dict[str, object]:
    """All that trials of one study have in common, with texts for the axes of the space."""
    space = {f"search.space.{key}": str(axis) for key, axis in sorted(search.axes(settings).items())}
    trained = sweeps.trained_settings(settings)
    same = {"search.metric": search.metric, "search.direction": search.direction}
    return space | same | {key: each for key, each in trained.items() if key not in search.space}


# ------------------------------------------------------------------------------------------------ the space


def distributions(axes: Mapping[str, Axis]) -> dict[str, "optuna.distributions.BaseDistribution"]:
    """The axes of a space, as Optuna has them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for key, axis in axes.items():
        if isinstance(axis, Choices):
            found[key] = CategoricalDistribution(axis.values)
        elif axis.is_whole:
            found[key] = IntDistribution(int(axis.low), int(axis.high), axis.log, int(axis.step or 1))
        else:
            found[key] = FloatDistribution(axis.low, axis.high, axis.log, axis.step)
    return found


def sampler_of(search: SearchSettings, number: int) -> "optuna.samplers.BaseSampler":
    """The sampler for one trial: seeded by its number, so that it is the same whoever asks, and when."""
    import optuna

    from storydalle.training.rounded_sampler import RoundedSampler

    name, options = named_options("sampler", search.sampler, SAMPLERS)
    seed = options.pop("seed", 0)
    own = int(hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:8], 16)
    if name == "qmc":  # a sequence, of which the study remembers the place
        options |= {"seed": seed, "independent_sampler": optuna.samplers.RandomSampler(own)}
    else:
        options["seed"] = own
    return RoundedSampler(made("sampler", SAMPLERS[name], options))


def pruner_of(search: SearchSettings) -> "optuna.pruners.BasePruner":
    name, options = named_options("pruner", search.pruner, PRUNERS)
    return made("pruner", PRUNERS[name], options)


def made(what: str, kind: str, options: Mapping[str, object]) -> Any:
    """A sampler or pruner of Optuna's; its own complaints in one line."""
    import optuna

    try:
        return getattr(getattr(optuna, f"{what}s"), kind)(**options)
    except ModuleNotFoundError as error:
        raise UserError(f"search.{what} needs the package {error.name}: pip install {error.name}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"search.{what} is refused: {str(error).splitlines()[0]}") from error


# ------------------------------------------------------------------------------------------------ trials


def asked(study: "optuna.Study") -> list["FrozenTrial"]:
    """The trials that count: each of another number, and not again one that failed."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if MEMBER in trial.user_attrs and RETRY not in trial.user_attrs]


def unfinished(study: "optuna.Study") -> list["FrozenTrial"]:
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]


def newest_of_each(study: "optuna.Study") -> list["FrozenTrial"]:
    """The trials that count, those that were tried again as they came out last."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs[RETRY]: trial for trial in trials if RETRY in trial.user_attrs}
    return [again.get(trial.number, trial) for trial in asked(study)]


def settle(study: "optuna.Study", experiment: Path, metric: str) -> None:
    """Tell the study what came of trials whose runs have ended; of its folder, the caller has the lock."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        name = trial.user_attrs.get(MEMBER)
        if name is None:  # whoever asked for it was killed before it had a run
            study.tell(trial.number, state=TrialState.FAIL)
            continue
        with suppress(Taken), ExitStack() as held:
            claim(experiment / name, held)
            state = state_of(experiment / name)
            value = value_of(experiment / name, metric) if state is State.FINISHED else None
            if state is State.PRUNED:
                study.tell(trial.number, state=TrialState.PRUNED)
            elif value is not None:
                study.tell(trial.number, value)
            elif state in (State.FINISHED, State.FAILED):
                study.tell(trial.number, state=TrialState.FAIL)


def claim(run: Path, held: ExitStack) -> None:
    """Keep others from a trial, from before its run has a folder until after its end. Raises Taken if one has it."""
    held.enter_context(locks.held(run, "train -m", is_folder=False))
    if run.is_dir():  # its process may live longer than the one that started it
        with locks.held(run, "train -m"):
            pass


def value_of(run: Path, metric: str) -> float | None:
    """The value by which a finished run is judged; None if its record has none."""
    values = read_object(run / METRICS).get("values")
    value = values.get(metric) if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) else None


def try_failed_again(study: "optuna.Study") -> None:
    """Put trials that failed into the queue once more, with their values."""
    from optuna.trial import TrialState

    for first, newest in zip(asked(study), newest_of_each(study), strict=True):
        if newest.state is TrialState.FAIL:
            study.enqueue_trial(first.params, {MEMBER: first.user_attrs[MEMBER], RETRY: first.number})


def waits(trial: "FrozenTrial") -> bool:
    """True for a trial in the queue, of one that is to be tried again."""
    return trial.state.name == "WAITING"


def take_from_queue(study: "optuna.Study", waiting: "FrozenTrial") -> None:
    """Begin the oldest trial of the queue. Raises Taken if that is another one, which somebody keeps."""
    oldest = next(trial for trial in unfinished(study) if waits(trial))
    if oldest.number != waiting.number:
        raise Taken(f"trial {oldest.number} waits before {waiting.number}")
    study.ask(first_of(study, waiting).distributions)


def first_of(study: "optuna.Study", trial: "FrozenTrial") -> "FrozenTrial":
    """The trial that is tried again by this one, which has its values; else this one."""
    number = trial.user_attrs.get(RETRY)
    return trial if number is None else study.get_trials(deepcopy=False)[number]


class OwnTrial:
    """The trial of a run, for the run itself; without one, where nobody searches (any more), it is never hopeless."""

    def __init__(self, run: Path, search: SearchSettings) -> None:
        self.run, self.search = run, search

    def is_hopeless(self, value: float, step: int) -> bool:
        """Report a value; True if the pruner gives the trial up. A step that was reported before changes nothing."""
        if not (self.run.parent / STUDY).is_file():
            return False
        with opened(self.run.parent, self.search) as study:
            import optuna
            from optuna.trial import TrialState

            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            own = [each for each in running if Path(each.user_attrs.get(MEMBER, "")).name == self.run.name]
            if not own or step < (own[0].last_step or 0):
                return False
            trial = optuna.trial.Trial(study, own[0]._trial_id)
            if step != own[0].last_step:
                trial.report(value, step)
            return bool(trial.should_prune())
