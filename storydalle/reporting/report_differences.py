"""Differences of a report's lines from one of them, its baseline, with p-values corrected for the whole table."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from storydalle.metrics.estimates import difference_of, holm
from storydalle.mistakes import UserError, nearest
from storydalle.reporting.report_scores import Comparison, Summary, intervals_told, kind_of, sample

OF_P = "p: two-sided, paired by story where values of stories were kept, corrected for all differences here (Holm)"


class TestedDifference(NamedTuple):
    """How much higher a line scores than the baseline, over their seeds and the stories of both."""

    found: Summary
    p: float  # nan where nothing tells how much chance there is
    p_holm: float  # corrected for all differences of the protocol


Differences = Mapping[str, Mapping[str, TestedDifference]]  # by line and score


def lines_named(found: Comparison, baseline: str) -> list[str]:
    """The line of that name, as the table has it or with the subject and settings that all lines share."""
    return [line for line, runs in found.runs.items() if baseline in (line, runs[0].config)]


def check_baseline(found: Sequence[Comparison], baseline: str | None) -> None:
    """Raise UserError, with the nearest names, if no table has the baseline."""
    if baseline is not None and not any(lines_named(each, baseline) for each in found):
        names = {line for each in found for line in each.lines}
        raise UserError(f"baseline={baseline} is no line of these runs; {nearest(baseline, names)}")


def differences(found: Comparison, baseline: str | None, names: Sequence[str]) -> Differences:
    """The differences of all other lines in the given scores; none if the protocol has no such baseline."""
    for first in lines_named(found, baseline) if baseline is not None else []:
        others = [line for line in found.lines if line != first]
        tests = {line: tested(found, line, first, names) for line in others}
        corrected = holm({(line, name): each.p for line, own in tests.items() for name, each in own.items()})
        return {
            line: {name: each._replace(p_holm=corrected[line, name]) for name, each in own.items()}
            for line, own in tests.items()
            if own
        }
    return {}


def tested(found: Comparison, line: str, baseline: str, names: Sequence[str]) -> dict[str, TestedDifference]:
    """The differences of one line, p not corrected yet."""
    both = [name for name in names if name in found.lines[line] and name in found.lines[baseline]]
    tests = {}
    for name in both:
        runs = [[run for run in found.runs[each] if name in run.values] for each in (line, baseline)]
        made = difference_of(*(sample(same, name) for same in runs))
        number = min(map(len, runs))
        tests[name] = TestedDifference(Summary(made.mean, made.ends(), kind_of(made), number), made.p, math.nan)
    return tests


def legend_of(tested: Differences) -> list[str]:
    """The words for the intervals and the p-values of differences; none without differences."""
    return [*intervals_told(each.found for own in tested.values() for each in own.values()), OF_P] if tested else []
