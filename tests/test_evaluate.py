"""evaluate: the rows, the records and the README's table, from a tiny model and from a folder of pictures."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from storydalle.commands.main import main
from storydalle.commands.models import zoo_folder
from storydalle.stories.toon import ToonSV
from tests.tiny import tiny_story_dalle

pytestmark = pytest.mark.skipif(
    not (zoo_folder() / "label_reader" / "config.json").is_file(), reason="the label reader does not ship yet"
)
RESOLUTION, STORIES = 72, 3


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tiny_story_dalle(resolution=RESOLUTION)
    made.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def evaluate(*settings: str) -> int:
    return main(["evaluate", "text_to_image=null", f"num_stories={STORIES}", "out=out", *settings])


def test_a_model_is_scored_beside_the_ceilings_and_the_readme_gets_the_same_table(model: Path, capsys):
    readme = Path("README.md")
    readme.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    assert evaluate(f"model={model}", f"text_to_image={model}", "readme=README.md", "card=true") == 0
    printed = capsys.readouterr().out
    for row in ("real frames", "tokenizer reconstruction", "copy the source", "text-to-image alone", str(model)):
        assert f"| {row} |" in printed
    table = next(line for line in printed.splitlines() if line.startswith(f"| {model} |"))
    page = readme.read_text()
    assert table in page
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    card = json.loads((model / "card.json").read_text())
    assert set(card["scores"]) == {"test", "unseen"}
    assert len(card["tables"]) == 2
    for split in ("test", "unseen"):
        record = json.loads(Path("out", split, "metrics.json").read_text())
        assert record["values"]["real frames"]["character_micro_f1"] == 1
        assert record["values"][str(model)]["probe_source"] == 0
        assert len(record["protocol_hash"]) >= 12


def test_the_true_frames_in_a_folder_score_as_real_frames(model: Path):
    for story in ToonSV("test", STORIES, resolution=128):
        folder = Path("frames") / story.id
        folder.mkdir(parents=True)
        for i, frame in enumerate(story.frames):
            Image.fromarray(frame).save(folder / f"{i + 1:02d}.png")
    assert evaluate("images=frames", f"model={model}", "splits=[test]") == 0
    values = json.loads(Path("out", "test", "metrics.json").read_text())["values"]
    assert values["frames"]["character_micro_f1"] == values["frames"]["action"] == 1


def test_a_story_without_its_pictures_is_named(model: Path, capsys):
    (Path("frames") / "toon" / "test" / "000000").mkdir(parents=True)
    assert evaluate("images=frames", f"model={model}", "splits=[test]") == 2
    assert "000000 holds 0 .png files, the story 4 frames" in capsys.readouterr().err


def test_the_models_of_a_sweep_stand_in_one_table_with_what_each_path_is_worth(model: Path, capsys):
    for name in ("full-seed0", "no_story-seed0"):
        shutil.copytree(model, Path("sweep") / name / "model")
    assert evaluate("compare=sweep", "splits=[test]") == 0
    printed = capsys.readouterr().out
    for row in ("real frames", "full-seed0", "no_story-seed0", "full-seed0, test"):
        assert f"| {row} |" in printed
    losses = [line for line in printed.splitlines() if line.startswith("| no story |")]
    assert len(losses) == 3
    assert all(line.endswith("| NO |") for line in losses), "equal models lose nothing"
    record = json.loads(Path("out", "test", "metrics.json").read_text())
    assert set(record["weights_sha256"]) == {"full-seed0", "no_story-seed0"}
    assert record["values"]["full-seed0"] == record["values"]["no_story-seed0"]


def test_models_that_draw_differently_are_not_compared(model: Path, capsys):
    for name, temperature in (("full", 1.0), ("no_story", 0.5)):
        shutil.copytree(model, folder := Path("sweep") / name / "model")
        (folder / "card.json").write_text(json.dumps({"sampling": {"temperature": temperature}}))
    assert evaluate("compare=sweep", "splits=[test]") == 2
    said = capsys.readouterr().err
    assert "full and no_story differ in sampling" in said and "temperature=0.5" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [(["compare=nothing"], "nothing holds no model"), (["compare=x", "card=true"], "leave out images= and card=")],
)
def test_a_comparison_of_nothing_or_into_a_card_is_one_line(settings: list[str], said: str, model: Path, capsys):
    assert evaluate(*settings) == 2
    assert said in capsys.readouterr().err
