"""The memory of this process: what it can still have, its peak, and how freed memory returns to the system."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_KEPT, MOST_KEPT = 2**25, 2**30  # bytes: of a block, as many as glibc allows, and at the end of its heap

# Of a control group, by the version of its interface: where groups are, limit, use, and the part of it that is a cache.
GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks for the next ones: the system clears every page that it gives, which takes long.

    Blocks of changing sizes pile up in the heap: call ``hand_memory_back`` from time to time.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        library.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def hand_memory_back() -> None:
    """Return freed memory to the system, where the C library is glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def restart_peak() -> None:
    """Measure the peak memory anew from here; only Linux can, elsewhere the peak stays that of the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> int:
    """The peak memory of this process so far, or since ``restart_peak``."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def memory_bytes() -> int:
    """All memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can still have: what the machine has free, or less where a control group limits it.

    Containers and job schedulers set such limits. ``root`` is the folder of the system's files.
    """
    return max(0, min([machine_bytes(root / "proc/meminfo"), *group_bytes(root)]))


def machine_bytes(meminfo: Path) -> int:
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return memory_bytes() if found is None else 1024 * int(found)


def group_bytes(root: Path) -> Iterator[int]:
    """What is left to each control group that this process is in, and to the groups around them."""
    own = root / "proc/self/cgroup"
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in GROUPS:
            continue
        base, limit, used, cache = GROUPS[controllers]
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):
            folder = root / base / group
            with suppress(OSError, ValueError):  # no such group from inside a container, or "max": no limit
                reclaimable = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                yield left + int(reclaimable.get(cache, 0))


def told_bytes(number: float | int) -> str:
    """A number of bytes for people, in units of 10^9 or 10^6."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"
