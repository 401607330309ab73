"""The memory that a process can still have is that of the machine, or less where a control group limits it."""

from pathlib import Path

import pytest

from storydalle.files.process_memory import free_bytes, memory_bytes, told_bytes

MACHINE = 9_000 * 1024


def system(root: Path, groups: str, **limits: tuple[int | str, int, int]) -> Path:
    """Files of a system: memory available, the groups of this process, and limit, use and cache of groups by path."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 20000 kB\nMemAvailable: {MACHINE // 1024} kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for path, (limit, used, cache) in limits.items():
        first = "memory" in path.split("/")[0]
        folder = root / "sys" / "fs" / "cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("memory.limit_in_bytes" if first else "memory.max")).write_text(f"{limit}\n")
        (folder / ("memory.usage_in_bytes" if first else "memory.current")).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{'total_' * first}inactive_file {cache}\n")
    return root


def test_without_a_limit_the_machine_has_what_it_has_free(tmp_path: Path) -> None:
    assert free_bytes(system(tmp_path, "0::/job\n", job=("max", 10, 0))) == MACHINE
    assert 0 < free_bytes() <= memory_bytes()


@pytest.mark.parametrize("groups", ["0::/job\n", "3:cpu:/\n4:memory:/job\n"])
def test_a_control_group_leaves_its_limit_without_what_it_uses_but_for_caches(tmp_path: Path, groups: str) -> None:
    path = "job" if groups.startswith("0") else "memory/job"
    assert free_bytes(system(tmp_path, groups, **{path: (5000, 3000, 700)})) == 2700


def test_a_group_around_that_of_the_process_counts_too(tmp_path: Path) -> None:
    limits = {"user": (4000, 1000, 0), "user/job": ("max", 900, 0)}
    assert free_bytes(system(tmp_path, "0::/user/job\n", **limits)) == 3000


def test_a_group_beyond_its_limit_has_nothing_left(tmp_path: Path) -> None:
    assert free_bytes(system(tmp_path, "0::/job\n", job=(1000, 3000, 700))) == 0


def test_a_system_without_such_files_has_all_its_memory(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) == memory_bytes()


@pytest.mark.parametrize(("number", "told"), [(12e9, "12.0 GB"), (99_900_000, "100 MB"), (1e8, "0.1 GB"), (0, "0 MB")])
def test_bytes_are_told_in_units_of_ten(number: float, told: str) -> None:
    assert told_bytes(number) == told
