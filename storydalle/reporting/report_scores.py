"""The numbers that a report compares: those of one protocol, over seeds, with intervals, and those of its tables."""

import fnmatch
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from storydalle.files.records import differing_fields
from storydalle.metrics.topics import details, family_patterns
from storydalle.reporting.report_runs import Ends, ScoredRun

# Student's t at 97.5 % for 1, 2, ... degrees of freedom; beyond, the normal's value is within 4 %.
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
OVER_STORIES, OVER_SEEDS = "bootstrap over stories", "Student's t over seeds"
LEGEND = {
    OVER_STORIES: "[low, high]: 95 % interval, stories resampled",
    OVER_SEEDS: "±: 95 % interval of the mean over seeds",
}
HASH_LENGTH, MAX_DIFFERENCES = 12, 8
MAX_COLUMNS = 10  # of a table; more scores are parted into families
BY_DEFAULT_HIDDEN = (r"train/.*", r".*_at_\d+", r".*_chance")  # beside the details of metrics
OF_TRAINING, OTHERS = {"Loss of the true frames": r"nats.*|probe_.*"}, {"Other scores": r".*"}


class Summary(NamedTuple):
    """A number (over seeds, if there are several) and its 95 % interval, if there is one."""

    mean: float
    ends: Ends | None
    kind: str | None  # of the interval
    num_seeds: int

    @property
    def point(self) -> tuple[float, float, float]:
        return (self.mean, *(self.ends or (math.nan, math.nan)))

    @property
    def half_width(self) -> float:
        assert self.ends is not None
        return (self.ends[1] - self.ends[0]) / 2


class Comparison(NamedTuple):
    """Numbers of one protocol, by line and score."""

    protocol: str  # its hash
    fields: Mapping[str, object]
    shared: tuple[str, ...]  # subject and settings of all lines
    lines: Mapping[str, Mapping[str, Summary]]
    num_seeds: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def heading(self, code: Callable[[str], str]) -> str:
        """``code`` sets names and hashes."""
        if not self.protocol:
            return "No protocol recorded"
        names = [str(self.fields["name"])] if "name" in self.fields else []
        return " ".join(["Protocol", *map(code, [*names, self.protocol[:HASH_LENGTH]])])

    def common(self, code: Callable[[str], str]) -> str:
        """The subject and settings that all lines share."""
        return f"all with {' '.join(map(code, self.shared))}" if self.shared else ""

    def all_names(self) -> list[str]:
        return list(dict.fromkeys(name for scores in self.lines.values() for name in scores))

    def names(self, patterns: Sequence[str] | None) -> list[str]:
        """The scores of a table: the requested ones, or all without breakdowns and training losses."""
        if patterns:
            return matching(self.all_names(), patterns)
        hidden = re.compile("|".join([*BY_DEFAULT_HIDDEN, *details()]))
        return [name for name in self.all_names() if not hidden.fullmatch(name)] or self.all_names()

    def points(self, titles: Mapping[str, str]) -> dict[str, dict[str, tuple[float, float, float]]]:
        """Values and ends of intervals (nan if there is none) of some scores, by their titles."""
        return {
            line: {title: scores[name].point for name, title in titles.items() if name in scores}
            for line, scores in self.lines.items()
        }

    def kinds(self, names: Iterable[str]) -> list[str]:
        """The kinds of intervals among the given scores."""
        names = set(names)
        found = {each.kind for scores in self.lines.values() for name, each in scores.items() if name in names}
        return [kind for kind in LEGEND if kind in found]


# ------------------------------------------------------------------------------------------------ numbers


def summary(runs: Sequence[ScoredRun], name: str) -> Summary | None:
    """One seed's number with its own interval, or the mean over seeds with Student's t interval.

    A number that is equal for all seeds, such as an upper limit, keeps its own interval.
    """
    runs = [run for run in runs if name in run.values]
    if not runs:
        return None
    values = [run.values[name] for run in runs]
    mean, n = statistics.fmean(values), len(values)
    if all(math.isclose(value, values[0], rel_tol=1e-6, abs_tol=1e-12) for value in values):
        ends = runs[0].intervals.get(name)
        return Summary(mean, ends, None if ends is None else OVER_STORIES, n)
    t = T_QUANTILES[n - 2] if n - 2 < len(T_QUANTILES) else 1.96
    half = t * statistics.stdev(values) / math.sqrt(n)
    return Summary(mean, (mean - half, mean + half), OVER_SEEDS, n)


def comparisons(runs: Sequence[ScoredRun]) -> list[Comparison]:
    """One comparison for each protocol; those of the same data set follow each other."""
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        if not run.failure:
            groups.setdefault(run.protocol, []).append(run)
    made: list[Comparison] = []
    for protocol in sorted(groups, key=lambda each: (*subject_of(groups[each][0].fields), each)):
        same = groups[protocol]
        first = next((each for each in made if subject_of(each.fields) == subject_of(same[0].fields)), None)
        made.append(comparison(same, first))
    return made


def subject_of(fields: Mapping[str, object]) -> tuple[str, str]:
    """The data set of a protocol: protocols of one set are compared with each other."""
    data = fields.get("data")
    named = data.get("name") if isinstance(data, Mapping) else None
    return str(fields.get("dataset") or named or ""), str(fields.get("kind") or "")


def comparison(runs: Sequence[ScoredRun], first: Comparison | None) -> Comparison:
    """The runs of one protocol, which ``first`` of the same data set may differ from."""
    shared = shared_words(runs)
    lines: dict[str, list[ScoredRun]] = {}
    for run in runs:
        lines.setdefault(label(run, shared), []).append(run)
    notes = [difference(runs[0], first), *truths(runs)]
    scores: dict[str, dict[str, Summary]] = {}
    for line, same in lines.items():
        found = {name: summary(same, name) for name in dict.fromkeys(name for run in same for name in run.values)}
        scores[line] = {name: each for name, each in found.items() if each is not None}
    num_seeds = {line: len(same) for line, same in lines.items()}
    return Comparison(runs[0].protocol, runs[0].fields, shared, scores, num_seeds, tuple(filter(None, notes)))


def shared_words(runs: Sequence[ScoredRun]) -> tuple[str, ...]:
    """Subject and settings that all lines share: a table states them once."""
    subjects = {run.subject for run in runs}
    shared = list(subjects) if len(subjects) == 1 and all(run.row for run in runs) else []
    return (*shared, *(word for word in runs[0].settings if all(word in run.settings for run in runs)))


def label(run: ScoredRun, shared: Sequence[str]) -> str:
    subject = "" if run.subject in shared else run.subject
    name = ": ".join(filter(None, [subject, run.row]))
    return " ".join([name, *(word for word in run.settings if word not in shared)])


def difference(run: ScoredRun, first: Comparison | None) -> str:
    """A sentence about the fields in which a protocol differs from the first one of its data set, with both values."""
    if first is None or not run.fields or not first.fields:
        return ""
    fields = differing_fields(run.fields, first.fields)
    more = [f"and {len(fields) - MAX_DIFFERENCES} more"] if len(fields) > MAX_DIFFERENCES else []
    hashes = (f"`{protocol[:HASH_LENGTH]}`" for protocol in (run.protocol, first.protocol))
    return f"Protocol {' differs from '.join(hashes)} in {', '.join([*fields[:MAX_DIFFERENCES], *more])}."


def truths(runs: Sequence[ScoredRun]) -> list[str]:
    """A warning if runs of one protocol were scored against different true frames."""
    found: dict[str, str] = {run.truth: run.folder.as_posix() for run in reversed(runs) if run.truth}
    if len(found) < 2:
        return []
    return [f"The true frames of {' and '.join(sorted(found.values()))} differ: their numbers do not compare."]


# ------------------------------------------------------------------------------------------------ which scores


def matching(names: Iterable[str], patterns: Sequence[str] | None) -> list[str]:
    names = list(names)
    if patterns is None:
        return names
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def families(names: Sequence[str]) -> dict[str, list[str]]:
    """Scores grouped by topic; without a title if there is only one group."""
    if len(names) <= MAX_COLUMNS:
        return {"": list(names)}
    parted: dict[str, list[str]] = {}
    for title, pattern in (family_patterns() | OF_TRAINING | OTHERS).items():
        taken = {name for others in parted.values() for name in others}
        parted[title] = [name for name in names if name not in taken and re.fullmatch(pattern, name)]
    parted = {title: each for title, each in parted.items() if each}
    return parted if len(parted) > 1 else {"": list(names)}
