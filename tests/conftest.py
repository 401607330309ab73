"""One thread a process and no network for every test. The package itself is imported by the tests, under jaxtyping."""

import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from tests import shifted
from tests.checked import check_shapes_where_there_are_any

check_shapes_where_there_are_any()
gc.disable()  # until all is imported: to walk through it again and again took as long as a fifth of importing it


def pytest_collection_finish() -> None:
    from tests.checked_tuples import check_tuples  # imports the package: not before its import hook is there

    check_tuples()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def draws_of_its_own() -> None:
    """Let a test draw the same without a seed, whichever tests ran before it."""
    torch.random.default_generator.manual_seed(shifted.SHIFT)
