"""convert: a file where a folder belongs, a folder where a file does, and files that look like another format's."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from storydalle.commands.main import main
from storydalle.released.layouts import LayoutError
from storydalle.released.recognition import FAMILIES, looks_like, mistaken
from tests.released_tokenizers import Weights
from tests.test_conversion import HEADS, write_mega, write_min_dalle, write_story_dalle
from tests.test_convert import pack, write_dvae, write_vqgan
from tests.test_released_layouts import FILES, rewritten

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
    assert "image_encoder=gone.ckpt does not exist" in refused(capsys, format, source=source, image_encoder="gone.ckpt")
    said = refused(capsys, format, source=source, image_encoder="released")
    assert "image_encoder=released is a folder: give the VQGAN's checkpoint itself" in said


def test_with_reverse_a_file_is_no_model_of_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vqgan(folder / "released")
    for format in ("mindalle", "dalle-mega", "dalle-mini", "taming-vqgan"):
        assert main(["convert", f"format={format}", "reverse=true", "source=released/last.ckpt", "target=ours"]) == 2
        assert "source=released/last.ckpt is a file: with reverse=true" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- what a file looks like

# Of every file that is read: its format, and the family that it is of.
FAMILY = {
    "minDALL-E's stage 1": ("mindalle", "format=taming-vqgan, or stage 1 of format=mindalle"),
    "minDALL-E's stage 2": ("mindalle", "stage 2 of format=mindalle"),
    "StoryDALL-E": ("storydalle", "format=storydalle"),
    "min-dalle's encoder.pt": ("dalle-mega", "a part of format=dalle-mega, its encoder.pt"),
    "min-dalle's decoder.pt": ("dalle-mega", "a part of format=dalle-mega, its decoder.pt"),
    "min-dalle's detoker.pt": ("dalle-mega", "a part of format=dalle-mega, its detoker.pt"),
    "min-dalle's last.ckpt": ("dalle-mega", "format=taming-vqgan, or stage 1 of format=mindalle"),
    "OpenAI's encoder.pkl": ("openai-dvae", "a part of format=openai-dvae, its encoder.pkl"),
    "OpenAI's decoder.pkl": ("openai-dvae", "a part of format=openai-dvae, its decoder.pkl"),
    "FLAVA": ("openai-dvae", "a part of format=openai-dvae, FLAVA's encoder"),
    "taming's VQGAN": ("taming-vqgan", "format=taming-vqgan, or stage 1 of format=mindalle"),
}


def test_every_file_that_is_read_is_of_a_family() -> None:
    assert FAMILY.keys() == FILES.keys() and {family for _, family in FAMILY.values()} == FAMILIES.keys()


def changed(weights: Weights, change: str) -> Weights:
    """One of its tensors is gone, or has another shape, or there is one more; the others are as they were."""
    # Of a VQGAN that only encodes the other half is not looked at.
    names = [name for name, value in weights.items() if value.ndim > 1 and not name.startswith("decoder.")]
    name = names[len(names) // 3]
    if change == "one too many":
        return weights | {"more": torch.zeros(1)}
    if change == "another shape":
        return weights | {name: weights[name][None]}
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize("change", ["one too few", "one too many", "another shape"])
@pytest.mark.parametrize("what", FAMILY)
def test_a_damaged_file_of_the_asked_family_is_not_said_to_look_like_that(what: str, change: str, folder: Path) -> None:
    (format, family), (write, name, key, read) = FAMILY[what], FILES[what]
    write(folder)
    assert looks_like(folder / name) == family
    rewritten(folder / name, lambda weights: changed(weights, change), key)
    with pytest.raises(LayoutError) as error:
        read(folder)
    assert looks_like(folder / name) == family and mistaken(error.value, format) is None


def test_convert_does_not_say_that_a_file_of_the_asked_family_looks_like_that(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, source, _ = FORMATS["mindalle"]
    write(folder / "released")
    rewritten(folder / "released/1.3B/stage2_last.ckpt", lambda weights: changed(weights, "another shape"))
    said = refused(capsys, "mindalle", source=source)
    assert "stage2_last.ckpt: the weights are not those of the layout" in said and "looks like" not in said


def test_files_of_an_archive_are_named_by_it_and_told_apart_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by where they are unpacked for a while."""
    write_min_dalle(folder / "released")
    first, second = (folder / f"released/1.3B/stage{i}_last.ckpt" for i in (1, 2))
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    said = refused(capsys, "mindalle", source=pack(folder / "released").removeprefix("source="))
    assert said.startswith("1.3B.tar.gz/stage1_last.ckpt: the weights are not those of")
    assert said.endswith("1.3B.tar.gz/stage1_last.ckpt looks like stage 2 of format=mindalle\n")
    first.write_bytes(whole)
    rewritten(second, lambda weights: {f"module.{name}": value for name, value in weights.items()})
    pack(folder / "released")
    assert main(["convert", "format=mindalle", f"num_heads={HEADS}", "source=1.3B.tar.gz", "target=ours"]) == 0
    assert "note: 1.3B.tar.gz/stage2_last.ckpt: names are read without 'module'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("min-dalle's encoder.pt", "min-dalle's decoder.pt"),
        ("OpenAI's encoder.pkl", "OpenAI's decoder.pkl"),
        ("minDALL-E's stage 1", "minDALL-E's stage 2"),
    ],
)
def test_two_parts_in_each_others_place_are_told_apart(
    first: str, second: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even of one release: its decoder for its encoder, its second stage for its first."""
    format, family = FAMILY[second]
    write, source, encoder = FORMATS[format]
    write(folder / "released")
    place, other = (folder / "released" / FILES[what][1] for what in (first, second))
    place.write_bytes(other.read_bytes())
    said = refused(capsys, format, source=source, image_encoder=encoder)
    assert f"{place.name} looks like {family}" in said
