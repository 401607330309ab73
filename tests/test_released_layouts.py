"""Layouts that the released programs themselves write, in all their variants: accepted, or refused with the reason."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from storydalle.commands.main import main
from storydalle.released import conversion
from storydalle.released.conversion import Conversion, mega, min_dalle, released_story_dalle
from storydalle.released.layouts import LayoutError
from storydalle.released.stored_weights import stored_weights
from storydalle.released.tokenizer_layouts import OpenedTokenizer, read_dvae, read_vqgan
from storydalle.released.torch_files import open_torch_file
from tests.released_models import FULL_MEGA
from tests.released_tokenizers import TINY, Weights, flava_name, taming_weights
from tests.test_conversion import HEADS, write_mega, write_min_dalle, write_story_dalle
from tests.test_layout_properties import write_dvae
from tests.test_torch_files import FORMATS, Calls, save

GROUPS = {"norm_groups": 4}  # of the tiny VQGAN; the released ones have 32


def content(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def rewritten(path: Path, change: Callable[[Weights], Weights], key: str | None = "state_dict") -> None:
    """The weights of a file as ``change`` gives them."""
    tree = content(path)
    torch.save(change(tree) if key is None else {**tree, key: change(tree[key])}, path)


def wrapped(weights: Weights) -> Weights:
    return {f"module.{name}": value for name, value in weights.items()}


def tensors_of(found: Conversion) -> dict[str, torch.Tensor]:
    return {name: source.read() for name, source in found.tensors.items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


# ------------------------------------------------------------------------------------------------ StoryDALL-E


@pytest.mark.parametrize("place", ["state_dict", "model_state_dict", None])
@pytest.mark.parametrize("words", ["", "bpe-16k-"])
def test_a_storydalle_is_read_under_every_key_and_beside_every_name_that_its_program_knows(
    place: str | None, words: str, tmp_path: Path
) -> None:
    weights = write_story_dalle(tmp_path)
    torch.save(weights if place is None else {place: weights, "epoch": 3}, tmp_path / "49.pth")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).rename(tmp_path / f"{words}{name}")
    with released_story_dalle(tmp_path / "49.pth", HEADS) as found:
        ours = tensors_of(found)
    assert torch.equal(ours["model.backbone.ln_f.weight"], weights["stage2.ln_f.weight"])


def test_a_vocabulary_goes_with_the_merges_of_its_own_name(tmp_path: Path) -> None:
    write_story_dalle(tmp_path)
    (tmp_path / "merges.txt").rename(tmp_path / "bpe-16k-merges.txt")
    told = pytest.raises(LayoutError, match=r"holds no merges\.txt")
    with told, released_story_dalle(tmp_path / "49.pth", HEADS):
        pass
    (tmp_path / "bpe-16k-merges.txt").rename(tmp_path / "merges.txt")
    (tmp_path / "bpe-16k-merges.txt").write_text("#version: 0.2\nx y\n")  # of another model, as all below
    (tmp_path / "bpe-16k-vocab.json").write_text("{}")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "vocab.json").write_text("{}")
    with released_story_dalle(tmp_path / "49.pth", HEADS) as found:
        assert found.model.caption_tokenizer.vocab_size > 100
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).replace(tmp_path / f"bpe-16k-{name}")
    with released_story_dalle(tmp_path / "49.pth", HEADS) as found:
        assert found.model.caption_tokenizer.vocab_size > 100, "what lies beside goes before what lies below"


# ------------------------------------------------------------------------------------------------ minDALL-E


def plain_words(folder: Path) -> None:
    """Rename the vocabulary to what StoryDALL-E's copy of the program reads where there is no bpe-16k."""
    for name in ("vocab.json", "merges.txt"):
        path = next(folder.rglob(f"bpe-16k-{name}"))
        path.rename(path.with_name(name))


@pytest.mark.parametrize("is_packed", [False, True])
def test_mindalles_vocabulary_is_read_under_its_shorter_name(
    is_packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_min_dalle(tmp_path / "released")
    plain_words(tmp_path / "released")
    source = "released"
    if is_packed:
        with tarfile.open(source := "1.3B.tar.gz", "w:gz") as tar:
            tar.add("released/1.3B", "1.3B")
    asked = ("format=mindalle", f"source={source}", "target=ours", f"num_heads={HEADS}")
    assert main(["convert", *asked]) == 0


def test_persistent_masks_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    stage2 = write_min_dalle(tmp_path)
    path = next(tmp_path.rglob("stage2_last.ckpt"))
    masks = {f"blocks.{i}.attn.mask": torch.ones(1, 1, 24, 24).tril() for i in range(3)}
    rewritten(path, lambda weights: weights | masks)
    with min_dalle(tmp_path, HEADS) as found:
        assert torch.equal(found.tensors["model.backbone.ln_f.bias"].read(), stage2["ln_f.bias"])
        (note,) = found.notes
    assert "stage2_last.ckpt: left out 3 tensors, causal masks" in note and "blocks.0.attn.mask" in note
    write_story_dalle(tmp_path / "story")
    more = {f"stage2.{name}": mask for name, mask in masks.items()} | {"story_block.attn.mask": torch.ones(4, 4)}
    rewritten(tmp_path / "story" / "49.pth", lambda weights: weights | more, "model_state_dict")
    with released_story_dalle(tmp_path / "story" / "49.pth", HEADS) as found:
        assert "left out 4 tensors, causal masks" in found.notes[0]


# ------------------------------------------------------------------------------------------------ min-dalle


@pytest.mark.parametrize("is_root", [True, False])
@pytest.mark.parametrize("suffix", ["", "_mini"])
def test_min_dalles_own_cache_is_read(suffix: str, is_root: bool, tmp_path: Path) -> None:
    """It keeps each model in a folder of its own, without a suffix, and the detokenizer beside them."""
    homes = {"": "dalle_bart_mega", "_mini": "dalle_bart_mini"}
    for name, home in homes.items():
        files = write_mega(tmp_path / home)
        if name != suffix:
            (tmp_path / home / "encoder.pt").write_bytes(b"not this one")
        (tmp_path / "vqgan").mkdir(exist_ok=True)
        (tmp_path / home / "detoker.pt").replace(tmp_path / "vqgan" / "detoker.pt")
        (tmp_path / home / "last.ckpt").replace(tmp_path / "last.ckpt")
    source = tmp_path if is_root else tmp_path / homes[suffix]
    with mega(source, tmp_path / "last.ckpt", suffix, HEADS) as found:
        norm = found.tensors["model.backbone.encoder.final_ln.weight"].read()
        assert found.model.card["converted"]["format"] == f"dalle-{'mini' if suffix else 'mega'}"
    assert torch.equal(norm, files["encoder.pt"]["final_ln.weight"])


@pytest.mark.parametrize(("suffix", "other"), [("", "dalle-mini"), ("_mini", "dalle-mega")])
def test_each_of_min_dalles_models_is_told_from_the_other_by_its_width(
    suffix: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conversion.WIDTHS[FULL_MEGA.dim] == "dalle-mega" and conversion.WIDTHS[1024] == "dalle-mini"
    write_mega(tmp_path)
    monkeypatch.setitem(conversion.WIDTHS, 16, other)
    told = pytest.raises(LayoutError, match=rf"encoder\.pt: it is as wide as the model of format={other}")
    with told, mega(tmp_path, tmp_path / "last.ckpt", suffix, HEADS):
        pass


def test_counters_among_megas_weights_are_left_out(tmp_path: Path) -> None:
    write_mega(tmp_path)
    counters = {"token_indices": torch.arange(16), "layers.0.token_indices": torch.arange(16)}
    for name, number in (("encoder", 1), ("decoder", 2)):
        chosen = dict(list(counters.items())[:number])
        rewritten(tmp_path / f"{name}.pt", lambda weights, chosen=chosen: weights | chosen, None)
    with mega(tmp_path, tmp_path / "last.ckpt", "", HEADS) as found:
        said = "; ".join(found.notes)
    assert "encoder.pt: left out 1 tensor, numbers counted from 0: token_indices" in said
    assert "decoder.pt: left out 2 tensors, numbers counted from 0: token_indices, layers.0.token_indices" in said


# ------------------------------------------------------------------------------------------------ taming


def opened(tmp_path: Path, more: Weights, gumbel: bool = False) -> OpenedTokenizer:
    weights = taming_weights(**TINY, gumbel=gumbel)
    torch.save({"state_dict": weights | more}, tmp_path / "last.ckpt")
    found = read_vqgan(tmp_path / "last.ckpt", 16, **GROUPS)
    torch.save({"state_dict": weights}, tmp_path / "plain.ckpt")
    assert_same(found.tokenizer.state_dict(), read_vqgan(tmp_path / "plain.ckpt", 16, **GROUPS).tokenizer.state_dict())
    return found


EXTRA: dict[str, tuple[Weights, str]] = {
    "running means of the codebook": (
        {"quantize.embedding.cluster_size": torch.ones(20), "quantize.embedding.embed_avg": torch.ones(20, 6)},
        "left out 2 tensors, statistics of the codebook's running means: quantize.embedding.cluster_size",
    ),
    "running means of the weights": (
        {"model_ema.decay": torch.tensor(0.99), "model_ema.encoderconv_inweight": torch.zeros(8, 3, 3, 3)},
        "running means of the weights, of which the weights themselves are taken: model_ema.decay",
    ),
    "codes that are used": ({"quantize.used": torch.arange(4)}, "left out 1 tensor, by which its program numbers"),
    "colours": ({"colorize": torch.zeros(3, 10, 1, 1)}, "left out 1 tensor, colours of the training's logs: colorize"),
}


@pytest.mark.parametrize("what", EXTRA)
def test_what_tamings_trainings_leave_in_a_checkpoint_is_left_out_with_its_reason(what: str, tmp_path: Path) -> None:
    more, said = EXTRA[what]
    (note,) = opened(tmp_path, more).notes
    assert said in note and note.startswith(str(tmp_path / "last.ckpt"))


def test_a_gumbel_vqgan_that_chooses_among_a_part_of_its_codes_is_refused_with_the_reason(tmp_path: Path) -> None:
    assert opened(tmp_path, EXTRA["running means of the weights"][0], gumbel=True).notes
    with pytest.raises(LayoutError, match=r"last\.ckpt: quantize\.used: its encoder chooses among a part"):
        opened(tmp_path, EXTRA["codes that are used"][0], gumbel=True)


def test_a_vqgan_of_segmentation_maps_is_refused_with_the_reason(tmp_path: Path) -> None:
    weights = taming_weights(**TINY)
    for name, axis in (("encoder.conv_in.weight", 1), ("decoder.conv_out.weight", 0), ("decoder.conv_out.bias", 0)):
        weights[name] = torch.cat([weights[name]] * 4, axis)[(slice(None),) * axis + (slice(10),)]
    torch.save({"state_dict": weights | {"colorize": torch.zeros(3, 10, 1, 1)}}, tmp_path / "last.ckpt")
    with pytest.raises(LayoutError, match=r"last\.ckpt: its pictures have 10 channels and not 3"):
        read_vqgan(tmp_path / "last.ckpt", 16, **GROUPS)


# ------------------------------------------------------------------------------------------------ all of them


def read_openai(folder: Path) -> list[str]:
    return read_dvae(folder / "encoder.pkl", folder / "decoder.pkl", 32).notes


def notes_of(opening: Any) -> list[str]:
    with opening as found:
        tensors_of(found)
        return found.notes


# Of every file that is read: what writes it, where it is, under which key, and what reads it.
FILES: dict[str, tuple[Callable[[Path], Any], str, str | None, Callable[[Path], list[str]]]] = {
    **{
        f"minDALL-E's stage {i}": (
            write_min_dalle,
            f"1.3B/stage{i}_last.ckpt",
            "state_dict",
            lambda folder: notes_of(min_dalle(folder, HEADS)),
        )
        for i in (1, 2)
    },
    "StoryDALL-E": (
        write_story_dalle,
        "49.pth",
        "model_state_dict",
        lambda folder: notes_of(released_story_dalle(folder / "49.pth", HEADS)),
    ),
    **{
        f"min-dalle's {name}": (
            write_mega,
            name,
            "state_dict" if name == "last.ckpt" else None,
            lambda folder: notes_of(mega(folder, folder / "last.ckpt", "", HEADS)),
        )
        for name in ("encoder.pt", "decoder.pt", "detoker.pt", "last.ckpt")
    },
    **{f"OpenAI's {name}": (write_dvae, name, None, read_openai) for name in ("encoder.pkl", "decoder.pkl")},
    "FLAVA": (lambda folder: write_dvae(folder, flava_name), "encoder.pkl", None, read_openai),
    "taming's VQGAN": (
        lambda folder: torch.save({"state_dict": taming_weights(**TINY)}, folder / "last.ckpt"),
        "last.ckpt",
        "state_dict",
        lambda folder: read_vqgan(folder / "last.ckpt", 16, **GROUPS).notes,
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_the_level_that_parallel_trainings_add_to_names_is_taken_off_and_that_is_said(
    what: str, tmp_path: Path
) -> None:
    write, name, key, read = FILES[what]
    write(tmp_path)
    rewritten(tmp_path / name, wrapped, key)
    assert f"{tmp_path / name}: names are read without 'module'" in "; ".join(read(tmp_path))
    if key is not None:  # and where the file is the dictionary itself
        torch.save(content(tmp_path / name)[key], tmp_path / name)
        assert "names are read without 'module'" in "; ".join(read(tmp_path))


def test_a_level_inside_of_names_is_taken_off_and_two_names_never_become_one(tmp_path: Path) -> None:
    torch.save({"stage2.module.a": torch.ones(1), "stage1.b": torch.ones(2)}, tmp_path / "x.pt")
    with stored_weights(tmp_path / "x.pt") as stored:
        assert list(stored.shapes) == ["stage2.a", "stage1.b"] and stored.read("stage2.a").tolist() == [1.0]
    torch.save({"module.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path / "y.pt")
    with stored_weights(tmp_path / "y.pt") as stored:
        assert list(stored.shapes) == ["module.a", "a"] and not stored.is_wrapped


@pytest.mark.parametrize("kind", FORMATS)
def test_a_lightning_checkpoint_with_an_omegaconf_list_is_read_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    config = OmegaConf.create({"ch_mult": [1, 1, 2], "name": "f16", "rate": 0.5, "is": True, "none": None})
    for held in (config, config.ch_mult, {"args": [config, 2**40]}):
        tree = {"state_dict": {"a": torch.ones(2)}, "hyper_parameters": held}
        with open_torch_file(save(tree, tmp_path / "last.ckpt", kind)) as file:
            assert file.read(file.content["state_dict"]["a"]).tolist() == [1.0, 1.0]
    counted = {"a": torch.ones(2), "long": Calls(int, "7")}
    with open_torch_file(save(counted, tmp_path / "x.ckpt", kind)) as file:
        assert file.content["long"] != 7, "a placeholder stands for what int would make"
