"""The memory of this process: its peak, and how freed memory returns to the system."""

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 2**20  # of malloc.h; bytes


def hand_memory_back() -> None:
    """Make glibc return large blocks when they are freed: otherwise blocks of changing sizes pile up in its heap."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def restart_peak() -> None:
    """Measure the peak memory anew from here; only Linux can, elsewhere the peak stays that of the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> int:
    """The peak memory of this process so far, or since ``restart_peak``."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
