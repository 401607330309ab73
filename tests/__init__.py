"""Tests. In every process that imports one, those that a test starts too, their seeds are moved alike."""

import os

if os.environ.get("STORYDALLE_TEST_SEED_SHIFT"):
    from tests.shifted import move_seeds

    move_seeds()
