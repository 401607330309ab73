"""The memory of this process: how much it has held, and how it gives back what it no longer needs."""

import ctypes
import resource
import sys
from contextlib import suppress

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 2**20  # of malloc.h; bytes


def hand_memory_back() -> None:
    """Have glibc return large blocks when they are freed: kept, blocks of changing sizes would pile up in its heap."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def peak_megabytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
