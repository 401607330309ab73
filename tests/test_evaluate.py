"""evaluate: the rows, the records and the README's table, from a tiny model and from a folder of pictures."""

import json
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
