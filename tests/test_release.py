"""Folders of ours become files of a release again: to the last bit, or the thing that has no place there is named."""

import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from storydalle.commands.main import main
from storydalle.files.weights import NoRoom, files_of
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.pretrained import CAPTIONS_FOLDER
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.released.conversion import Source, mega, min_dalle, write_conversion
from storydalle.released.layouts import LayoutError
from storydalle.released.release import mega_release, mindalle_release, released, taming_release, write_release
from storydalle.released.tokenizer_layouts import read_vqgan
from storydalle.released.torch_files import ForeignFile
from storydalle.tokens.byte_level import ByteLevelTokenizer
from storydalle.tokens.captions import CaptionTokenizer, load_caption_tokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN
from tests.released_tokenizers import taming_losses, taming_weights
from tests.test_byte_level import tiny_tokenizer, write_files
from tests.test_conversion import CAPTIONS, HEADS, vqgan, write_mega, write_min_dalle
from tests.test_image_tokenizers import tiny_dvae
from tests.test_layouts import TOY

IMAGES: dict[str, Any] = {  # the same in our words as ``vqgan()`` is in taming's
    **{"resolution": 8, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [4]},
    **{"z_channels": 8, "codebook_size": 24, "embed_dim": 12},
}
DRAWN: dict[str, Any] = {"pixel_range": (0, 1), "norm_eps": 1e-5}  # what detoker.pt means
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def weights_of(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in files_of(folder / "model.safetensors") for name, value in load_file(file).items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def vocabulary(vocab: Path, merges: Path) -> tuple[dict[str, int], list[str]]:
    lines = merges.read_text().splitlines()
    return json.loads(vocab.read_text()), [line for line in lines if not line.startswith("#version")]


def our_dalle(folder: Path, images: dict[str, Any] | None = None, **changes: Any) -> StoryDALLE:
    """A text-to-image model of ours in minDALL-E's layout, saved in half precision; ``changes`` are of its backbone."""
    torch.manual_seed(0)
    names = changes.pop("added_names", ())
    retrofitted = changes.pop("retrofit", {"source_blocks": "none", "story_depth": 0})
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=150, text_length=8, added_names=names)
    tokenizer = VQGAN(**{**IMAGES, **(images or {})})
    sizes = {"text_length": 8, "image_length": tokenizer.num_codes, "dim": 16, "depth": 3, "num_heads": HEADS}
    backbone = DALLE(captions.vocab_size, 24, **{**sizes, "codes_of": "vqgan", **changes})
    model = StoryDALLE(tokenizer, captions, retrofit(backbone, **retrofitted), {"sampling": {"top_k": 3}})
    model.save_folder(folder)
    return model


def our_mega(folder: Path, pair: Callable[[], Any] | None = None, **changes: Any) -> StoryDALLE:
    torch.manual_seed(0)
    captions = tiny_tokenizer(folder / "files", text_length=8, spare=9)
    tokenizer = PairedTokenizer(IMAGES, {**IMAGES, **DRAWN}) if pair is None else pair()
    sizes = {"text_length": 8, "image_length": 16, "dim": 16, "glu_dim": 24, "depth": 2, "num_heads": HEADS}
    settings = {"num_codes": 24, "start_code": 23, "codes_of": "paired", **sizes, **changes}
    backbone = MegaDALLE(captions.vocab_size, 24, **settings)
    model = StoryDALLE(tokenizer, captions, retrofit(backbone, "none", story_depth=0))
    model.save_folder(folder / "ours")
    return model


def release(folder: Path, target: Path, write: Any = mindalle_release, **options: Any) -> list[str]:
    with write(folder, **options) as found:
        write_release(found, target)
        return found.notes


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


# ------------------------------------------------------------------------------------- what has no place


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pad_id": 0}, r"pad_id=0 \(its files mean None\)"),
        ({"tie_codes": True}, r"tie_codes=True \(its files mean False\)"),
        ({"images": {"norm_eps": 1e-5}}, r"norm_eps=1e-05 \(its files mean 1e-06\)"),
        ({"images": {"norm_groups": 16}}, r"norm_groups=16 \(its files mean 32\)"),
        ({"images": {"pixel_range": (0, 1)}}, r"pixel_range=\[0.0, 1.0\]"),
        ({"images": {"encoder_window": 4}}, "encoder_window=4"),
        ({"images": {"quantizer": "gumbel"}}, r"our image_tokenizer\.quantize\.proj\."),
        ({"images": {"resolution": 16, "ch_mult": [1, 1], "pixel_shuffle": 2}}, "resolution=16|pixel_shuffle=2"),
        ({"added_names": ("pip", "momo")}, "names added to the vocabulary: pip, momo"),
        ({"retrofit": {}}, r"the retrofit: source_attention, story_encoder \(\d+ tensors\)"),
        ({"retrofit": {"source_blocks": "none", "story_depth": 0, "num_prompt_tokens": 2}}, "retrofit: prompt_tokens"),
    ],
)
def test_what_mindalles_files_cannot_say_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    our_dalle(tmp_path / "ours", **changes)
    with pytest.raises(LayoutError, match=f"the layout mindalle.* has no place for .*({said})"):
        release(tmp_path / "ours", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pad_id": 2}, r"pad_id=2 \(its files mean 1\)"),
        ({"start_code": 3}, r"start_code=3 \(its files mean 23\)"),
        ({"pair": lambda: PairedTokenizer(IMAGES, IMAGES)}, r"pixel_range=\[-1.0, 1.0\] \(its files mean \[0.0, 1.0\]"),
        (
            {"pair": lambda: PairedTokenizer({**IMAGES, "norm_eps": 1e-5}, {**IMAGES, **DRAWN})},
            "norm_eps=1e-05",
        ),
        ({"pair": lambda: VQGAN(**IMAGES), "codes_of": None}, "an image tokenizer of kind vqgan: its own is paired"),
    ],
)
def test_what_min_dalles_files_cannot_say_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    our_mega(tmp_path, **changes)
    with pytest.raises(LayoutError, match=f"the layout dalle-mega has no place for .*{said}"):
        release(tmp_path / "ours", tmp_path / "theirs", mega_release)


def test_a_caption_tokenizer_that_is_no_plain_bpe_is_refused(tmp_path: Path) -> None:
    our_dalle(tmp_path / "ours")
    path = tmp_path / "ours" / CAPTIONS_FOLDER / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = None  # captions keep their capitals
    path.write_text(json.dumps(content))
    with pytest.raises(LayoutError, match="no place for all of the caption tokenizer"):
        release(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (tiny_dvae, "an image tokenizer of kind dvae"),
        (lambda: VQGAN(**IMAGES), r"resolution=8 \(its files mean 256\)"),
        (lambda: VQGAN(**{**IMAGES, "resolution": 256, "norm_groups": 8}), "norm_groups=8"),
    ],
)
def test_what_tamings_file_cannot_say_is_named(tmp_path: Path, make: Callable[[], ImageTokenizer], said: str) -> None:
    make().save_pretrained(tmp_path / "ours")
    with pytest.raises(LayoutError, match=f"the layout taming-vqgan has no place for .*{said}"):
        release(tmp_path / "ours", tmp_path / "theirs", taming_release)


def test_models_of_one_layout_are_not_those_of_another(tmp_path: Path) -> None:
    our_dalle(tmp_path / "dalle")
    our_mega(tmp_path)
    with pytest.raises(LayoutError, match="mindalle has no place for a backbone of kind mega: its own is dalle"):
        release(tmp_path / "ours", tmp_path / "x")
    with pytest.raises(LayoutError, match="dalle-mega has no place for a backbone of kind dalle: its own is mega"):
        release(tmp_path / "dalle", tmp_path / "x", mega_release)
    with pytest.raises(ForeignFile, match="dalle is no folder of ours for this format"):
        release(tmp_path / "dalle", tmp_path / "x", taming_release)


# ------------------------------------------------------------------------------------- damaged, interrupted


def changed_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    from safetensors.torch import save_file

    weights = weights_of(folder)
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("model.backbone.ln_f.bias"), r"missing: model\.backbone\.ln_f\.bias$"),
        (lambda weights: weights.update(other=torch.zeros(1)), "unknown: other$"),
        (
            lambda weights: weights.update({"model.backbone.ln_f.bias": torch.zeros(3)}),
            r"model\.backbone\.ln_f\.bias has the shape \(3,\) where \(16,\) belongs",
        ),
    ],
)
def test_a_folder_whose_weights_are_not_its_configs_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    our_dalle(tmp_path / "ours")
    changed_weights(tmp_path / "ours", change)
    with pytest.raises(LayoutError, match=said):
        release(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "captions/tokenizer.json"])
def test_a_damaged_or_missing_file_of_ours_is_named(tmp_path: Path, name: str) -> None:
    our_dalle(tmp_path / "ours")
    content = (tmp_path / "ours" / name).read_bytes()
    (tmp_path / "ours" / name).write_bytes(content[: len(content) // 2])
    for _ in range(2):
        with pytest.raises(ForeignFile, match=name):
            release(tmp_path / "ours", tmp_path / "theirs")
        (tmp_path / "ours" / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["theirs", "theirs.tar.gz"])
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    our_dalle(tmp_path / "ours")
    before = set(tmp_path.iterdir())
    told: list[int] = []

    def stop(num_bytes: int) -> None:
        told.append(num_bytes)
        if len(told) == 60:
            raise KeyboardInterrupt

    with mindalle_release(tmp_path / "ours") as found:
        with pytest.raises(KeyboardInterrupt):
            write_release(found, tmp_path / name, stop)
        assert set(tmp_path.iterdir()) == before
        (tmp_path / name).mkdir()
        with pytest.raises(FileExistsError, match="in use"):
            write_release(found, tmp_path / name)


def test_every_byte_is_told_and_the_disk_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    our_dalle(tmp_path / "ours")
    told: list[int] = []
    with mindalle_release(tmp_path / "ours") as found:
        write_release(found, tmp_path / "theirs", told.append)
        num_bytes = sum(value.nbytes for value in weights_of(tmp_path / "ours").values())
        assert sum(told) == num_bytes

        def disk(free: float) -> None:
            monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": int(free)}))

        disk(1.02 * num_bytes + 2**20)
        write_release(found, tmp_path / "more")
        with pytest.raises(NoRoom, match=r"more\.tar\.gz needs"):
            write_release(found, tmp_path / "more.tar.gz")
        disk(num_bytes)
        with pytest.raises(NoRoom, match=r"target=.*again needs .* GB and .* GB free"):
            write_release(found, tmp_path / "again")
    assert not (tmp_path / "again").exists()


# ------------------------------------------------------------------------------------- the command


def refused(capsys: pytest.CaptureFixture[str], *settings: str) -> str:
    assert main(["convert", *settings]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1, said
    return said


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


def test_what_is_not_written_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    our_dalle(Path("ours"), retrofit={})
    good = ("reverse=true", "source=ours", "target=theirs", "format=mindalle")
    for change, said in (
        ("reverse=true", "no place for the retrofit: source_attention, story_encoder"),
        ("reverse=1", "reverse=1: use true or false"),
        ("source=captions", "source=captions is not there"),
        ("target=ours", "target=ours is in use"),
        (
            "format=storydalle",
            "format=storydalle is read and not written: its files have no place for the source attention",
        ),
        ("format=openai-dvae", "format=openai-dvae is read and not written: its files are pickled networks"),
        ("format=rudalle", "format=rudalle is not read: ruDALL-E is another transformer"),
        ("dtype=float16", "dtype has no effect with reverse=true"),
        ("megabytes_a_file=10", "megabytes_a_file has no effect with reverse=true"),
        ("num_heads=2", "num_heads has no effect with reverse=true"),
    ):
        assert said in refused(capsys, *good, change)
    assert not Path("theirs").exists()
