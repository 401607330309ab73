"""Commands in new processes, as users start them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import storydalle
from storydalle.bench.machine import num_cores

IMPORTING = "a new process that imports torch and nothing else"


def importing_torch(folder: Path) -> Callable[[], None]:
    """The floor of every command that draws."""
    return lambda: started(folder, "-c", "import torch")


def commanded(folder: Path, *words: str) -> Callable[[], None]:
    """A command of storydalle."""
    return lambda: started(folder, "-m", "storydalle", *words)


def started(folder: Path, *words: str) -> None:
    """Run Python in a folder, with the threads of this process; RuntimeError, with what was said, if it fails."""
    package = str(Path(storydalle.__file__).parent.parent)
    found = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    threads = str(min(torch.get_num_threads(), num_cores()))
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": found, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()}")
