"""The tests' own seeds, moved: what a test asserts must not depend on the numbers that it happened to draw.

``STORYDALLE_TEST_SEED_SHIFT=3`` adds 3 to every seed that a file under ``tests/`` hands to torch or numpy. Seeds that
the package sets itself stay, and so does that two draws of one seed are equal. ``make portable`` runs with two shifts.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHIFT = int(os.environ.get("STORYDALLE_TEST_SEED_SHIFT", "0"))
HERE = str(Path(__file__).parent)


def is_a_tests(frame: Any) -> bool:
    return frame.f_code.co_filename.startswith(HERE) and frame.f_code.co_filename != __file__


def moved(seed: Any) -> Any:
    """An int a few further, a list of ints with one more; ``None`` and generators as they are."""
    if isinstance(seed, int | np.integer):
        return int(seed) + SHIFT
    return [*seed, SHIFT] if isinstance(seed, list | tuple) else seed


def moving(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a seed, which moves it where a test calls."""

    def seeded(seed: Any = None) -> Any:
        return plain(moved(seed) if is_a_tests(sys._getframe(1)) else seed)

    return seeded


class MovingGenerator(torch.Generator):
    def manual_seed(self, seed: int) -> "MovingGenerator":
        super().manual_seed(moved(seed) if is_a_tests(sys._getframe(1)) else seed)
        return self


def fixed(seed: int) -> torch.Generator:
    """Draws that the package makes as well, or whose outcome is written down: this seed stays."""
    return torch.Generator().manual_seed(seed)


def fixed_rng(seed: int | list[int]) -> np.random.Generator:
    """The same of numpy."""
    return np.random.Generator(np.random.PCG64(seed))


def move_seeds() -> None:
    """Before the package is imported, so that its annotations name the generators that the tests make."""
    if SHIFT:
        torch.manual_seed = moving(torch.manual_seed)
        torch.Generator = MovingGenerator  # type: ignore[misc]
        np.random.default_rng = moving(np.random.default_rng)  # type: ignore[assignment]
