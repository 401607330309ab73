"""Imports of a command without garbage collection."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch, and what needs it, inside: Python's collector rests, and leaves alone for good what is there now.

    Modules live as long as the process. The collector would walk through all that they hold again and again, and once
    more at the end: a quarter of the time of a strip. Where torch is there already, as in a test, nothing changes.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
