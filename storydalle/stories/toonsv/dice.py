"""Choices from a random stream."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

BLOCK = 64  # numbers that are drawn at once: a draw of one costs nearly as much

Value = TypeVar("Value")


class Dice:
    """A random stream of numpy that chooses among values."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._drawn: list[float] = []

    def random(self) -> float:
        """A number from 0 to less than 1."""
        if not self._drawn:
            self._drawn = self.rng.random(BLOCK).tolist()
        return self._drawn.pop()

    def chance(self, share: float) -> bool:
        return self.random() < share

    def pick(self, values: Sequence[Value]) -> Value:
        """One of the values, all equally often."""
        return values[int(self.random() * len(values))]

    def weighted(self, weights: Mapping[Value, float]) -> Value:
        """One of the keys, as often as its weight says."""
        left = self.random() * sum(weights.values())
        for value, weight in weights.items():
            left -= weight
            if left < 0:
                return value
        return value

    def shuffled(self, values: Sequence[Value]) -> list[Value]:
        """The values in any order."""
        rest = list(values)
        return [rest.pop(int(self.random() * len(rest))) for _ in range(len(rest))]

    def other(self, number: int, *taken: int) -> int:
        """A number below ``number`` that is not taken."""
        return self.pick([value for value in range(number) if value not in taken])
