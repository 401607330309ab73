"""evaluate on ToonSV 2: its splits, its tables with their numbers of items, and what real frames get."""

import json
from pathlib import Path

import pytest

from storydalle.metrics.toonsv import NAMES
from tests.command_line import Command, command  # noqa: F401
from tests.evaluations import reader_measured_once  # noqa: F401
from tests.tiny import tiny_story_dalle


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_story_dalle(resolution=72).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_stories_of_all_lengths_are_scored_fact_by_fact(command: Command, model: Path) -> None:  # noqa: F811
    settings = ("data=toon2", f"model={model}", "splits=[test,long20]", "num_stories=3", "out=out")
    run = command("evaluate", *settings)
    assert run.status == 0, run.err
    assert run.out.startswith("Labels read on held-out real frames: ")
    for heading in ("| of 1, 2 | of 3, 4 |", "| hat: source |", "| thing: source |", "| setting |", "| two guests |"):
        assert run.out.count(heading) == 2, heading
    assert run.out.count("\n| items | ") == 8
    assert "| hat after absence | test | .700 | .900 | " in run.out and "| long50 |" not in run.out
    short, long = (json.loads(Path("out", split, "metrics.json").read_text()) for split in ("test", "long20"))
    assert short["protocol"]["labels"]["name"] == "label_reader2" and short["protocol"]["num_targets"] is None
    real, drawn = long["values"]["real frames"], long["values"][str(model)]
    assert real["facts_right"] > 0.9 and drawn["facts_right"] < 0.5
    assert set(NAMES) | {"facts_right_at_20", "facts_kept"} <= set(real) and "facts_right_at_21" not in real
    assert long["n"]["real frames"]["frame_accuracy"] == 60 and long["n"]["real frames"]["facts_right_at_20"] == 3
    assert "Frames with all facts right, by frame" in Path("out", "long20", "index.html").read_text()


def test_a_split_that_the_world_lacks_is_named(command: Command, model: Path) -> None:  # noqa: F811
    run = command("evaluate", "data=toon2", f"model={model}", "splits=[long30]", "out=out")
    assert run.status == 2 and "toon2 has no split 'long30'; did you mean long" in run.err
    run = command("evaluate", "data=toon", f"model={model}", "splits=[long20]", "out=out")
    assert run.status == 2 and "toon has no split 'long20'" in run.err
    run = command("evaluate", "data=toon", f"model={model}", "data.num_targets=null", "out=out")
    assert run.status == 2 and "data.num_targets=None" in run.err
