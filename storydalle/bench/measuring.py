"""Time of works that take turns, round after round: a machine that is busy slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Work = Callable[[], int]  # does something, and returns how many items it was
Measure = Callable[[], Sequence[float]]  # takes one or several measurements


def medians(measures: Mapping[str, Measure], rounds: int) -> dict[str, float]:
    """Measure everything once a round; return the median of each."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name] += measure()
    return {name: statistics.median(values) for name, values in found.items()}


def rate_of(work: Work) -> Measure:
    """The measure of a work: items a second."""

    def measure() -> list[float]:
        started = time.perf_counter()
        return [work() / (time.perf_counter() - started)]

    return measure


def seconds_of(work: Callable[[], object]) -> Measure:
    """The measure of a work: the seconds of one run."""

    def measure() -> list[float]:
        started = time.perf_counter()
        work()
        return [time.perf_counter() - started]

    return measure
