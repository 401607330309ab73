"""Mutants of all that people and strangers hand in: read, or refused in one line; nothing else, not once.

``make slow`` tries 200 of each reader and prints how many were accepted and refused; ``make test`` tries a few.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import Counts, try_mutants
from tests.readers import READERS
from tests.test_didemo import root as didemo_root  # noqa: F401  (fixtures)
from tests.test_flintstones import root as flintstones_root  # noqa: F401
from tests.test_pororo import root as pororo_root  # noqa: F401
from tests.test_vist import root as vist_root  # noqa: F401

FEW, MANY = 2, int(os.environ.get("MUTANTS", 200))  # of each reader


@pytest.fixture(scope="module")
def counted() -> Iterator[dict[str, Counts]]:
    """The counts of all readers, printed at the end."""
    counts: dict[str, Counts] = {}
    yield counts
    print(f"\n\n{'reader':<28}{'tried':>8}{'accepted':>10}{'refused':>9}{'others':>8}")
    for name, each in counts.items():
        print(f"{name:<28}{each.tried:>8}{each.accepted:>10}{each.refused:>9}{len(each.others):>8}")


def check(name: str, number: int, request: Any, folder: Path, counted: dict[str, Counts]) -> None:
    (folder / "files").mkdir()
    counted[name] = try_mutants(name, READERS[name](request, folder / "files"), number, folder / "fallen")
    assert not counted[name].others, "\n".join(counted[name].others)
    assert counted[name].tried == number


@pytest.mark.parametrize("name", READERS)
def test_a_few_mutants_are_read_or_refused_in_one_line(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: dict[str, Counts],
) -> None:
    monkeypatch.chdir(tmp_path)
    check(name, FEW, request, tmp_path, counted)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_mutants_are_read_or_refused_in_one_line(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: dict[str, Counts],
) -> None:
    monkeypatch.chdir(tmp_path)
    check(name, MANY, request, tmp_path, counted)
