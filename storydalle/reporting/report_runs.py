"""Runs for a report: the ``metrics.json`` files under a folder, one row of numbers for each run."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

from storydalle.evaluation.ceilings import CEILINGS
from storydalle.files.json_values import JsonObject
from storydalle.files.reading import read_object
from storydalle.files.records import protocol_hash
from storydalle.mistakes import UserError
from storydalle.reporting.run_folders import run_folders
from storydalle.training.runs import METRICS

Ends = tuple[float, float]


class System(TypedDict, total=False):
    """Who drew the frames of a row."""

    sampling: Mapping[str, object] | None
    best_of: int | None
    chosen_by: str
    seed: int | None  # of its training
    cost: Mapping[str, float | None]


class Content(TypedDict, total=False):
    """The parts of a ``metrics.json`` that a report reads; ``FORMS`` checks it."""

    config: str | None
    seeds: list[int | str | None] | None
    protocol: Mapping[str, object] | None
    protocol_hash: str | None
    truth_sha256: str | None
    values: Mapping[str, object] | None
    intervals: Mapping[str, object] | None
    systems: Mapping[str, System] | None
    strips: Mapping[str, str] | None
    cost: Mapping[str, float | None] | None  # of a training
    wall_seconds: float | None


class Record(NamedTuple):
    """The folder of a run and the content of its ``metrics.json``, or the reason why it has no numbers."""

    folder: Path
    config: str
    content: Content
    failure: str | None = None
    is_pruned: bool = False  # by a search, whose table has it; its numbers are those of a shorter training


class ScoredRun(NamedTuple):
    """One row of numbers of one run.

    ``subject`` is the experiment, or the data and its split; ``row`` names the system if a run scores several.
    """

    subject: str
    row: str = ""
    settings: tuple[str, ...] = ()  # what else tells runs of a subject apart, as key=value
    protocol: str = ""  # its hash
    seeds: tuple[object, ...] = ()
    values: Mapping[str, float] = {}
    intervals: Mapping[str, Ends] = {}  # 95 %, of resampled stories
    fields: Mapping[str, object] = {}  # of the protocol
    sampling: Mapping[str, object] = {}
    truth: str | None = None  # a hash of the true frames' pixels
    folder: Path = Path()
    strips: Mapping[str, str] = {}  # headings by the names of pictures in the folder
    recorded_row: str = ""  # the name of the row in the record
    cost: Mapping[str, float] = {}  # of the training
    failure: str | None = None

    @property
    def config(self) -> str:
        """The full name: runs with the same name differ only in the seed."""
        name = f"{self.subject}: {self.row}" if self.row else self.subject
        return " ".join([name, *self.settings])


def read_runs(records: Iterable[Record]) -> list[ScoredRun]:
    """Every row of every record; a run without numbers is a failure; the last run of each seed counts."""
    return last_of_each_seed(
        shared_ceilings(told_apart([run for record in records if not record.is_pruned for run in runs_of(record)]))
    )


def read_records(folder: Path) -> list[Record]:
    """Every run under a folder. Raises UserError for a record whose protocol does not match its hash."""
    return [read_record(path / METRICS, folder) for path in run_folders(folder)]


def read_record(path: Path, folder: Path) -> Record:
    where = path.parent.relative_to(folder).as_posix()
    if not path.exists():
        return Record(path.parent, where, {}, "not finished")
    try:
        content = read_object(path)
    except ValueError:
        return Record(path.parent, where, {}, f"{METRICS} is damaged")
    try:
        checked = check_content(content)
    except ValueError as error:
        return Record(path.parent, where, {}, f"{METRICS} is damaged: {error}")
    failure = f"failed: {' '.join(str(content['error']).split())}" if "error" in content else None
    if failure is None:
        check_hash(path, checked)
    return Record(path.parent, checked.get("config") or where, checked, failure, "pruned" in content)


def check_content(content: JsonObject) -> Content:
    """Return the content; raise ValueError, naming the key, if a value that a report reads has the wrong type."""
    for key, (kind, holds) in FORMS.items():
        if content.get(key) is not None and not holds(content[key]):
            raise ValueError(f"{key} is no {kind}")
    return cast(Content, content)


def is_tree(value: object) -> bool:
    """True for an object of scores, or of such objects."""
    return isinstance(value, dict) and all(
        is_tree(part) if isinstance(part, dict) else is_score(part) for part in value.values()
    )


def is_score(value: object) -> bool:
    ends = value if isinstance(value, list) else [value]
    return all(each is None or (isinstance(each, int | float) and not abs(each) > LARGEST) for each in ends)


def are_systems(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(system, dict)
        and isinstance(system.get("sampling") or {}, dict)
        and isinstance(system.get("best_of") or 1, int)
        and isinstance(system.get("seed") or 0, int)
        and are_numbers(system.get("cost") or {})
        for system in value.values()
    )


def are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(
        each is None or (isinstance(each, int | float) and 0 <= each <= LARGEST) for each in value.values()
    )


def are_names(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value.values())


def are_seeds(value: object) -> bool:
    return isinstance(value, list) and all(seed is None or isinstance(seed, int | str) for seed in value)


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_object(value: object) -> bool:
    return isinstance(value, dict)


LARGEST = 1e100  # of scores: sums of their squares stay numbers
FORMS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "config": ("text", is_text),
    "seeds": ("list of numbers", are_seeds),
    "protocol": ("object", is_object),
    "protocol_hash": ("text", is_text),
    "truth_sha256": ("text", is_text),
    "values": ("object of numbers", is_tree),
    "intervals": ("object of pairs of numbers", is_tree),
    "systems": ("object of systems", are_systems),
    "strips": ("object of headings", are_names),
    "cost": ("object of numbers", are_numbers),
    "wall_seconds": ("number", is_score),
}


def check_hash(path: Path, content: Content) -> None:
    """Refuse a protocol that does not match its hash: its numbers would be compared with others."""
    protocol = content.get("protocol")
    if protocol is None:
        return
    said = str(content.get("protocol_hash"))
    try:
        found = protocol_hash(protocol)
    except ValueError:  # a nan, which no record of ours holds
        found = "none"
    if found != said:
        raise UserError(
            f"{path}: the hash of its protocol is {found[:12]} and not {said[:12]}, so someone has edited it: "
            "write the record again, or take it out of the folder"
        )


def runs_of(record: Record) -> Iterator[ScoredRun]:
    """The run of a record, or one run for each row if its values are rows of numbers."""
    content = record.content
    subject, *changed = record.config.split(" ")
    run = ScoredRun(subject, settings=tuple(changed), seeds=tuple(content.get("seeds") or ()), folder=record.folder)
    run = run._replace(strips=content.get("strips") or {})
    if record.failure:
        yield run._replace(failure=record.failure)
        return
    run = run._replace(
        protocol=str(content.get("protocol_hash") or ""),
        fields=content.get("protocol") or {},
        truth=content.get("truth_sha256"),
    )
    systems = content.get("systems") or {}
    for path, values in rows_of(content.get("values") or {}):
        system: System = systems.get(path[-1], {}) if path else {"cost": cost_of(content)}
        row, seeds = apart_from_seed(", ".join(path), system)
        yield run._replace(
            row=declared(row, system),
            recorded_row=path[-1] if path else "",
            seeds=(*seeds, *run.seeds),
            values=values,
            intervals=intervals_of(content.get("intervals") or {}, path),
            sampling=system.get("sampling") or {},
            cost={name: float(value) for name, value in (system.get("cost") or {}).items() if value is not None},
        )


def cost_of(content: Content) -> Mapping[str, float | None]:
    """The cost of a training; a record of an earlier version has only its time."""
    is_training = (content.get("protocol") or {}).get("kind") == "training"
    return ({"seconds": content.get("wall_seconds")} if is_training else {}) | dict(content.get("cost") or {})


def apart_from_seed(row: str, system: System) -> tuple[str, tuple[int, ...]]:
    """The name of a row without the seed of its training, and that: models of a sweep's seeds are seeds of one line."""
    seed = system.get("seed")
    if seed is None or not row.endswith(f"seed{seed}"):
        return row, ()
    return row.removesuffix(f"seed{seed}").rstrip("-/"), (seed,)


def rows_of(
    values: Mapping[str, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, float]]]:
    """Flat rows of numbers from nested ones; values that were not measured (null) are left out."""
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
    if numbers:
        yield path, numbers
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from rows_of(value, (*path, str(name)))


def intervals_of(intervals: Mapping[str, object], path: Sequence[str]) -> dict[str, Ends]:
    """The intervals of one row; scores without resampling have none."""
    for name in path:
        found = intervals.get(name)
        intervals = found if isinstance(found, dict) else {}
    return {
        name: (float(ends[0]), float(ends[1]))
        for name, ends in intervals.items()
        if isinstance(ends, list) and len(ends) == 2 and None not in ends
    }


def declared(row: str, system: System) -> str:
    """A row's name, which says so if the best of several candidates was scored."""
    number = system.get("best_of") or 1
    if number == 1 or "best of" in row:
        return row
    return f"{row} (best of {number} by {system.get('chosen_by', 'an unnamed score')})".strip()


def told_apart(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Add differences in sampling to the names of runs with the same name: they differ in more than the seed."""
    groups: dict[object, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault((run.config, run.protocol), []).append(run)

    def named(run: ScoredRun) -> ScoredRun:
        if not run.sampling:
            return run
        same = [other.sampling for other in groups[run.config, run.protocol] if other.sampling]
        names = dict.fromkeys(name for sampling in same for name in sampling)
        differing = [name for name in names if len({str(sampling.get(name)) for sampling in same}) > 1]
        return run._replace(settings=(*run.settings, *(f"{name}={run.sampling.get(name)}" for name in differing)))

    return [named(run) for run in runs]


def shared_ceilings(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Join an upper limit or baseline that several studies scored with the same result into one line."""
    groups: dict[object, list[ScoredRun]] = {}

    def key(run: ScoredRun) -> object:
        return run.subject, run.row, run.protocol, run.seeds

    for run in runs:
        groups.setdefault(key(run), []).append(run)
    alike = {
        name
        for name, same in groups.items()
        if same[0].row in CEILINGS and len(same) > 1 and all(run.values == same[0].values for run in same)
    }
    return [run._replace(settings=()) if key(run) in alike else run for run in runs]


def last_of_each_seed(runs: Iterable[ScoredRun]) -> list[ScoredRun]:
    """The last run of each seed: if a seed counted twice, the interval would be too narrow."""
    kept: dict[object, ScoredRun] = {}
    for number, run in enumerate(runs):
        kept[(run.config, run.protocol, run.seeds, run.failure) if run.seeds else number] = run
    return list(kept.values())
