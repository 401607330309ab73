"""convert: from the files as their authors share them to a story, and what is refused, in one line each."""

import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from storydalle.commands.main import main
from storydalle.tokens.image_tokenizer import ImageTokenizer
from tests.released_tokenizers import openai_network, openai_weights, taming_losses
from tests.test_conversion import HEADS, vqgan, write_mega, write_min_dalle, write_story_dalle


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(*settings: str) -> int:
    return main(["convert", f"num_heads={HEADS}", *settings])


def refused(capsys: pytest.CaptureFixture[str], *settings: str) -> str:
    assert convert(*settings) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1, said
    return said


@pytest.mark.parametrize("is_packed", [True, False])
def test_mindalle_is_converted_and_draws(is_packed: bool, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_min_dalle(folder / "released")
    source = folder / "released"
    if is_packed:
        source = folder / "1.3B.tar.gz"
        with tarfile.open(source, "w:gz") as tar:
            tar.add(folder / "released" / "1.3B", "1.3B")
    assert convert("format=mindalle", f"source={source}", "target=models/ours") == 0
    assert [path.name for path in Path("models").iterdir()] == ["ours"], "nothing is left beside it"
    Image.new("RGB", (20, 20), "red").save("frame.png")
    Path("story.txt").write_text("a red square\na blue square\n")
    assert main(["generate", "model=models/ours", "captions=story.txt", "source=frame.png", "out=strip"]) == 0
    assert Path("strip/strip.png").is_file()


def test_a_model_in_parts_opens_too(folder: Path) -> None:
    write_story_dalle(folder / "released")
    sharded = ("target=ours", "dtype=float16", "megabytes_a_file=1")
    assert convert("format=storydalle", "source=released/49.pth", *sharded) == 0
    Path("story.txt").write_text("pororo jumps\n")
    Image.new("RGB", (20, 20), "red").save("frame.png")
    assert main(["generate", "model=ours", "captions=story.txt", "source=frame.png", "out=strip"]) == 0


def test_mega_is_converted_and_draws(folder: Path) -> None:
    write_mega(folder / "released")
    files = ("source=released", "image_encoder=released/last.ckpt")
    assert convert("format=dalle-mega", *files, "target=ours") == 0
    Path("story.txt").write_text("a red square\na blue square\n")
    Image.new("RGB", (20, 20), "red").save("frame.png")
    assert main(["generate", "model=ours", "captions=story.txt", "source=frame.png", "out=strip"]) == 0


def test_what_a_released_story_dalle_lacks_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_story_dalle(folder / "released")
    assert convert("format=storydalle", "source=released/49.pth", "target=ours") == 0
    said = capsys.readouterr().out
    assert "no source attention" in said and "the story encoder reads" in said and "wrote ours" in said


def test_image_tokenizers_are_converted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict": vqgan() | taming_losses()}, "last.ckpt")
    assert convert("format=taming-vqgan", "source=last.ckpt", "target=vqgan") == 0
    Path("released").mkdir()
    for side in ("encoder", "decoder"):
        torch.save(openai_network(openai_weights(side), side, monkeypatch), f"released/{side}.pkl")
    assert convert("format=openai-dvae", "source=released", "target=dvae") == 0
    assert [ImageTokenizer.from_pretrained(name).kind for name in ("vqgan", "dvae")] == ["vqgan", "dvae"]


def test_a_checkpoint_of_another_family_is_told_which_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_min_dalle(folder)
    stage2 = next(folder.rglob("stage2_last.ckpt"))
    said = refused(capsys, "format=taming-vqgan", f"source={stage2}", "target=x")
    assert "looks like stage 2 of format=mindalle" in said
    assert not Path("x").exists()


def test_mistakes_are_one_line_and_lose_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": vqgan()}, "last.ckpt")
    Path("used").mkdir()
    good = ("format=taming-vqgan", "source=last.ckpt", "target=new")
    for change, said in (
        ("format=null", "format is not set"),
        ("format=mindale", "did you mean mindalle?"),
        ("source=gone.ckpt", "gone.ckpt is not there"),
        ("target=used", "target=used is in use"),
        ("dtype=int8", "dtype=int8 is none of"),
        ("megabytes_a_file=0", "megabytes_a_file"),
        ("format=dalle-mega", "format=dalle-mega needs image_encoder=FILE"),
    ):
        assert said in refused(capsys, *good, change)
    content = Path("last.ckpt").read_bytes()
    Path("last.ckpt").write_bytes(content[: len(content) // 2])
    assert "truncated" in refused(capsys, *good)
    assert not Path("new").exists() and not list(Path("used").iterdir())
