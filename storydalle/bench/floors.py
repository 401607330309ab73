"""The floor of a computation: its bytes over the rate of reading, or its operations over theirs, the longer of both."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from storydalle.bench.measuring import Measure, Timing, rate_of

READING, MULTIPLYING = "reading memory", "multiplying in float32"
UNITS = {READING: "GB/s", MULTIPLYING: "GFLOP/s"}  # a billion of what a second is measured
COLUMNS, SIDE = 1024, 768
LEAST, MOST = 1 << 20, 1 << 29  # bytes of what is read to measure the rate
ENOUGH = 1 << 26  # bytes, so that a measurement takes milliseconds


class Floor(NamedTuple):
    """Bytes that must be read and operations (a multiplication and an addition are two) that must be made."""

    num_bytes: float
    operations: float

    def timing(self, rates: Mapping[str, Timing]) -> Timing:
        """The seconds that this takes at the measured rates."""
        return max(
            Timing(amount / rates[name].median, rates[name].spread, rates[name].number)
            for name, amount in ((READING, self.num_bytes), (MULTIPLYING, self.operations))
        )


def rate_measures(num_bytes: int) -> dict[str, Measure]:
    """Both rates, reading as many bytes as a step of the computation does: what fits into caches is read from them."""
    rows = int(min(max(num_bytes, LEAST), MOST)) // (4 * COLUMNS)
    matrix, vector = torch.ones(rows, COLUMNS), torch.ones(COLUMNS)
    left, right = torch.ones(2, SIDE, SIDE)
    repeats = 1 + ENOUGH // (4 * matrix.numel())

    def read() -> int:
        return 4 * matrix.numel() * repeated(lambda: torch.mv(matrix, vector), repeats)

    def multiply() -> int:
        return 2 * SIDE**3 * repeated(lambda: left @ right, 4)

    return {READING: rate_of(read), MULTIPLYING: rate_of(multiply)}


@torch.inference_mode()
def repeated(work: Callable[[], object], times: int) -> int:
    for _ in range(times):
        work()
    return times
