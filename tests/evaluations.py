"""Evaluations in one process of tests: the label reader is measured on held-out frames in the first of them alone."""

import pytest

from storydalle.commands import evaluate
from storydalle.evaluation.judges import Judges

TOLD: list[str] = []


@pytest.fixture(autouse=True)
def reader_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the reader that ships, and its frames are the same each time."""
    measured = evaluate.reader_accuracy

    def once(judges: Judges) -> str:
        if not TOLD:
            TOLD.append(measured(judges))
        return TOLD[0]

    monkeypatch.setattr(evaluate, "reader_accuracy", once)
