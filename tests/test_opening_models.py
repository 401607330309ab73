"""model=: an unknown, a missing or a damaged model is one line."""

from pathlib import Path

import pytest

from storydalle.models import zoo
from tests.command_line import Command, assert_mistake, command, painting, story  # noqa: F401


@pytest.fixture
def captions_file(command: Command, tmp_path: Path) -> str:  # noqa: F811
    (tmp_path / "story.txt").write_text("Pip waves.\n")
    return "captions=story.txt"


def test_an_unknown_model_is_told_with_the_nearest_names(
    command: Command,  # noqa: F811
    captions_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zoo, "zoo_names", lambda: ["story_dalle", "storyganc"])
    assert_mistake(command("generate", captions_file, "model=story_dale"), "'story_dale'", "did you mean story_dalle?")
    assert_mistake(command("generate", captions_file, "model=no/such/folder"), "no/such/folder")


def test_a_hub_model_that_is_not_there_is_one_line(command: Command, captions_file: str) -> None:  # noqa: F811
    assert_mistake(command("generate", captions_file, "model=nobody/no-such-model"), "nobody/no-such-model")


def test_a_folder_without_a_model_is_one_line(command: Command, captions_file: str) -> None:  # noqa: F811
    Path("empty").mkdir()
    assert_mistake(command("generate", captions_file, "model=empty"), "config.json and model.safetensors missing")


@pytest.mark.parametrize("config", ["{}", "not json", '{"image_tokenizer": {"colour": 3}}'])
@pytest.mark.parametrize("weights", [b"", b"\x10\0\0\0\0\0\0\0{", b"PK\x03\x04 a pickle"])
def test_a_truncated_or_foreign_checkpoint_is_one_line(
    command: Command,  # noqa: F811
    captions_file: str,
    config: str,
    weights: bytes,
) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text(config)
    Path("model/model.safetensors").write_bytes(weights)
    assert_mistake(command("generate", captions_file, "model=model"), "cannot open model")
    assert not Path("strips").exists()
