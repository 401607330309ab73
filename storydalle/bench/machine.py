"""The machine that is measured: its processor, what this process takes of it, and what others take meanwhile."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

from storydalle.files.process_memory import memory_bytes
from storydalle.files.records import versions

MARGIN = 0.25  # cores that other processes may keep busy unnoticed
# Those that decide how fast numbers are multiplied.
INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)


class Load(NamedTuple):
    """How busy the machine was: load averages of a minute, and the cores that other processes kept busy."""

    start: float
    end: float
    others: float
    threads: int  # of this process
    cores: int

    @property
    def is_quiet(self) -> bool:
        """True if the others left a core for each thread of this process."""
        return self.others + self.threads <= max(self.cores, self.threads) + MARGIN

    def __str__(self) -> str:
        told = (
            f"load average {self.start:.1f} at the start and {self.end:.1f} at the end; other processes kept "
            f"{self.others:.1f} of {self.cores} cores busy"
        )
        return told if self.is_quiet else f"{told}: **the machine was loaded, all times are unreliable**"


class Watched:
    """The load while something was measured; ``load`` is there when it has ended."""

    load: Load


@contextmanager
def watched() -> Iterator[Watched]:
    found, started = Watched(), time.monotonic()
    load_before, busy_before, own_before = load_average(), busy_seconds(), own_seconds()
    yield found
    seconds, threads, busy = time.monotonic() - started, torch.get_num_threads(), busy_seconds()
    if busy is None or busy_before is None:
        others = load_average() - threads
    else:
        others = (busy - busy_before - own_seconds() + own_before) / max(seconds, 1e-9)
    found.load = Load(load_before, load_average(), max(0.0, others), threads, num_cores())


def load_average() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def busy_seconds(stat: Path = Path("/proc/stat")) -> float | None:
    """Seconds of work of all cores since the machine started, time stolen by other guests included; None if unknown."""
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, softirq, stolen = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Seconds of work of this process and of those that it started."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def described() -> dict[str, object]:
    """The machine, as a record describes it."""
    return {
        "processor": processor_name(),
        "instruction_sets": instruction_sets(),
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions() | {"transformers": version_of("transformers")},
    }


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def of_processor(field: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """A field of the first core, where the system has a file of them."""
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), None)


def processor_name() -> str:
    """As the system names it; some virtual machines hide the model, so family and model numbers follow."""
    name = of_processor("model name") or platform.processor() or platform.machine() or "unknown"
    numbers = [of_processor(field) for field in ("cpu family", "model")]
    return f"{name} (family {numbers[0]}, model {numbers[1]})" if all(numbers) else name


def instruction_sets() -> list[str]:
    known = set((of_processor("flags") or of_processor("Features") or "").split())
    return [name for name in INSTRUCTION_SETS if name in known]


@contextmanager
def with_threads(number: int | None) -> Iterator[None]:
    """Torch with so many threads, and a note if there are more of them than cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    if torch.get_num_threads() > num_cores():
        print(
            f"note: threads={torch.get_num_threads()} on {num_cores()} cores: they wait for each other, so times are "
            f"longer and less steady than with threads={num_cores()}",
            file=sys.stderr,
        )
    try:
        yield
    finally:
        torch.set_num_threads(before)
