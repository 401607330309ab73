"""The numbers that a report compares: those of one protocol, over seeds, with intervals, and those of its tables."""

import fnmatch
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storydalle.evaluation.story_values import STORIES, StoryValues, read_story_values
from storydalle.files.records import differing_fields
from storydalle.metrics.estimates import Estimate, Sample, mean_of
from storydalle.metrics.topics import details, family_patterns
from storydalle.reporting.report_runs import Ends, ScoredRun

OVER_STORIES, OVER_SEEDS = "bootstrap over stories", "Student's t over seeds"
OVER_BOTH, PAIRED = "Student's t over seeds and stories", "Student's t over stories"
WITHHELD = "no interval"
LEGEND = {
    OVER_BOTH: "(low, high): 95 % interval over seeds and stories",
    PAIRED: "(low, high): 95 % interval over stories; one seed says nothing of others",
    OVER_STORIES: "[low, high]: 95 % interval, stories resampled",
    OVER_SEEDS: "±: 95 % interval of the mean over seeds",
    WITHHELD: "without an interval: one seed, and no values of stories",
}
HASH_LENGTH, MAX_DIFFERENCES = 12, 8
MAX_DRAWN = 24  # lines of a plot; tables have all
MAX_COLUMNS = 10  # of a table; more scores are parted into families
BY_DEFAULT_HIDDEN = (r"train/.*", r".*_at_\d+", r".*_chance")  # beside the details of metrics
OF_TRAINING, OTHERS = {"Loss of the true frames": r"nats.*|probe_.*"}, {"Other scores": r".*"}
SAME_MEAN = 1e-4  # by which the mean of stories may differ from the score: they are kept in single precision


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
    runs: Mapping[str, Sequence[ScoredRun]]  # of each line
    notes: tuple[str, ...] = ()

    @property
    def num_seeds(self) -> dict[str, int]:
        return {line: len(runs) for line, runs in self.runs.items()}

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

    def points(self, titles: Mapping[str, str], most: int) -> dict[str, dict[str, tuple[float, float, float]]]:
        """Values and ends of intervals (nan if there is none) of some scores, by their titles, of the first lines."""
        return {
            line: {title: scores[name].point for name, title in titles.items() if name in scores}
            for line, scores in list(self.lines.items())[:most]
        }

    def legend(self, names: Iterable[str]) -> list[str]:
        """The words for the intervals of the given scores, and for numbers without one."""
        names = set(names)
        return intervals_told(each for scores in self.lines.values() for name, each in scores.items() if name in names)


def intervals_told(shown: Iterable[Summary]) -> list[str]:
    kinds = {each.kind or WITHHELD for each in shown}
    return [text for kind, text in LEGEND.items() if kind in kinds]


# ------------------------------------------------------------------------------------------------ numbers


def summary(runs: Sequence[ScoredRun], name: str) -> Summary | None:
    """One seed's number with its own interval, or the mean over seeds with an interval over seeds and stories.

    Scores without values of stories have an interval over seeds alone. A number that is equal for all seeds, such as
    an upper limit, keeps its own interval.
    """
    runs = [run for run in runs if name in run.values]
    if not runs:
        return None
    values, ends, own = [run.values[name] for run in runs], runs[0].intervals.get(name), sample(runs, name)
    if all(math.isclose(value, values[0], rel_tol=1e-6, abs_tol=1e-12) for value in values):
        if ends is not None:
            return Summary(statistics.fmean(values), ends, OVER_STORIES, len(values))
        if own.stories is None:
            return Summary(statistics.fmean(values), None, None, len(values))
    found = mean_of(own)
    return Summary(found.mean, found.ends(), kind_of(found), len(values))


def kind_of(found: Estimate) -> str | None:
    if math.isnan(found.error):
        return None
    return (OVER_BOTH if found.covers_seeds else PAIRED) if found.covers_stories else OVER_SEEDS


def sample(runs: Sequence[ScoredRun], name: str) -> Sample:
    """A score of each seed, and of each story where all seeds kept those of the same stories."""
    values = np.array([run.values[name] for run in runs])
    stories = [stories_of(run)[0].get(name) for run in runs]
    found = [each for each in stories if each is not None]
    is_whole = len(found) == len(runs) and len({len(each) for each in found}) == 1
    return Sample(values, np.stack(found) if is_whole else None)


def stories_of(run: ScoredRun) -> tuple[StoryValues, str]:
    """The values of single stories that a run kept, or none and a sentence that says what is wrong with them."""
    path = run.folder / STORIES
    try:
        found = kept_stories(path, path.stat().st_mtime_ns).get(run.recorded_row, {}) if path.is_file() else {}
    except ValueError as error:
        return {}, f"{error}."
    for name, values in found.items():
        score = run.values.get(name)
        if score is None or abs(values.mean() - score) > SAME_MEAN * max(1.0, abs(score)):
            return {}, f"{path} is not of the record beside it: its values of stories are left out."
    return found, ""


@lru_cache(maxsize=64)
def kept_stories(path: Path, changed: int) -> Mapping[str, StoryValues]:
    """What a file holds; one that has changed is read again."""
    return read_story_values(path)


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
    notes += dict.fromkeys(stories_of(run)[1] for same in lines.values() if len(same) > 1 for run in same)
    scores: dict[str, dict[str, Summary]] = {}
    for line, same in lines.items():
        found = {name: summary(same, name) for name in dict.fromkeys(name for run in same for name in run.values)}
        scores[line] = {name: each for name, each in found.items() if each is not None}
    return Comparison(runs[0].protocol, runs[0].fields, shared, scores, lines, tuple(filter(None, notes)))


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
