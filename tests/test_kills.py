"""Two kills of every command, and fifty of a sweep; ``make kills`` does a hundred."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep_kills import LOST, TWICE, faults_of


def run(tmp_path: Path, module: str, *arguments: str) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", f"tests.{module}", *arguments, "--keep", str(tmp_path / "kept")]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_killed_commands_end_as_if_nobody_had_killed_them(tmp_path: Path) -> None:
    run(tmp_path, "kills", "--kills", "14")


@pytest.mark.slow
def test_sweeps_killed_or_launched_twice_at_once_run_each_member_once(tmp_path: Path) -> None:
    run(tmp_path, "sweep_kills", "--kills", "50", "--launches", "20")


def kinds(*processes: tuple[str, range]) -> list[str]:
    lines = [f"{pid} {step}" for pid, steps in processes for step in steps]
    return [kind for kind, _ in faults_of("seed0", lines)]


def test_a_member_may_repeat_only_the_steps_since_its_last_checkpoint() -> None:
    assert kinds(("a", range(1, 10))) == []
    assert kinds(("a", range(1, 6)), ("b", range(4, 10))) == []
    assert kinds(("a", range(1, 7)), ("b", range(7, 10))) == [] == kinds(("a", range(1, 7)), ("b", range(4, 10)))
    assert kinds(("a", range(1, 6)), ("b", range(1, 10))) == [TWICE], "its checkpoint was lost"
    assert kinds(("a", range(1, 10)), ("b", range(1, 10))) == [TWICE], "it had ended"
    assert kinds(("a", range(1, 5)), ("b", range(6, 10))) == [LOST], "a step was left out"
    assert TWICE in kinds(("a", range(1, 4)), ("b", range(4, 6)), ("a", range(4, 10))), "two at once"
    assert kinds() == [LOST] == kinds(("a", range(1, 8)))
