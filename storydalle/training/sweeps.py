"""A sweep as a folder: its plan says which runs are its members, written before the first one starts.

``runs/<experiment>/<sweep>/sweep.json`` lists the members with their overrides and the sha256 of their settings. A
member is a run as any other: its state follows from its own files (``runs.state_of``), and the lock of its folder
keeps a second launch out. So the plan does not change while members train, and the same command again continues it.
"""

import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from storydalle.files.dotted import key_of, leaves
from storydalle.files.json_values import are_texts, as_int, as_list, as_object, as_text
from storydalle.files.reading import read_object
from storydalle.files.records import canonical_json, jsonable, sha256_of_text
from storydalle.files.whole import write_json
from storydalle.mistakes import UserError
from storydalle.training.runs import DONE, METRICS, State, memory, state_of

PLAN = "sweep.json"
VERSION = 1
# Where a run is written, how it is logged and how it is started: none of it changes what is trained.
NOT_TRAINED = (
    *("name", "runs", "network.runs", "resume", "retry", "logger", "logger.*", "data_module.*workers"),
    *("search", "search.*", "new_study"),
)
Label = Callable[[Mapping[str, object]], str]  # keys with their values as a part of a folder's name


@dataclass(frozen=True)
class Member:
    """A run of a sweep."""

    name: str  # of its folder, below the experiment's
    sha256: str  # of its settings, see ``settings_hash``
    overrides: tuple[str, ...]  # of the command line and of the sweep


class PlannedSweep(NamedTuple):
    """A sweep whose plan is written."""

    experiment: Path
    folder: str  # below the experiment's
    members: tuple[Member, ...]

    def states(self) -> dict[str, State | None]:
        return {member.name: state_of(self.experiment / member.name) for member in self.members}


def settings_hash(settings: Mapping[str, object]) -> str:
    """sha256 of the resolved settings of which a training depends: of equal trainings alone it is equal."""
    return sha256_of_text(canonical_json(trained_settings(settings)))


def trained_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """The resolved settings of which a training depends, by their dotted keys, for json."""
    return {key: jsonable(value) for key, value in leaves(settings) if is_trained(key)}


def is_trained(key: str) -> bool:
    """True for a setting of which a training depends."""
    return not any(fnmatch.fnmatchcase(key, pattern) for pattern in NOT_TRAINED)


# ------------------------------------------------------------------------------------------------ names


def swept_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """The keys whose overrides differ between the jobs of a sweep, sorted, the seed last."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job:
            values.setdefault(key_of(override), set()).add(override)
    return sorted((key for key, found in values.items() if len(found) > 1), key=lambda key: (key == "seed", key))


def sweep_folder(names: Sequence[str | None], chosen: str | None, swept: Sequence[str]) -> str | None:
    """The name of a sweep's folder below the experiment's; None if the jobs are no sweep.

    Names that differ say it themselves: it is the folder that they share. Else it is their one name, or the chosen
    ``sweep=``, or it tells the swept keys; their values may then become more.
    """
    given = [name for name in names if name is not None]
    if given and (len(set(given)) > 1 or not swept):
        shared = os.path.commonpath([PurePath(name).parent for name in given])
        return shared or (None if len(set(given)) == 1 else ".")
    if given:
        return given[0]
    if not swept and chosen is None:
        return None
    return chosen or f"by-{'-'.join(key.rpartition('.')[2] for key in swept)}"


def proposed_names(
    names: Sequence[str | None], swept: Sequence[Mapping[str, object]], folder: str, label: Label
) -> list[str]:
    """A name for each member: its own; of several with the same name, with the swept values beside it."""
    found = []
    for name, values in zip(names, swept, strict=True):
        if name is None or name == folder:
            found.append(str(PurePath(folder) / label(values)))
            continue
        alike = [other for own, other in zip(names, swept, strict=True) if own == name]
        apart = {key: value for key, value in values.items() if any(other[key] != value for other in alike)}
        found.append(f"{name}-{label(apart)}" if apart else name)
    return found


def free_name(name: str, sha256: str, experiment: Path, planned: Iterable[Member]) -> str:
    """``name``, or a name beside it if another member or a run with other settings has it: no run is overwritten."""
    is_planned = any(member.name == name and member.sha256 != sha256 for member in planned)
    folder = experiment / name
    holds_other = state_of(folder) is not None and memory(folder).get("settings") != sha256
    return f"{name}-{sha256[:8]}" if is_planned or holds_other else name


# ------------------------------------------------------------------------------------------------ the plan


def continued(planned: Sequence[Member], asked: Sequence[Member], experiment: Path) -> tuple[Member, ...]:
    """The members of ``asked`` as they stand in the plan: one that is planned already keeps its folder.

    Equal settings are one member, whatever the overrides say.
    """
    found: dict[str, Member] = {}
    for member in asked:
        if member.sha256 in found:
            continue
        others = [*planned, *found.values()]
        known = next((each for each in planned if each.sha256 == member.sha256), member)
        name = free_name(known.name, member.sha256, experiment, others)
        found[member.sha256] = Member(name, member.sha256, member.overrides)
    return tuple(found.values())


def with_added(planned: Sequence[Member], members: Sequence[Member]) -> tuple[Member, ...]:
    """A plan with these members: they replace those of the same settings, and all others stay."""
    found = {member.sha256: member for member in (*planned, *members)}
    return tuple(found.values())


def read_plan(folder: Path) -> tuple[Member, ...]:
    """The members of a sweep that was planned before; none if there is no plan."""
    path = folder / PLAN
    if not path.exists():
        return ()
    try:
        plan = read_object(path)
        if plan.get("version") != VERSION:
            raise ValueError(f"it has version {plan.get('version')} where {VERSION} is known")
        return tuple(map(member_of, as_list(plan["members"])))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): move it away, and the sweep is planned anew") from error


def member_of(record: object) -> Member:
    content = as_object(record)  # type: ignore[arg-type]  # it checks that
    overrides = content["overrides"]
    if not are_texts(overrides):
        raise ValueError("a member has no overrides")
    return Member(as_text(content["name"]), as_text(content["sha256"]), tuple(overrides))


def write_plan(folder: Path, members: Sequence[Member], num_to_come: int = 0) -> None:
    """Write which members a sweep has; a search says how many are still to be chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    more = {"to_come": num_to_come} if num_to_come else {}
    write_json(folder / PLAN, {"version": VERSION, "members": [asdict(member) for member in members], **more})


def num_to_come(folder: Path) -> int:
    """How many members a search will still choose."""
    return as_int(read_object(folder / PLAN).get("to_come", 0))


# ------------------------------------------------------------------------------------------------ states


def why_skipped(folder: Path, retry: bool) -> str | None:
    """A reason not to start a member: it is finished, or it failed and is not to be tried again."""
    state = state_of(folder)
    if state in DONE:
        return f"{folder} is {state}"
    if state is State.FAILED and not retry:
        return f"{folder} failed: {last_error(folder)}; retry=true tries it again"
    return None


def last_error(folder: Path) -> str:
    """The last line of the error with which a run failed."""
    try:
        lines = str(read_object(folder / METRICS)["error"]).strip().splitlines()
    except (OSError, ValueError, LookupError):
        return f"{METRICS} cannot be read"
    return lines[-1] if lines else "it does not say why"


def summary(experiment: Path, members: Sequence[Member]) -> Iterator[str]:
    """How many members are in which state: 2 finished, 1 begun (interrupted or running), 1 waiting."""
    names: dict[State | None, str] = {state: str(state) for state in State}
    names |= {State.INTERRUPTED: "begun", None: "waiting"}
    states = [state_of(experiment / member.name) for member in members]
    for state, name in names.items():
        if number := states.count(state):
            yield f"{number} {name}"
