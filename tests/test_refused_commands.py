"""A command that is refused before its work begins leaves nothing."""

from pathlib import Path

import pytest

from storydalle.commands.main import main

CAPTIONS = "captions=[Pip waves.]"
REFUSED = (
    ("train", "experiment=toon/story_dalle", "pretrained=nothing"),
    ("train", "experiment=toon/story_dalle", "pretrained=toon/image_tokenizer", "name=mine", "seed=-1"),
    ("train", "experiment=toon/story_dalle", "pretrained=nothing", "name=mine", "runs=own/runs"),
    ("train", "experiment=toon/story_dalle", "resume=true"),
    ("train", "experiment=toon/story_dalle", "max_steps=0"),
    ("train", "experiment=toon/storyganc", "system.clip=0"),
    ("train", "experiment=toon/storyganc", "trainer.plugins=[]"),
    ("generate", CAPTIONS, "model=nothing"),
    ("generate", CAPTIONS, "source=nothing.png"),
    ("generate", CAPTIONS, "top_p=7", "out=own/strips"),
    ("generate", "story=nothing.json"),
    ("evaluate", "model=nothing"),
    ("evaluate", "splits=[nothing]", "out=own/scores"),
    ("evaluate", "compare=nothing"),
    ("evaluate", "images=nothing"),
    ("prepare", "split=nothing"),
    ("prepare", "pretrained=nothing"),
    ("prepare", "data=folder", "data.root=nothing", "out=own/look"),
    ("convert", "format=mindalle", "source=nothing", "target=own/model"),
    ("report", "runs=nothing"),
    ("bench", "model=nothing"),
    ("bench", "bench=story_gan", "model=story_dalle", "out=own/speed"),
    ("demo", "model=nothing"),
    ("demo", "split=nothing", "out=own/demo"),
)


@pytest.mark.parametrize("asked", REFUSED, ids=" ".join)
def test_a_refused_command_leaves_nothing(
    asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(asked)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.rglob("*")) == []
