"""The examples: short, and what they promise is there when they have run."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storydalle import StoryDALLE
from storydalle.stories.toon import ToonSV
from tests.documents import ROOT

EXAMPLES = ROOT / "examples"


def example(name: str) -> dict[str, Any]:
    """The names of an example, which does nothing yet."""
    return runpy.run_path(str(EXAMPLES / name))


@pytest.mark.parametrize("name", ["draw.py", "train.py", "score.py"])
def test_an_example_is_under_40_lines(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 40


def test_drawing_in_a_loop_writes_a_strip_a_seed_and_one_that_goes_on(tmp_path: Path) -> None:
    example("draw.py")["draw"](tmp_path / "drawn", num_seeds=1)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["next.png", "seed-0.png"]
    with Image.open(tmp_path / "drawn" / "next.png") as strip:
        assert strip.width > 3 * 128


def test_a_trainer_of_ones_own_writes_a_model_that_opens(tmp_path: Path) -> None:
    example("train.py")["train"](tmp_path, num_stories=4, max_steps=2)
    model = StoryDALLE.from_pretrained(tmp_path / "model")
    assert model.model.source_attention and model.model.story_encoder is not None


def test_true_frames_in_a_folder_are_scored_as_right(tmp_path: Path) -> None:
    for story in ToonSV("test", 2, resolution=128):
        (tmp_path / story.id).mkdir(parents=True)
        for number, frame in enumerate(story.frames, start=1):
            Image.fromarray(frame).save(tmp_path / story.id / f"{number}.png")
    score = example("score.py")["score"]
    scores = score(tmp_path, num_stories=2)
    assert scores["character_micro_f1"] == scores["action"] == 1
    assert scores["error"] == 0 < scores["change"]
    black = tmp_path / story.id / "1.png"
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(black)
    assert score(tmp_path, num_stories=2)["error"] > 0


def test_the_cells_of_the_notebook_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples")
    notebook = json.loads(Path("draw.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), "saved without its outputs"
    names: dict[str, Any] = {}
    for cell in cells:
        exec("".join(cell["source"]).replace("range(3)", "range(1)"), names)
    assert len(names["strips"]) == 1 and len(names["drawn"].frames) == len(names["more"]) == 2
