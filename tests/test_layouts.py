"""Files of released image tokenizers: what they hold is converted to the last bit, or the wrong key is named."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from storydalle.released.layouts import Layout, LayoutError, Row, count
from storydalle.released.stored_weights import stored_weights
from storydalle.released.tokenizer_layouts import (
    DETOKER,
    FLAVA_ENCODER,
    OPENAI_DECODER,
    OPENAI_ENCODER,
    TAMING_GUMBEL_VQGAN,
    TAMING_VQGAN,
    OpenedTokenizer,
    dvae_config,
    read_dvae,
    read_paired,
    read_vqgan,
    vqgan_config,
)
from storydalle.released.torch_files import ForeignFile
from storydalle.tokens.dvae import DVAE
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN
from tests.released_tokenizers import (
    TINY,
    TINY_VQGAN,
    Taming,
    Weights,
    detoker_weights,
    flava_name,
    openai_codes,
    openai_network,
    openai_pixels,
    openai_weights,
    pictures,
    taming_losses,
    taming_weights,
)

UNTOLD = {"norm_groups": 4}  # the released models have 32


def save_lightning(weights: Weights, path: Path) -> Path:
    torch.save({"epoch": 3, "global_step": 9, "state_dict": weights}, path)
    return path


def save_bare(weights: Weights, path: Path) -> Path:
    torch.save(weights, path)
    return path


def beginning(weights: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key.startswith(names)}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


# ------------------------------------------------------------------------------------------------ whole files


@pytest.mark.parametrize("gumbel", [False, True])
def test_a_checkpoint_of_taming_becomes_its_vqgan(tmp_path: Path, gumbel: bool) -> None:
    weights = taming_weights(**TINY, gumbel=gumbel)
    path = save_lightning(weights | taming_losses(), tmp_path / "last.ckpt")
    tokenizer, dropped, _ = read_vqgan(path, resolution=16, **UNTOLD)
    assert set(dropped) == set(taming_losses())
    expected = VQGAN(**TINY_VQGAN, quantizer="gumbel" if gumbel else "nearest").config
    assert tokenizer.config == expected
    taming = Taming(weights)
    codes = tokenizer.encode(pictures(3, 16))
    assert torch.equal(codes, taming.codes(pictures(3, 16)))
    torch.testing.assert_close(tokenizer.decode(codes), taming.pixels(codes).clamp(-1, 1), atol=5e-5, rtol=0)
    layout = TAMING_GUMBEL_VQGAN if gumbel else TAMING_VQGAN
    assert_equal(layout.ours_to_theirs(tokenizer.state_dict()), weights)
    assert not tokenizer.training


def test_what_a_file_does_not_tell_can_be_told(tmp_path: Path) -> None:
    path = save_lightning(taming_weights(**TINY), tmp_path / "last.ckpt")
    tokenizer = read_vqgan(path, 16, **UNTOLD, norm_eps=1e-5, pixel_range=(0.0, 1.0)).tokenizer
    assert tokenizer.config["norm_eps"] == 1e-5 and tokenizer.config["pixel_range"] == [0.0, 1.0]


def openai_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Weights, Weights]:
    """Both files as they were released, whole pickled networks, and their weights."""
    weights = {"encoder": openai_weights("encoder"), "decoder": openai_weights("decoder", seed=1)}
    for side in weights:
        torch.save(openai_network(weights[side], side, monkeypatch), folder / f"{side}.pkl")
        for module in ("dall_e", "dall_e.utils", f"dall_e.{side}"):
            monkeypatch.delitem(sys.modules, module)  # reading must not need them
    return folder / "encoder.pkl", folder / "decoder.pkl", weights["encoder"], weights["decoder"]


def assert_is_openais(opened: OpenedTokenizer, encoder: Weights, decoder: Weights) -> None:
    tokenizer, dropped, _ = opened
    assert isinstance(tokenizer, DVAE) and not dropped
    images = pictures(3, 32)
    codes = tokenizer.encode(images)
    assert torch.equal(codes, openai_codes(encoder, (images + 1) / 2))
    torch.testing.assert_close((tokenizer.decode(codes) + 1) / 2, openai_pixels(decoder, codes), atol=5e-5, rtol=0)
    assert_equal(OPENAI_ENCODER.ours_to_theirs(beginning(tokenizer.state_dict(), "encoder.")), encoder)
    assert_equal(OPENAI_DECODER.ours_to_theirs(beginning(tokenizer.state_dict(), "decoder.")), decoder)


def test_openais_pickled_networks_become_the_dvae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder_file, decoder_file, encoder, decoder = openai_files(tmp_path, monkeypatch)
    opened = read_dvae(encoder_file, decoder_file, resolution=32)
    assert_is_openais(opened, encoder, decoder)
    sizes = {"resolution": 32, "hidden": 8, "num_groups": 4, "blocks_per_group": 2, "codebook_size": 24}
    assert opened.tokenizer.config == {**sizes, "embed_dim": 6, "margin": 0.1, "pixel_shuffle": 1}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_flavas_codebook_is_openais_encoder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, decoder_file, encoder, decoder = openai_files(tmp_path, monkeypatch)
    flava = {flava_name(key): value for key, value in encoder.items()}
    save: Callable[..., Any] = save_file if name.endswith("safetensors") else torch.save
    save(flava, tmp_path / name)
    opened = read_dvae(tmp_path / name, decoder_file, resolution=32)
    assert_is_openais(opened, encoder, decoder)
    assert_equal(FLAVA_ENCODER.ours_to_theirs(beginning(opened.tokenizer.state_dict(), "encoder.")), flava)


def test_flavas_names_are_those_of_transformers() -> None:
    flava = pytest.importorskip("transformers.models.flava.modeling_flava")
    codebook = flava.FlavaImageCodebook(flava.FlavaImageCodebookConfig(hidden_size=8, vocab_size=24))
    theirs = {key: tuple(value.shape) for key, value in codebook.state_dict().items()}
    assert theirs == {flava_name(key): tuple(value.shape) for key, value in openai_weights("encoder").items()}


def test_a_detokenizer_is_paired_with_a_vqgan(tmp_path: Path) -> None:
    taming, detoker = taming_weights(**TINY), detoker_weights()
    first = save_lightning(taming | taming_losses(), tmp_path / "last.ckpt")
    second = save_bare(detoker, tmp_path / "detoker.pt")
    tokenizer, dropped, _ = read_paired(first, second, 16, UNTOLD, UNTOLD)
    assert isinstance(tokenizer, PairedTokenizer) and set(dropped) == set(taming_losses())
    assert tokenizer.config["tokenizer"]["pixel_range"] == [-1.0, 1.0]
    assert tokenizer.config["detokenizer"]["pixel_range"] == [0.0, 1.0]
    codes = tokenizer.encode(pictures(3, 16))
    assert torch.equal(codes, Taming(taming).codes(pictures(3, 16)))
    drawn = Taming(detoker, eps=1e-5).pixels(codes).clip(0, 1)
    torch.testing.assert_close((tokenizer.decode(codes) + 1) / 2, drawn, atol=5e-5, rtol=0)
    assert_equal(DETOKER.ours_to_theirs(tokenizer.detokenizer.state_dict()), detoker)
    tokenizer.save_pretrained(tmp_path / "ours")
    assert torch.equal(ImageTokenizer.from_pretrained(tmp_path / "ours").encode(pictures(3, 16)), codes)


def test_a_detokenizer_of_another_codebook_is_refused_with_both_numbers(tmp_path: Path) -> None:
    first = save_lightning(taming_weights(**TINY), tmp_path / "last.ckpt")
    second = save_bare(detoker_weights(codes=21), tmp_path / "detoker.pt")
    with pytest.raises(ValueError, match=r"detoker\.pt: the tokenizer has codebook_size=20, the detokenizer 21"):
        read_paired(first, second, 16, UNTOLD, UNTOLD)


def test_two_files_of_different_vocabularies_are_refused_with_both_shapes(tmp_path: Path) -> None:
    first = save_bare(openai_weights("encoder", codes=24), tmp_path / "encoder.pkl")
    second = save_bare(openai_weights("decoder", codes=25), tmp_path / "decoder.pkl")
    with pytest.raises(LayoutError, match=r"decoder\.pkl: .*input\.w has the shape \(6, 25, 1, 1\) where \(6, 24, 1"):
        read_dvae(first, second, 32)


def test_weights_in_half_precision_are_read_in_single(tmp_path: Path) -> None:
    halved = {key: value.half() for key, value in taming_weights(**TINY).items()}
    tokenizer = read_vqgan(save_lightning(halved, tmp_path / "last.ckpt"), 16, **UNTOLD).tokenizer
    assert {value.dtype for value in tokenizer.state_dict().values()} == {torch.float32}
    assert torch.equal(tokenizer.state_dict()["quant_conv.bias"], halved["quant_conv.bias"].float())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {}}, "has no state_dict"),
        ({"state_dict": {}}, "holds no weights"),
        ([torch.zeros(2)], "has no state_dict"),
    ],
)
def test_files_without_weights_are_named(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ForeignFile, match=rf"x\.ckpt .*{said}"):
        read_vqgan(tmp_path / "x.ckpt")


def test_a_damaged_file_of_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ForeignFile, match=r"x\.safetensors"), stored_weights(tmp_path / "x.safetensors"):
        pass


def test_another_networks_file_is_refused_by_its_keys(tmp_path: Path) -> None:
    other = {"tok_emb_img.weight": torch.zeros(4, 2), **{f"blocks.{i}.ln1.weight": torch.zeros(2) for i in range(5)}}
    with pytest.raises(LayoutError, match=r"x\.ckpt: .*unknown: tok_emb_img\.weight, .* and 3 more"):
        read_vqgan(save_lightning(other, tmp_path / "x.ckpt"))


# ------------------------------------------------------------------------------------------- one key is wrong


def read_encoder(path: Path, folder: Path) -> OpenedTokenizer:
    return read_dvae(path, save_bare(openai_weights("decoder"), folder / "decoder.pkl"), 32)


def read_decoder(path: Path, folder: Path) -> OpenedTokenizer:
    return read_dvae(save_bare(openai_weights("encoder"), folder / "encoder.pkl"), path, 32)


def read_detoker(path: Path, folder: Path) -> OpenedTokenizer:
    return read_paired(save_lightning(taming_weights(**TINY), folder / "vqgan.ckpt"), path, 16, UNTOLD, UNTOLD)


FILES: dict[str, tuple[Callable[[], Weights], Callable[..., Path], Callable[[Path, Path], OpenedTokenizer]]] = {
    "taming-vqgan": (lambda: taming_weights(**TINY), save_lightning, lambda path, _: read_vqgan(path, 16, **UNTOLD)),
    "taming-gumbel-vqgan": (
        lambda: taming_weights(**TINY, gumbel=True),
        save_lightning,
        lambda path, _: read_vqgan(path, 16, **UNTOLD),
    ),
    "openai encoder": (lambda: openai_weights("encoder"), save_bare, read_encoder),
    "openai decoder": (lambda: openai_weights("decoder"), save_bare, read_decoder),
    "flava": (
        lambda: {flava_name(key): value for key, value in openai_weights("encoder").items()},
        save_bare,
        read_encoder,
    ),
    "detoker": (detoker_weights, save_bare, read_detoker),
}
# A longer codebook is a codebook: one tensor alone tells its length.
CODEBOOKS = ("quantize.embedding.weight", "embedding.weight")
TRIED = 5  # keys a file and mistake, beside the first and the last
every_file = pytest.mark.parametrize("file", FILES)


def tried(weights: Weights, seed: int) -> list[str]:
    keys = sorted(weights)
    return sorted({keys[0], keys[-1], *random.Random(seed).sample(keys, TRIED)})


@every_file
def test_a_missing_key_is_named(file: str, tmp_path: Path) -> None:
    make, save, read = FILES[file]
    for key in tried(make(), 0):
        weights = make()
        del weights[key]
        with pytest.raises(LayoutError) as error:
            read(save(weights, tmp_path / "x.pt"), tmp_path)
        assert key in str(error.value) and "missing" in str(error.value) and "x.pt" in str(error.value)


@every_file
@pytest.mark.parametrize("change", ["{}_", "other.{}", "{}.weight"])
def test_a_renamed_key_is_named(file: str, change: str, tmp_path: Path) -> None:
    make, save, read = FILES[file]
    for key in tried(make(), 1)[:: 1 + 2 * (change != "{}_")]:
        weights = make()
        weights[change.format(key)] = weights.pop(key)
        with pytest.raises(LayoutError) as error:
            read(save(weights, tmp_path / "x.pt"), tmp_path)
        assert change.format(key) in str(error.value) and "x.pt" in str(error.value)


@every_file
def test_a_reshaped_tensor_is_named_with_its_shape(file: str, tmp_path: Path) -> None:
    make, save, read = FILES[file]
    for key in tried(make(), 2):
        weights = make()
        for changed in (torch.cat([weights[key], weights[key][:1]]), weights[key][None], weights[key].flatten()[:-1]):
            if key in CODEBOOKS and changed.shape[1:] == weights[key].shape[1:]:
                continue
            with pytest.raises(LayoutError) as error:
                read(save(weights | {key: changed}, tmp_path / "x.pt"), tmp_path)
            told = str(error.value)
            assert f"{key} has the shape {tuple(changed.shape)}" in told and "x.pt" in told


@every_file
def test_an_added_key_is_named(file: str, tmp_path: Path) -> None:
    make, save, read = FILES[file]
    for added in ("quantize.more", "blocks.group_9.block_1.res_path.conv_1.w", "decoder.up.7.block.0.norm1.weight"):
        with pytest.raises(LayoutError, match=f"(unknown|of another shape): {added}"):
            read(save(make() | {added: torch.zeros(2)}, tmp_path / "x.pt"), tmp_path)


def test_of_many_wrong_keys_three_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    weights = {key: value for key, value in taming_weights(**TINY).items() if "decoder.mid.attn_1.q" not in key}
    left = {key: value for key, value in weights.items() if not key.startswith("encoder.mid.block_1.")}
    gone = len(weights) - len(left)
    with pytest.raises(LayoutError, match=rf"missing: (\S+, ){{2}}\S+ and {gone + 2 - 3} more$"):
        read_vqgan(save_lightning(left, tmp_path / "x.ckpt"), 16, **UNTOLD)


# ------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ({"codebook_size": 1024}, TAMING_VQGAN),
        ({}, TAMING_VQGAN),
        (
            {"ch_mult": (1, 1, 2, 4), "attn_resolutions": (32,), "codebook_size": 8192, "quantizer": "gumbel"},
            TAMING_GUMBEL_VQGAN,
        ),
    ],
)
def test_full_size_shapes_tell_the_config(settings: dict[str, Any], layout: Layout) -> None:
    with torch.device("meta"):
        model = VQGAN(**settings)
    theirs = {key: tuple(value.shape) for key, value in layout.ours_to_theirs(model.state_dict()).items()}
    assert {**model.config, **vqgan_config(theirs, layout)} == model.config
    assert VQGAN(**TINY_VQGAN).config.keys() - vqgan_config(theirs, layout).keys() == {
        *("norm_groups", "norm_eps", "pixel_range", "encoder_window")
    }


def test_full_size_shapes_of_openai_tell_the_config() -> None:
    sizes = {"hidden": 256, "codes": 8192, "embed": 128, "seed": None}
    encoder, decoder = (
        {key: tuple(value.shape) for key, value in openai_weights(side, **sizes).items()}
        for side in ("encoder", "decoder")
    )
    with torch.device("meta"):
        released = DVAE()
    assert {**released.config, **dvae_config(encoder, OPENAI_ENCODER, decoder)} == released.config


TOY = Layout(
    "toy",
    [
        Row("h.{i}.c_fc.w", "blocks.{i}.mlp.weight", "into out", turn="into out -> out into"),
        Row("h.{i}.{q|k}", "blocks.{i}.attn.{q|k}.weight", "into 1", turn="into 1 -> 1 into"),
        Row("scale", "scale", ""),
    ],
    dropped={"mask.": "not needed"},
)


def test_a_turned_tensor_is_turned_back() -> None:
    theirs = {"h.0.c_fc.w": torch.randn(3, 5), "h.0.q": torch.randn(3, 1), "scale": torch.tensor(2.0)}
    shapes = {"blocks.0.mlp.weight": (5, 3), "blocks.0.attn.q.weight": (1, 3), "scale": ()}
    ours = TOY.theirs_to_ours(theirs | {"mask.0": torch.zeros(1)}, shapes)
    assert torch.equal(ours["blocks.0.mlp.weight"], theirs["h.0.c_fc.w"].T)
    assert {key: tuple(value.shape) for key, value in ours.items()} == shapes
    assert_equal(TOY.ours_to_theirs(ours), theirs)
    with pytest.raises(LayoutError, match=r"h\.0\.c_fc\.w has the shape \(3, 5\) where \(3, 6\) belongs"):
        TOY.theirs_to_ours(theirs, shapes | {"blocks.0.mlp.weight": (6, 3)})
    with pytest.raises(LayoutError, match=r"the layout toy has no place for our head\.weight"):
        TOY.ours_to_theirs({"head.weight": torch.zeros(1)})


def test_numbers_are_counted_up_to_the_first_gap() -> None:
    keys = ["a.1.x", "a.2.x", "a.2.y", "a.4.x", "b.3.x"]
    assert (count(keys, "a.{i}.", first=1), count(keys, "a.{i}."), count([], "a.{i}.")) == (2, 0, 0)
