"""convert: from the files as their authors share them to a story, and what is refused, in one line each."""

import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from storydalle.commands.main import main
from storydalle.files import outputs
from storydalle.files.weights import files_of
from storydalle.tokens.image_tokenizer import ImageTokenizer
from tests.released_tokenizers import (
    Taming,
    flava_name,
    openai_network,
    openai_weights,
    pictures,
    taming_losses,
    taming_weights,
)
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
    weights = {
        name: value for file in files_of(Path("ours/model.safetensors")) for name, value in load_file(file).items()
    }
    assert {value.dtype for name, value in weights.items() if name.startswith("model.backbone.")} == {torch.float16}
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
        ("source=gone.ckpt", "gone.ckpt does not exist"),
        ("target=used", "target=used exists already"),
        ("dtype=int8", "dtype=int8 is none of"),
        ("megabytes_a_file=0", "megabytes_a_file"),
        ("format=dalle-mega", "format=dalle-mega needs image_encoder=FILE"),
    ):
        assert said in refused(capsys, *good, change)
    content = Path("last.ckpt").read_bytes()
    Path("last.ckpt").write_bytes(content[: len(content) // 2])
    assert "truncated" in refused(capsys, *good)
    assert not Path("new").exists() and not list(Path("used").iterdir())


# ------------------------------------------------------------------------------------------- every place of a pickle


def write_vqgan(folder: Path) -> None:
    folder.mkdir()
    torch.save({"state_dict": vqgan()}, folder / "last.ckpt")


def write_dvae(folder: Path) -> None:
    folder.mkdir()
    for side in ("encoder", "decoder"):
        torch.save(openai_weights(side), folder / f"{side}.pkl")


MEGA = ("format=dalle-mega", "source=released", "image_encoder=released/last.ckpt")
# Of every format its files, those of them that are pickles, and how it is asked for.
FORMATS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...], tuple[str, ...]]] = {
    "mindalle": (
        write_min_dalle,
        ("1.3B/stage1_last.ckpt", "1.3B/stage2_last.ckpt"),
        ("format=mindalle", "source=released"),
    ),
    "storydalle": (write_story_dalle, ("49.pth",), ("format=storydalle", "source=released/49.pth")),
    "dalle-mega": (write_mega, ("encoder.pt", "decoder.pt", "detoker.pt", "last.ckpt"), MEGA),
    "taming-vqgan": (write_vqgan, ("last.ckpt",), ("format=taming-vqgan", "source=released/last.ckpt")),
    "openai-dvae": (write_dvae, ("encoder.pkl", "decoder.pkl"), ("format=openai-dvae", "source=released")),
}
PICKLES = [(name, file) for name, (_, files, _) in FORMATS.items() for file in files]
every_pickle = pytest.mark.parametrize(("name", "file"), PICKLES)
every_kind = pytest.mark.parametrize("is_zip", [True, False])


class Malicious:
    """Unpickled, it creates a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch it_ran",)


def pack(folder: Path) -> str:
    with tarfile.open("1.3B.tar.gz", "w:gz") as tar:
        tar.add(folder / "1.3B", "1.3B")
    return "source=1.3B.tar.gz"


def assert_malice_is_refused(capsys: pytest.CaptureFixture[str], path: Path, is_zip: bool, *settings: str) -> None:
    """Beside its true weights the file asks for a function, which torch calls and ``convert`` names."""
    content = torch.load(path, weights_only=True)
    content["extra"] = Malicious()
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    torch.load(path, weights_only=False)
    Path("it_ran").unlink()
    if "1.3B.tar.gz" in settings[-1]:
        pack(Path("released"))
    said = refused(capsys, *settings, "target=ours")
    assert f"{path.name} is refused: it asks for {os.system.__module__}.system" in said
    assert not Path("it_ran").exists() and not Path("ours").exists()


@every_pickle
@every_kind
def test_no_pickle_runs(name: str, file: str, is_zip: bool, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, _, settings = FORMATS[name]
    write(folder / "released")
    assert_malice_is_refused(capsys, folder / "released" / file, is_zip, *settings)


@pytest.mark.parametrize("file", FORMATS["mindalle"][1])
def test_no_pickle_in_an_archive_runs(file: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_min_dalle(folder / "released")
    assert_malice_is_refused(capsys, folder / "released" / file, True, "format=mindalle", "source=1.3B.tar.gz")
    assert sorted(path.name for path in folder.iterdir()) == ["1.3B.tar.gz", "released"], "nothing unpacked is left"


@every_pickle
@every_kind
def test_truncated_files_are_named(
    name: str, file: str, is_zip: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, _, settings = FORMATS[name]
    write(folder / "released")
    path = folder / "released" / file
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])
    assert f"{path.name} is truncated or damaged" in refused(capsys, *settings, "target=ours")
    assert not Path("ours").exists()


@every_pickle
def test_the_file_of_another_family_is_told_which_it_is(
    name: str, file: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every place: the weights of some other format, under the key that is looked for, and under none."""
    write, _, settings = FORMATS[name]
    write(folder / "released")
    path = folder / "released" / file
    other, seems = (
        (vqgan(), "format=taming-vqgan")
        if name in ("openai-dvae", "dalle-mega") and file != "last.ckpt"
        else (openai_weights("encoder"), "a part of format=openai-dvae")
    )
    for content in ({"state_dict": other, "model_state_dict": other}, other):
        torch.save(content, path)
        said = refused(capsys, *settings, "target=ours")
        assert f"{path.name} looks like {seems}" in said and not Path("ours").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", FORMATS)
def test_files_of_other_precisions_are_converted(name: str, dtype: torch.dtype, folder: Path) -> None:
    write, files, settings = FORMATS[name]
    write(folder / "released")
    for file in files:
        content = torch.load(folder / "released" / file, weights_only=True)
        place = next((content[key] for key in ("state_dict", "model_state_dict") if key in content), content)
        place.update({key: value.to(dtype) for key, value in place.items()})
        torch.save(content, folder / "released" / file)
    assert convert(*settings, "target=ours") == 0
    kept = {value.dtype for file in files_of(Path("ours/model.safetensors")) for value in load_file(file).values()}
    if name in ("taming-vqgan", "openai-dvae"):
        assert kept == {torch.float32}, "image tokenizers on their own are kept in single precision"
    else:  # a fresh source attention is in single precision
        assert dtype in kept and kept <= {dtype, torch.float32}


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("mindalle", "1.3B/tokenizer/bpe-16k-vocab.json", "holds no bpe-16k-vocab.json"),
        ("mindalle", "1.3B/tokenizer/bpe-16k-merges.txt", "holds no bpe-16k-merges.txt"),
        ("storydalle", "vocab.json", "holds no vocab.json"),
        ("storydalle", "merges.txt", "holds no merges.txt"),
        ("dalle-mega", "vocab.json", "holds no vocab.json"),
        ("dalle-mega", "merges.txt", "holds no merges.txt"),
        ("openai-dvae", "decoder.pkl", "decoder.pkl is missing"),
    ],
)
def test_a_missing_file_is_named(
    name: str, file: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, _, settings = FORMATS[name]
    write(folder / "released")
    (folder / "released" / file).unlink()
    assert said in refused(capsys, *settings, "target=ours")
    if name == "mindalle":
        assert said in refused(capsys, "format=mindalle", pack(folder / "released"), "target=ours")


@pytest.mark.parametrize("name", ["mindalle", "storydalle", "dalle-mega"])
def test_a_damaged_vocabulary_is_one_line(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, _, settings = FORMATS[name]
    write(folder / "released")
    vocab = next((folder / "released").rglob("*vocab.json"))
    vocab.write_bytes(vocab.read_bytes()[:40])
    assert vocab.name in refused(capsys, *settings, "target=ours")


def test_keys_too_many_or_too_few_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vqgan(folder / "released")
    weights = {key: value for key, value in vqgan().items() if not key.startswith("encoder.mid.block_1.")}
    torch.save({"state_dict": weights | {f"more.{i}": torch.zeros(1) for i in range(5)}}, "released/last.ckpt")
    said = refused(capsys, *FORMATS["taming-vqgan"][2], "target=ours")
    assert re.search(r"missing: (encoder\.mid\.block_1\.\S+, ){2}encoder\.mid\.block_1\.\S+ and 5 more", said)
    assert "unknown: more.0, more.1, more.2 and 2 more" in said


def test_archives_that_lead_out_grow_or_end_early_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_min_dalle(folder / "released")
    settings = ("format=mindalle", pack(folder / "released"), "target=ours")
    archive = folder / "1.3B.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "1.3B.tar.gz is truncated" in refused(capsys, *settings)
    for kind, said in (("link", "stage1_last.ckpt as a link"), ("bomb", "claims to hold")):
        with tarfile.open(archive, "w:gz") as tar:
            member = tarfile.TarInfo("../stage1_last.ckpt")
            if kind == "link":
                member.type, member.linkname = tarfile.SYMTYPE, str(folder / "released/1.3B/stage1_last.ckpt")
            else:
                member.size = 20_000_000
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        assert said in refused(capsys, *settings)
    assert sorted(path.name for path in folder.iterdir()) == ["1.3B.tar.gz", "released"]


def test_a_full_disk_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vqgan(folder / "released")
    write_min_dalle(folder / "mindalle")
    archive = pack(folder / "mindalle")
    before = set(folder.iterdir())
    monkeypatch.setattr(outputs, "check_space", lambda folder, megabytes: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    for settings, said in (
        (FORMATS["taming-vqgan"][2], "target=ours needs 0.0 GB"),
        (("format=mindalle", "source=mindalle"), "target=ours needs 0.0 GB"),
        (("format=mindalle", archive), "has no space"),
    ):
        assert said in refused(capsys, *settings, "target=ours")
    assert set(folder.iterdir()) == before


def test_an_image_tokenizer_appears_when_it_is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vqgan(folder / "released")

    def stop(self: ImageTokenizer, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageTokenizer, "save_pretrained", stop)
    assert convert(*FORMATS["taming-vqgan"][2], "target=ours") == 130
    assert [path.name for path in folder.iterdir()] == ["released"]


# ------------------------------------------------------------------------------------------------ variants


def test_a_gumbel_vqgan_is_converted(folder: Path) -> None:
    weights = taming_weights((32, 32), 1, (), z=8, codes=24, embed=12, gumbel=True)
    torch.save({"state_dict": weights | taming_losses()}, "last.ckpt")
    assert convert("format=taming-vqgan", "source=last.ckpt", "target=ours") == 0
    tokenizer = ImageTokenizer.from_pretrained("ours")
    assert tokenizer.config["quantizer"] == "gumbel"
    images = pictures(1, 256)
    assert torch.equal(tokenizer.encode(images), Taming(weights, groups=32).codes(images))


@pytest.mark.parametrize("place", ["model.safetensors", "pytorch_model.bin", "flava.bin"])
def test_flavas_codebook_takes_the_place_of_openais_encoder(
    place: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dvae(folder / "released")
    assert convert(*FORMATS["openai-dvae"][2], "target=openai") == 0
    (folder / "released/encoder.pkl").unlink()
    flava = {flava_name(key): value for key, value in openai_weights("encoder").items()}
    Path("flava").mkdir()
    missing = refused(capsys, *FORMATS["openai-dvae"][2], "image_encoder=flava", "target=ours")
    assert "image_encoder=flava holds neither model.safetensors nor pytorch_model.bin" in missing
    save: Callable[..., None] = save_file if place.endswith("safetensors") else torch.save
    save(flava, Path("flava") / place)
    given = "flava/flava.bin" if place == "flava.bin" else "flava"
    assert convert(*FORMATS["openai-dvae"][2], f"image_encoder={given}", "target=ours") == 0
    for name in ("config.json", "model.safetensors"):
        assert Path("ours", name).read_bytes() == Path("openai", name).read_bytes()


def test_what_rudalle_has_and_this_has_not_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "format=rudalle", "source=pytorch_model_v3.bin", "target=ours")
    for part in (
        "format=rudalle is not supported",
        "before_first_addition_layernorm",
        "row and a column",
        "sparse masks",
    ):
        assert part in said


def test_an_encoder_is_given_where_one_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vqgan(folder / "released")
    said = refused(capsys, *FORMATS["taming-vqgan"][2], "image_encoder=x", "target=ours")
    assert "format=taming-vqgan has its own encoder: leave image_encoder out" in said
