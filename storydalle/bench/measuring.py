"""Time of works that take turns, round after round: a machine that is busy slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

Work = Callable[[], int]  # does something, and returns how many items it was
Measure = Callable[[], Sequence[float]]  # takes one or several measurements

MAX_SPREAD = 0.15  # a median of values that are further apart is called unreliable
FEWEST = 3  # rounds that are made however long they take


class Timing(NamedTuple):
    """The figures of one thing over all rounds: seconds, or items a second."""

    median: float
    spread: float | None  # interquartile range over the median; None of a single value
    number: int  # of values

    @classmethod
    def of(cls, values: Sequence[float]) -> "Timing":
        median, spread = statistics.median(values), None
        if len(values) > 1:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
            spread = (high - low) / median if median else 0.0
        return cls(median, spread, len(values))

    @property
    def is_steady(self) -> bool:
        return self.spread is None or self.spread <= MAX_SPREAD


def in_turn(
    measures: Mapping[str, Measure], rounds: int, seconds: float | int | None = None, warm: Container[str] = ()
) -> dict[str, Timing]:
    """Everything once to warm up, which is not counted, and then once a round: A B A B ...

    What is ``warm`` is counted from its first run on. After ``seconds`` no round begins, if there were ``FEWEST``.
    """
    found: dict[str, list[float]] = {name: [] for name in measures}
    for name, measure in measures.items():
        if name not in warm:
            measure()
    started = time.perf_counter()
    for number in range(rounds):
        if seconds is not None and number >= FEWEST and time.perf_counter() - started > seconds:
            break
        for name, measure in measures.items():
            found[name] += measure()
    return {name: Timing.of(values) for name, values in found.items()}


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


def steps_of(draw: Callable[..., object]) -> Measure:
    """The measure of a loop that calls ``progress`` after each step: the seconds of each but the first two.

    The first step reads the prompt, and the second may lay the weights out for those that follow.
    """

    def measure() -> list[float]:
        moments: list[float] = []
        draw(progress=lambda done, steps: moments.append(time.perf_counter()))
        return [after - before for before, after in pairwise(moments[1:])]

    return measure
