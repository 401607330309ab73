"""Each source's licence is said by convert, kept in the folder, and goes on to whatever is trained on it."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from storydalle.commands.main import main
from storydalle.commands.train import card
from storydalle.models import licences
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.training.building import story_dalle, text_to_image
from tests.released_tokenizers import flava_name, openai_weights
from tests.test_conversion import HEADS
from tests.test_released_messages import FORMATS
from tests.tiny import TinyStories, tiny_story_dalle
from tests.training import train_settings

PAGE = (Path(__file__).parents[1] / "docs" / "released-weights.md").read_text(encoding="utf-8")
SAID = {
    "mindalle": "minDALL-E, stage 2: CC-BY-NC-SA 4.0",
    "storydalle": "minDALL-E, stage 2, which it was tuned from: CC-BY-NC-SA 4.0",
    "dalle-mega": "DALL-E Mega: Apache 2.0",
    "dalle-mini": "DALL-E mini: Apache 2.0",
    "taming-vqgan": "taming's VQGAN: not stated by its authors (its program is under MIT)",
    "openai-dvae": "OpenAI's dVAE: a modified MIT licence",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """Of a format its files, converted to a folder, and what the command printed; done once."""

    @cache
    def made(format: str) -> tuple[Path, str]:
        home, printed = tmp_path_factory.mktemp(format), io.StringIO()
        write, source, encoder = FORMATS[format]
        write(home / "released")
        given = [f"source={home / source}", *([f"image_encoder={home / encoder}"] if encoder else [])]
        with contextlib.redirect_stdout(printed):
            assert main(["convert", f"format={format}", f"num_heads={HEADS}", f"target={home / 'ours'}", *given]) == 0
        return home / "ours", printed.getvalue()

    return made


@pytest.fixture
def converted(models: Callable[[str], tuple[Path, str]]) -> Callable[[str], Path]:
    """A copy of it, to be changed."""

    def copied(format: str) -> Path:
        return shutil.copytree(models(format)[0], Path("ours"))

    return copied


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize("format", FORMATS)
def test_convert_says_the_licence_of_each_part_in_one_line_and_the_folder_keeps_it(
    format: str, models: Callable[[str], tuple[Path, str]]
) -> None:
    ours, printed = models(format)
    (line,) = [line for line in printed.splitlines() if line.startswith("licences: ")]
    assert SAID[format] in line
    kept = read_json(ours / "card.json")
    parts = kept["converted"]["licences"]
    assert kept["converted"]["format"] == format and kept["converted"]["files"]
    assert line == "licences: " + "; ".join(f"{part}: {licence}" for part, licence in parts.items())
    readme = (ours / "README.md").read_text()
    assert SAID[format] in readme and readme.startswith(f"---\nlicense: {kept['license']}\n")
    assert kept["license"] == ("cc-by-nc-sa-4.0" if format == "mindalle" else "other")


def test_every_format_that_is_read_has_its_terms() -> None:
    assert licences.TERMS.keys() == FORMATS.keys()


def test_flavas_encoder_brings_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    write, source, _ = FORMATS["openai-dvae"]
    write(Path.cwd() / "released")
    torch.save({flava_name(name): value for name, value in openai_weights("encoder").items()}, "flava.bin")
    given = (f"source={source}", "image_encoder=flava.bin", "target=ours")
    assert main(["convert", "format=openai-dvae", *given]) == 0
    said = "OpenAI's dVAE: a modified MIT licence; FLAVA's image codebook: BSD 3-Clause"
    assert f"licences: {said}" in capsys.readouterr().out and said in Path("ours/README.md").read_text()
    assert read_json(Path("ours/card.json"))["converted"]["files"] == ["flava.bin", "decoder.pkl"]


def trained(model: StoryDALLE, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The card that a training writes in place of the model's."""
    monkeypatch.setattr(type(model), "measured", lambda self, stories: {})
    settings = train_settings(sampling={"top_k": 3}, pretrained="x", network={"text_to_image": "x"})
    return card(model, TinyStories(), settings, 7)


@pytest.mark.parametrize("format", ["mindalle", "storydalle", "dalle-mega"])
def test_a_model_tuned_from_a_converted_one_inherits_its_licence_and_so_do_those_tuned_from_it(
    format: str, converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, source = converted(format), {"source_blocks": "all", "story_depth": 1}
    for generation in ("first", "second"):
        made = story_dalle(str(base), "runs", source)
        made.card = trained(made, monkeypatch)
        assert "converted" not in made.card and made.card["sampling"] == {"top_k": 3}
        assert made.card["license"] == ("cc-by-nc-sa-4.0" if format == "mindalle" else "other")
        assert made.card["derived_from"]["format"] == format
        base = Path(generation)
        made.save_pretrained(base)
        readme = (base / "README.md").read_text()
        assert SAID[format] in readme and f"| derived from | weights of format={format}, " in readme
        assert readme.startswith(f"---\nlicense: {made.card['license']}\n")


def test_a_text_to_image_model_behind_a_converted_image_tokenizer_inherits_that_ones(
    converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    converted("openai-dvae")
    tiny_story_dalle().image_tokenizer.save_pretrained("ours-alone")
    for images, derived in (("ours", "openai-dvae"), ("ours-alone", None)):
        sizes = {"dim": 32, "depth": 1, "num_heads": 2}
        made = text_to_image(images, "runs", {"vocab_size": 80, "text_length": 6}, TinyStories(), sizes)
        found = trained(made, monkeypatch)
        assert found.get("derived_from", {}).get("format") == derived
        assert ("license" in found) == (derived is not None), "our own makings say nothing of others"


def test_a_folder_converted_before_licences_were_kept_has_those_of_its_format(
    converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = converted("mindalle")
    old = read_json(ours / "card.json")
    del old["license"], old["converted"]["licences"]
    (ours / "card.json").write_text(json.dumps(old))
    made = story_dalle(str(ours), "runs", {"source_blocks": "all", "story_depth": 1})
    found = trained(made, monkeypatch)
    assert found["license"] == "cc-by-nc-sa-4.0"
    assert "CC-BY-NC-SA 4.0" in found["derived_from"]["licences"]["minDALL-E, stage 2"]
    assert main(["convert", "format=mindalle", "reverse=true", "source=ours", "target=theirs"]) == 0
    assert SAID["mindalle"] in capsys.readouterr().out, "files of a release leave with their licence told"


@pytest.mark.parametrize("text", ["text", ["a", "list"], 3, None])
def test_a_strangers_card_that_holds_something_else_there_breaks_nothing(text: Any) -> None:
    assert licences.inherited({"converted": text}) == {} and licences.told({"derived_from": text}) == ""
    kept = {"format": "openai-dvae", "licences": text}
    assert licences.told({"converted": kept}) == SAID["openai-dvae"]


@pytest.mark.parametrize("content", ["{", "[1]", '"text"'])
def test_a_damaged_card_is_one_line_on_the_way_back(
    content: str, converted: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ours = converted("taming-vqgan")
    (ours / "card.json").write_text(content)
    assert main(["convert", "format=taming-vqgan", "reverse=true", "source=ours", "target=theirs"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "card.json" in line and not Path("theirs").exists()


@pytest.mark.parametrize(("format", "licence"), [*SAID.items(), ("openai-dvae", "BSD 3-Clause")])
def test_the_table_of_released_weights_has_every_licence(format: str, licence: str) -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith("|") and f"convert format={format} " in row]
    named = licence.rpartition(": ")[2].partition(" (")[0]
    assert any(named in row.split("|")[3] for row in rows), f"{format}: {named}"
