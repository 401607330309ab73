"""Compare two systems on the same stories: is a difference more than chance?"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from storydalle.evaluation.judges import Scorecard
from storydalle.evaluation.tables import compact
from storydalle.evaluation.toon_table import markdown
from storydalle.metrics.declared import COMPARED, columns_of
from storydalle.metrics.estimates import holm
from storydalle.metrics.resampling import PairedTest, paired_tests

ALPHA = 0.05
LEGEND = (
    "How much higher the first system scores on the same stories, with the 95 % interval of resampled stories (books, "
    "episodes); \\* where the permutation test's p, corrected for the whole table (Holm), is under .05."
)


class Difference(TypedDict):
    """A test as the record holds it, nan as null."""

    difference: float | None
    interval: Sequence[float | None]
    p_bootstrap: float | None
    p_permutation: float | None
    p_holm: float  # corrected for all tests of the record


def difference(test: PairedTest, p_holm: float) -> Difference:
    return {
        "difference": test.difference,
        "interval": test.interval,
        "p_bootstrap": test.p_bootstrap,
        "p_permutation": test.p_permutation,
        "p_holm": p_holm,
    }


def compared(first: Scorecard, second: Scorecard, ids: Sequence[str]) -> dict[str, PairedTest]:
    """The scores of a comparison's columns that both systems have."""
    columns = columns_of(COMPARED)
    found: dict[str, PairedTest] = {}
    for name, metric in first.story_metrics_by_name().items():
        rival = second.story_metrics_by_name()[name]
        names = [score for score in metric.compute() if score in columns]
        if names:
            tests = paired_tests(
                metric.rows_of(ids), rival.rows_of(ids), metric.scores_of_sums, clusters=first.clusters
            )
            found |= {score: tests[score] for score in names}
    return {name: found[name] for name in columns if name in found}


def comparisons(
    scorecards: Mapping[str, Scorecard], first: str, others: Sequence[str], ids: Sequence[str]
) -> dict[str, dict[str, Difference]]:
    """For the record: each rival's tests against the first system, with p corrected over all of them."""
    if len(set(scorecards[first].clusters.values())) < 2:
        return {}
    tests = {other: compared(scorecards[first], scorecards[other], ids) for other in others}
    corrected = holm(
        {f"{other}/{name}": test.p_permutation for other, each in tests.items() for name, test in each.items()}
    )
    return {
        other: {name: difference(test, corrected[f"{other}/{name}"]) for name, test in each.items()}
        for other, each in tests.items()
    }


def comparison_table(first: str, tests: Mapping[str, Mapping[str, Difference]]) -> str:
    """One line for each rival, one column for each score."""
    columns = columns_of(COMPARED)
    names = [name for name in columns if any(name in each for each in tests.values())]
    if not names:
        return ""

    def cell(test: Difference | None) -> str:
        if test is None or test["difference"] is None:  # no frame has what is scored
            return "-"
        low, high = test["interval"]
        star = r"\*" if test["p_holm"] < ALPHA else ""
        return f"{compact(test['difference'])}{star} [{compact(low)}, {compact(high)}]"

    rows = ([f"{first} - {other}", *(cell(each.get(name)) for name in names)] for other, each in tests.items())
    return f"{markdown(['', *(columns[name] for name in names)], rows)}\n\n{LEGEND}"
