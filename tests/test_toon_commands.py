"""prepare and demo on ToonSV, which is drawn and not read."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import Command, PaintingModel, command, files, painting  # noqa: F401


def test_prepare_writes_a_contact_sheet_and_counts(command: Command) -> None:  # noqa: F811
    run = command("prepare", "data=toon", "data.resolution=64", "num_stories=2", "out=look")
    assert run.status == 0, run.err
    counts = json.loads(Path("look/counts.json").read_text())
    assert sum(counts["tint"].values()) == sum(counts["setting"].values()) > 0
    with Image.open("look/contact_sheet.png") as sheet:
        assert min(sheet.size) > 64


def test_demo_writes_a_gallery_that_can_be_written_again(command: Command, painting: Path) -> None:  # noqa: F811
    monkey = pytest.MonkeyPatch()
    monkey.setattr(PaintingModel, "resolution", 64)
    try:
        for _ in range(2):
            run = command("demo", "num_stories=2")
            assert run.status == 0, run.err
    finally:
        monkey.undo()
    assert set(files(Path("demo"))) == {"index.html", "strip-1.png", "strip-2.png", "demo.json"}
