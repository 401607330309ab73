"""convert: a file where a folder belongs, a folder where a file does, and files that look like another format's."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from storydalle.checkpoints.recognition import FAMILIES, looks_like
from storydalle.commands.main import main
from tests.released_tokenizers import flava_name, openai_weights
from tests.test_conversion import HEADS, write_mega, write_min_dalle, write_story_dalle
from tests.test_convert import write_dvae, write_vqgan

# Of every format what writes its files, what is given as source and, where there is one, as image_encoder.
Given = tuple[Callable[[Path], Any], str, str | None]


FORMATS: dict[str, Given] = {
    "mindalle": (write_min_dalle, "released", None),
    "storydalle": (write_story_dalle, "released/49.pth", None),
    "dalle-mega": (write_mega, "released", "released/last.ckpt"),
    "dalle-mini": (lambda folder: write_mega(folder, "_mini"), "released", "released/last.ckpt"),
    "taming-vqgan": (write_vqgan, "released/last.ckpt", None),
    "openai-dvae": (write_dvae, "released", None),
}
FIRST_FILE = {"mindalle": "1.3B/stage1_last.ckpt", "openai-dvae": "encoder.pkl", "dalle-mini": "encoder_mini.pt"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], format: str, **settings: str | None) -> str:
    given = [f"{name}={value}" for name, value in settings.items() if value is not None]
    assert main(["convert", f"format={format}", f"num_heads={HEADS}", "target=ours", *given]) == 2
    said = capsys.readouterr().err.removeprefix("storydalle: ")
    assert len(said.splitlines()) == 1 and not Path("ours").exists(), said
    return said


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_in_a_folders_place_and_a_folder_in_a_files_are_told_what_belongs_there(
    format: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, source, encoder = FORMATS[format]
    write(folder / "released")
    is_file = Path(source).is_file()
    wrong = "released" if is_file else f"released/{FIRST_FILE.get(format, 'encoder.pt')}"
    said = refused(capsys, format, source=wrong, image_encoder=encoder)
    kind, belongs = ("folder", "checkpoint itself") if is_file else ("file", "the folder that holds")
    assert said.startswith(f"source={wrong} is a {kind}: format={format} is read from ") and belongs in said
    assert "Not a directory" not in said and "Is a directory" not in said


@pytest.mark.parametrize("format", FORMATS)
def test_of_an_empty_folder_or_a_damaged_file_nothing_but_itself_is_named(
    format: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a vocabulary nor weights that lie beside it."""
    write, source, encoder = FORMATS[format]
    write(folder / "released")
    if Path(source).is_file():
        Path(source).write_bytes(b"PK damaged")
        (folder / "alone").mkdir()
        Path(source).replace("alone/it")
        given, said = "alone/it", r"alone/it is truncated or damaged|alone holds no vocab\.json"
    else:
        (folder / "empty").mkdir()
        given, said = "empty", r"empty holds no |empty/\S+ is missing"
    told = refused(capsys, format, source=given, image_encoder=encoder)
    assert re.search(said, told) and "released/" not in told


@pytest.mark.parametrize("format", ["dalle-mega", "dalle-mini"])
def test_an_image_encoder_is_a_file_that_is_there(
    format: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, source, _ = FORMATS[format]
    write(folder / "released")
    assert "image_encoder=gone.ckpt is not there" in refused(capsys, format, source=source, image_encoder="gone.ckpt")
    said = refused(capsys, format, source=source, image_encoder="released")
    assert "image_encoder=released is a folder: give the VQGAN's checkpoint itself" in said


def test_with_reverse_a_file_is_no_model_of_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vqgan(folder / "released")
    for format in ("mindalle", "dalle-mega", "dalle-mini", "taming-vqgan"):
        assert main(["convert", f"format={format}", "reverse=true", "source=released/last.ckpt", "target=ours"]) == 2
        assert "source=released/last.ckpt is a file: with reverse=true" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- what a file looks like

# Of every file that is read: its format, where it is, and the family that it is of.
FILES = {
    "stage 1": ("mindalle", "1.3B/stage1_last.ckpt", "format=taming-vqgan, or stage 1 of format=mindalle"),
    "stage 2": ("mindalle", "1.3B/stage2_last.ckpt", "stage 2 of format=mindalle"),
    "StoryDALL-E": ("storydalle", "49.pth", "format=storydalle"),
    "Mega's encoder": ("dalle-mega", "encoder.pt", "a part of format=dalle-mega, its encoder.pt"),
    "Mega's decoder": ("dalle-mega", "decoder.pt", "a part of format=dalle-mega, its decoder.pt"),
    "Mega's detokenizer": ("dalle-mega", "detoker.pt", "a part of format=dalle-mega, its detoker.pt"),
    "Mega's image encoder": ("dalle-mega", "last.ckpt", "format=taming-vqgan, or stage 1 of format=mindalle"),
    "mini's decoder": ("dalle-mini", "decoder_mini.pt", "a part of format=dalle-mega, its decoder.pt"),
    "VQGAN": ("taming-vqgan", "last.ckpt", "format=taming-vqgan, or stage 1 of format=mindalle"),
    "OpenAI's encoder": ("openai-dvae", "encoder.pkl", "a part of format=openai-dvae, its encoder.pkl"),
    "OpenAI's decoder": ("openai-dvae", "decoder.pkl", "a part of format=openai-dvae, its decoder.pkl"),
}


def weights_in(tree: dict[str, Any]) -> dict[str, torch.Tensor]:
    return next((tree[key] for key in ("state_dict", "model_state_dict") if key in tree), tree)


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_fails_as_what_it_is_is_not_said_to_look_like_that(
    what: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one that lacks a tensor, and of one with a tensor of another shape; each is known by its other names."""
    format, file, family = FILES[what]
    write, source, encoder = FORMATS[format]
    write(folder / "released")
    path = folder / "released" / file
    assert looks_like(path) == family in FAMILIES
    tree = torch.load(path, weights_only=True)
    # Of a VQGAN that only encodes the other half is not looked at.
    names = [name for name, value in weights_in(tree).items() if value.ndim > 1 and not name.startswith("decoder.")]
    for change in ("lacks one", "has one of another shape", "has one too many"):
        changed = torch.load(path, weights_only=True)
        weights = weights_in(changed)
        name = names[len(names) // 3]
        if change == "has one too many":
            weights["more"] = torch.zeros(1)
        else:
            value = weights.pop(name)
            weights |= {name: value[None]} if change == "has one of another shape" else {}
        torch.save(changed, path)
        said = refused(capsys, format, source=source, image_encoder=encoder)
        assert "looks like" not in said and re.search(r"missing|unknown|shape", said), (change, said)
        torch.save(tree, path)


def test_two_parts_in_each_others_place_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even of one release: its encoder for its decoder, its second stage for its first."""
    for format, first, second in (
        ("dalle-mega", "encoder.pt", "decoder.pt"),
        ("openai-dvae", "encoder.pkl", "decoder.pkl"),
        ("mindalle", "1.3B/stage1_last.ckpt", "1.3B/stage2_last.ckpt"),
    ):
        write, source, encoder = FORMATS[format]
        write(folder / "released")
        family = next(family for _, (of, file, family) in FILES.items() if (of, file) == (format, second))
        (folder / "released" / first).write_bytes((folder / "released" / second).read_bytes())
        said = refused(capsys, format, source=source, image_encoder=encoder)
        assert f"{Path(first).name} looks like {family}" in said
        (folder / "released").rename(folder / format)


def test_flavas_encoder_is_known_as_it_is(folder: Path) -> None:
    flava = {flava_name(name): value for name, value in openai_weights("encoder").items()}
    torch.save(flava, "flava.bin")
    assert looks_like(Path("flava.bin")) == "a part of format=openai-dvae, FLAVA's encoder"
