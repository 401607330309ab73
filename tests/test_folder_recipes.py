"""The way of data/folder/README.md: from twelve stories of one's own, by the commands as they are typed, to a strip."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storydalle.commands import main
from storydalle.stories.toon import ToonSV
from tests.test_project import ROOT
from tests.tiny import tiny_story_dalle

README = ROOT / "data" / "folder" / "README.md"
NEW = ["Mimi waves.", "She jumps.", "Kiko sleeps."]


def commands() -> list[str]:
    blocks = re.findall(r"```\n(storydalle .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def write_own_stories(root: Path, number: int) -> None:
    """ToonSV's stories as somebody would keep their own, at 64 pixels."""
    for i, story in enumerate(ToonSV("train", number, resolution=64), start=1):
        folder = root / f"story {i}"
        folder.mkdir(parents=True)
        for k, frame in enumerate([story.source, *story.frames], start=1):
            Image.fromarray(frame).save(folder / f"{k}.png")
        (folder / "captions.txt").write_text("\n".join([story.descriptions[0], *story.captions]) + "\n")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command as it is typed, beside a folder ``stories``, and gives what it printed."""
    write_own_stories(tmp_path / "stories", 12)
    (tmp_path / "new.txt").write_text("\n".join(NEW) + "\n")
    (tmp_path / "first.png").write_bytes((tmp_path / "stories" / "story 1" / "1.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])

    def run(line: str, *more: str) -> str:
        capsys.readouterr()
        status = main.main([*shlex.split(line)[1:], *more])
        told = capsys.readouterr()
        assert status == 0, told.err
        return told.out

    return run


def test_the_readme_needs_four_commands_after_prepare() -> None:
    names = [" ".join(line.split()[1:3]) for line in commands()]
    assert names[:5] == [
        "prepare data=folder",
        "train experiment=folder/image_tokenizer",
        "train experiment=folder/text_to_image",
        "train experiment=folder/story_dalle",
        "generate captions=new.txt",
    ]


def test_the_commands_of_the_readme_lead_from_twelve_stories_to_a_strip(run: Callable[..., str]) -> None:
    """As typed, but that a training ends after two steps."""
    for line in commands():
        command = line.split()[1]
        told = run(line, *(("trainer=smoke", "tokenizer.image.ch=8") if command == "train" else ()))
        if command == "evaluate":
            assert "leaves test empty: " in told and "test has no story: val is scored instead" in told
        if command == "train":
            assert "sized for 50 pictures in 10 stories of train: max_steps=" in told
    with Image.open("strip/strip.png") as strip:
        assert strip.width > len(NEW) * 64 and strip.height >= 64
    assert Path("prepared/folder/contact_sheet.png").is_file()
    (scores,) = Path("evaluated").rglob("metrics.json")
    protocol = json.loads(scores.read_text())["protocol"]
    assert (protocol["dataset"], protocol["split"], protocol["num_stories"]) == ("folder", "val", 2)


def test_one_story_with_characters_is_evaluated(run: Callable[..., str], tmp_path: Path) -> None:
    """A score that needs more stories is left out, and the line of the splits says which stories these are."""
    rows = [f"only,{k},stories/story 1/{k}.png,Mimi waves.,Mimi" for k in (1, 2, 3)]
    (tmp_path / "stories.csv").write_text("\n".join(["story,frame,file,caption,characters", *rows]))
    for captions in tmp_path.glob("stories/*/captions.txt"):
        captions.unlink()
    tiny_story_dalle(source_blocks="none", story_depth=0).save_pretrained(tmp_path / "base")
    told = run("storydalle evaluate data=folder data.root=. model=base out=scores")
    assert "test has no story: train is scored instead" in told
    record = json.loads(Path("scores/train/metrics.json").read_text())
    assert record["protocol"]["num_stories"] == 1
    assert record["values"]["real frames"]["error"] == 0 < record["values"]["base"]["error"]


@pytest.mark.slow
def test_the_recipes_at_their_own_sizes_draw_what_they_were_shown(run: Callable[..., str], tmp_path: Path) -> None:
    """Told a story of theirs again, they draw its frames: nearer to each than to the same frame of other stories."""
    for line in commands():
        if line.split()[1] == "train" and "storyganc" not in line:
            run(line)
    captions = (tmp_path / "stories" / "story 1" / "captions.txt").read_text().split("\n", 1)[1]
    (tmp_path / "new.txt").write_text(captions)
    run(next(line for line in commands() if "generate" in line))
    drawn = pictures(sorted(Path("strip/frames").glob("0?.png")))
    own, *others = (pictures(sorted((tmp_path / "stories" / f"story {k}").glob("[2-5].png"))) for k in range(1, 13))
    distance = np.abs(drawn - own).mean()
    assert distance < 0.12, distance
    assert distance < 0.6 * min(np.abs(drawn - other).mean() for other in others)


def pictures(files: list[Path]) -> np.ndarray:
    """Pictures of the files, (f, h, w, 3) in [0, 1]."""
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((64, 64))) for file in files]) / 255
