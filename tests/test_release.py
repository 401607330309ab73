"""Folders of ours become files of a release again, and a release that was converted comes back to the last bit."""

import json
import tarfile
from functools import partial
from pathlib import Path

import pytest
import torch

from storydalle.commands.main import main
from storydalle.models.pretrained import CAPTIONS_FOLDER
from storydalle.released.conversion import Source, mega, min_dalle, write_conversion
from storydalle.released.release import mega_release, released, taming_release
from storydalle.released.tokenizer_layouts import read_vqgan
from storydalle.tokens.byte_level import ByteLevelTokenizer
from storydalle.tokens.caption_tokenizer import load_caption_tokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from tests.our_folders import assert_same, our_dalle, our_mega, release, weights_of
from tests.released_tokenizers import taming_losses, taming_weights
from tests.test_byte_level import write_files
from tests.test_conversion import HEADS, vqgan, write_mega, write_min_dalle
from tests.test_layouts import TOY

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def vocabulary(vocab: Path, merges: Path) -> tuple[dict[str, int], list[str]]:
    lines = merges.read_text().splitlines()
    return json.loads(vocab.read_text()), [line for line in lines if not line.startswith("#version")]


# ------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("max_bytes", [10**9, 20_000])
def test_a_released_mindalle_comes_back_to_the_last_bit(tmp_path: Path, max_bytes: int) -> None:
    write_min_dalle(tmp_path / "theirs")
    first, second = (tmp_path / "theirs" / "1.3B" / f"stage{n}_last.ckpt" for n in (1, 2))
    stage1 = torch.load(first, weights_only=True)["state_dict"]
    stage2 = torch.load(second, weights_only=True)["state_dict"]
    mixed = {name: value.to(DTYPES[i % len(DTYPES)]) for i, (name, value) in enumerate(stage2.items())}
    torch.save({"state_dict": mixed}, second)
    with min_dalle(tmp_path / "theirs", HEADS) as conversion:
        written = write_conversion(conversion, tmp_path / "ours", max_bytes=max_bytes)
    assert (len(written) > 1) == (max_bytes == 20_000)
    notes = release(tmp_path / "ours", tmp_path / "back")
    assert notes == [f"no file tells its reader that there are {HEADS} heads: convert back with num_heads={HEADS}"]
    for name, expected in (("stage1_last.ckpt", stage1), ("stage2_last.ckpt", mixed)):
        assert_same(torch.load(tmp_path / "back" / name, weights_only=True)["state_dict"], expected)
    words = [
        vocabulary(folder / "tokenizer" / "bpe-16k-vocab.json", folder / "tokenizer" / "bpe-16k-merges.txt")
        for folder in (tmp_path / "theirs" / "1.3B", tmp_path / "back")
    ]
    assert words[0] == words[1]


def test_a_model_of_ours_comes_back_from_mindalles_files(tmp_path: Path) -> None:
    ours = our_dalle(tmp_path / "ours")
    release(tmp_path / "ours", tmp_path / "theirs")
    with min_dalle(tmp_path / "theirs", HEADS) as conversion:
        write_conversion(conversion, tmp_path / "again")
        assert conversion.model.description() == ours.description()
    assert_same(weights_of(tmp_path / "again"), weights_of(tmp_path / "ours"))
    again = load_caption_tokenizer(tmp_path / "again" / CAPTIONS_FOLDER)
    assert again.fingerprint == ours.caption_tokenizer.fingerprint


def test_mindalles_config_says_what_its_program_asks(tmp_path: Path) -> None:
    our_dalle(tmp_path / "ours")
    release(tmp_path / "ours", tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.yaml").read_text())
    assert config["dataset"]["context_length"] == 8 and config["dataset"]["image_resolution"] == 8
    assert config["stage1"]["n_embed"] == 24 and config["stage1"]["hparams"]["attn_resolutions"] == [4]
    heads, layers = (config["stage2"]["hparams"][name] for name in ("n_heads", "n_layers"))
    assert (heads, layers) == (HEADS, 3)
    assert (
        config["stage2"]["vocab_size_txt"]
        == json.loads((tmp_path / "ours" / "config.json").read_text())["backbone"]["text_vocab_size"]
    )


@pytest.mark.parametrize("suffix", ["", "_mini"])
def test_a_released_mega_comes_back_to_the_last_bit(tmp_path: Path, suffix: str) -> None:
    files = write_mega(tmp_path / "theirs", suffix)
    with mega(tmp_path / "theirs", tmp_path / "theirs" / "last.ckpt", suffix, HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
    notes = release(tmp_path / "ours", tmp_path / "back", mega_release, suffix=suffix)
    assert "give it as image_encoder" in notes[-1]
    found = {name: torch.load(tmp_path / "back" / name, weights_only=True) for name in files}
    encoding = {
        name: value for name, value in files["last.ckpt"].items() if not name.startswith(("decoder.", "post_quant"))
    }
    assert_same(found.pop("last.ckpt")["state_dict"], encoding)
    for name, weights in found.items():
        assert_same(weights, files[name])
    names = f"vocab{suffix}.json", f"merges{suffix}.txt"
    assert vocabulary(*(tmp_path / "back" / name for name in names)) == vocabulary(
        *(tmp_path / "theirs" / name for name in names)
    )


def test_a_mega_of_ours_comes_back_from_min_dalles_files(tmp_path: Path) -> None:
    ours = our_mega(tmp_path)
    release(tmp_path / "ours", tmp_path / "theirs", mega_release)
    with mega(tmp_path / "theirs", tmp_path / "theirs" / "last.ckpt", "", HEADS) as conversion:
        write_conversion(conversion, tmp_path / "again")
        assert conversion.model.description() == ours.description()
    assert_same(weights_of(tmp_path / "again"), weights_of(tmp_path / "ours"))
    again = load_caption_tokenizer(tmp_path / "again" / CAPTIONS_FOLDER)
    assert again.fingerprint == ours.caption_tokenizer.fingerprint


def test_merges_are_whole_for_a_reader_that_drops_the_first_and_the_last_line(tmp_path: Path) -> None:
    """As min-dalle does, whatever these lines hold."""
    vocab, merges = write_files(tmp_path / "theirs")
    text = ByteLevelTokenizer.from_files(vocab, merges).to_files()[1]
    assert text.split("\n")[1:-1] == merges.read_text().split("\n")[1:-1]


@pytest.mark.parametrize("gumbel", [False, True])
def test_a_vqgan_comes_back_to_the_last_bit_both_ways(tmp_path: Path, gumbel: bool) -> None:
    weights = taming_weights((32, 32), 1, (1,), z=8, codes=24, embed=12, gumbel=gumbel)
    torch.save({"state_dict": weights | taming_losses()}, tmp_path / "last.ckpt")
    read_vqgan(tmp_path / "last.ckpt").tokenizer.save_pretrained(tmp_path / "ours")
    release(tmp_path / "ours", tmp_path / "back", taming_release)
    assert_same(torch.load(tmp_path / "back" / "last.ckpt", weights_only=True)["state_dict"], weights)
    again = read_vqgan(tmp_path / "back" / "last.ckpt").tokenizer
    assert again.config == ImageTokenizer.from_pretrained(tmp_path / "ours").config
    assert_same(again.state_dict(), weights_of(tmp_path / "ours"))


def test_turned_tensors_are_turned_back_as_they_are_read() -> None:
    """No release that is written turns one yet."""
    theirs = {"h.0.c_fc.w": torch.randn(3, 5), "h.0.q": torch.randn(3, 1), "scale": torch.tensor(2.0)}
    ours = {"blocks.0.mlp.weight": theirs["h.0.c_fc.w"].T, "blocks.0.attn.q.weight": theirs["h.0.q"].T}
    ours["scale"] = theirs["scale"]
    sources = {
        name: Source(value.dtype, tuple(value.shape), partial(ours.__getitem__, name)) for name, value in ours.items()
    }
    found = released(sources, TOY, "")
    assert {name: source.shape for name, source in found.items()} == {k: tuple(v.shape) for k, v in theirs.items()}
    assert_same({name: source.read() for name, source in found.items()}, theirs)


def test_a_lent_image_tokenizer_is_written_too(tmp_path: Path) -> None:
    ours = our_dalle(tmp_path / "lender")
    ours.save_folder(tmp_path / "borrower", tokenizer_of="../lender")
    with torch.no_grad():
        ours.model.backbone.ln_f.bias.fill_(3.0)
    ours.save_folder(tmp_path / "lender")
    for name in ("lender", "borrower"):
        release(tmp_path / name, tmp_path / f"{name} back")
    first, second = (
        [torch.load(tmp_path / f"{name} back" / f"stage{n}_last.ckpt")["state_dict"] for name in ("lender", "borrower")]
        for n in (1, 2)
    )
    assert_same(first[1], first[0])
    assert [bool(weights["ln_f.bias"].any()) for weights in second] == [True, False], "nothing else is lent"


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    our_dalle(tmp_path / "ours")
    for name in "ab":
        release(tmp_path / "ours", tmp_path / name)
    paths = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(paths) == 5
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in paths)


# ------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_folder_or_an_archive_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    our_dalle(Path("ours"))
    for target in ("1.3B", "1.3B.tar.gz"):
        assert main(["convert", "format=mindalle", "reverse=true", "source=ours", f"target=theirs/{target}"]) == 0
        assert f"convert back with num_heads={HEADS}" in capsys.readouterr().out
        again = ["format=mindalle", f"num_heads={HEADS}", f"source=theirs/{target}", f"target=again/{target}"]
        assert main(["convert", *again]) == 0
        assert_same(weights_of(Path("again") / target), weights_of(Path("ours")))
    assert sorted(path.name for path in Path("theirs").iterdir()) == ["1.3B", "1.3B.tar.gz"]
    with tarfile.open("theirs/1.3B.tar.gz") as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {
        *("1.3B/config.yaml", "1.3B/stage1_last.ckpt", "1.3B/stage2_last.ckpt"),
        *("1.3B/tokenizer/bpe-16k-vocab.json", "1.3B/tokenizer/bpe-16k-merges.txt"),
    }


@pytest.mark.parametrize(("layout", "suffix"), [("dalle-mega", ""), ("dalle-mini", "_mini")])
def test_the_command_writes_min_dalles_files(
    layout: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    our_mega(tmp_path)
    assert main(["convert", f"format={layout}", "reverse=true", "source=ours", "target=theirs"]) == 0
    encoder = "image_encoder=theirs/last.ckpt"
    again = [f"format={layout}", f"num_heads={HEADS}", "source=theirs", encoder, "target=again"]
    assert main(["convert", *again]) == 0
    assert_same(weights_of(Path("again")), weights_of(Path("ours")))
    assert Path(f"theirs/encoder{suffix}.pt").is_file() and Path(f"theirs/merges{suffix}.txt").is_file()


def test_the_command_writes_tamings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": vqgan()}, "last.ckpt")
    assert main(["convert", "format=taming-vqgan", "source=last.ckpt", "target=ours"]) == 0
    assert main(["convert", "format=taming-vqgan", "reverse=true", "source=ours", "target=theirs"]) == 0
    assert_same(torch.load("theirs/last.ckpt")["state_dict"], vqgan())
