"""No release is written of what its files cannot say, of damaged folders and by halves; the reason is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from storydalle.commands.main import main
from storydalle.files.weights import NoRoom
from storydalle.models.pretrained import CAPTIONS_FOLDER
from storydalle.released.layouts import LayoutError
from storydalle.released.release import mega_release, mindalle_release, taming_release, write_release
from storydalle.released.torch_files import ForeignFile
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN
from tests.our_folders import DRAWN, IMAGES, our_dalle, our_mega, release, weights_of
from tests.test_image_tokenizers import tiny_dvae

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
        with pytest.raises(FileExistsError, match="exists already"):
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


def test_what_is_not_written_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    our_dalle(Path("ours"), retrofit={})
    good = ("reverse=true", "source=ours", "target=theirs", "format=mindalle")
    for change, said in (
        ("reverse=true", "no place for the retrofit: source_attention, story_encoder"),
        ("reverse=1", "reverse=1: use true or false"),
        ("source=captions", "source=captions does not exist"),
        ("target=ours", "target=ours exists already"),
        (
            "format=storydalle",
            "format=storydalle can be read but not written: its files have no place for the source attention",
        ),
        ("format=openai-dvae", "format=openai-dvae can be read but not written: its files are pickled networks"),
        ("format=rudalle", "format=rudalle is not supported: ruDALL-E is a different transformer"),
        ("dtype=float16", "dtype has no effect with reverse=true"),
        ("megabytes_a_file=10", "megabytes_a_file has no effect with reverse=true"),
        ("num_heads=2", "num_heads has no effect with reverse=true"),
    ):
        assert said in refused(capsys, *good, change)
    assert not Path("theirs").exists()
