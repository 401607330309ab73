"""Of every layout: a key that is dropped, renamed, added or reshaped, whichever it is, is named in the error."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from storydalle.released.conversion import mega, min_dalle, released_story_dalle
from storydalle.released.layouts import LayoutError
from storydalle.released.tokenizer_layouts import read_dvae, read_vqgan
from tests.released_tokenizers import TINY, flava_name, openai_weights, taming_weights
from tests.test_conversion import HEADS, write_mega, write_min_dalle, write_story_dalle

Weights = dict[str, Tensor]
TRIALS = 16  # of every layout
GROUPS = {"norm_groups": 4}  # of the tiny VQGAN; the released ones have 32


def write_taming(folder: Path, gumbel: bool = False) -> None:
    torch.save({"state_dict": taming_weights(**TINY, gumbel=gumbel)}, folder / "last.ckpt")


def write_dvae(folder: Path, rename: Callable[[str], str] = str) -> None:
    torch.save({rename(key): value for key, value in openai_weights("encoder").items()}, folder / "encoder.pkl")
    torch.save(openai_weights("decoder"), folder / "decoder.pkl")


def open_taming(folder: Path) -> AbstractContextManager[Any]:
    return nullcontext(read_vqgan(folder / "last.ckpt", 16, **GROUPS))


def open_dvae(folder: Path) -> AbstractContextManager[Any]:
    return nullcontext(read_dvae(folder / "encoder.pkl", folder / "decoder.pkl", 32))


def open_mega(folder: Path) -> AbstractContextManager[Any]:
    return mega(folder, folder / "last.ckpt", "", HEADS)


class Release(NamedTuple):
    """Files of a release, and the one of them that is changed."""

    write: Callable[[Path], Any]
    open: Callable[[Path], AbstractContextManager[Any]]
    file: str
    key: str | None = None
    # Of these tensors alone the first axis tells a size: with another one the file is that of another model.
    alone: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()  # beginnings of names that are not looked at


CODEBOOK, WORDS, LENGTHS = (
    "quantize.embedding.weight",
    "embed_tokens.weight",
    ("pos_emb_txt.weight", "pos_emb_img.weight"),
)
RELEASES = {
    "mindalle, stage 1": Release(
        write_min_dalle, lambda folder: min_dalle(folder, HEADS), "1.3B/stage1_last.ckpt", "state_dict", (CODEBOOK,)
    ),
    "mindalle, stage 2": Release(
        write_min_dalle, lambda folder: min_dalle(folder, HEADS), "1.3B/stage2_last.ckpt", "state_dict", LENGTHS
    ),
    "storydalle": Release(
        write_story_dalle,
        lambda folder: released_story_dalle(folder / "49.pth", HEADS),
        "49.pth",
        "model_state_dict",
        (f"stage1.{CODEBOOK}", *(f"stage2.{name}" for name in LENGTHS), "wte.weight"),
    ),
    "dalle-mega, encoder": Release(write_mega, open_mega, "encoder.pt", None, (WORDS, "embed_positions.weight")),
    "dalle-mega, decoder": Release(write_mega, open_mega, "decoder.pt", None, ("embed_positions.weight",)),
    "dalle-mega, detokenizer": Release(write_mega, open_mega, "detoker.pt", None, ("embedding.weight",)),
    "dalle-mega, image encoder": Release(
        write_mega, open_mega, "last.ckpt", "state_dict", (CODEBOOK,), ("decoder.", "post_quant_conv.")
    ),
    "taming-vqgan": Release(write_taming, open_taming, "last.ckpt", "state_dict", (CODEBOOK,)),
    "taming-gumbel-vqgan": Release(lambda folder: write_taming(folder, True), open_taming, "last.ckpt", "state_dict"),
    "openai-dvae, encoder": Release(write_dvae, open_dvae, "encoder.pkl"),
    "openai-dvae, decoder": Release(write_dvae, open_dvae, "decoder.pkl"),
    "flava": Release(lambda folder: write_dvae(folder, flava_name), open_dvae, "encoder.pkl"),
}


def dropped(weights: Weights, key: str, dice: random.Random) -> list[str]:
    del weights[key]
    return ["missing", key]


def renamed(weights: Weights, key: str, dice: random.Random) -> list[str]:
    numbers = [part for part in key.split(".") if part.isdigit()]
    others = [f"{key}_", f"other.{key}", *(key.replace(f".{number}.", ".77.") for number in numbers)]
    other = dice.choice([name for name in others if name not in weights])
    weights[other] = weights.pop(key)
    return ["unknown", other]


def added(weights: Weights, key: str, dice: random.Random) -> list[str]:
    other = dice.choice(["quantize.more", "blocks.77.ln1.weight", f"{key}.more", "encoder.down.77.block.0.norm1.bias"])
    weights[other] = torch.zeros(2)
    return [other]


def reshaped(weights: Weights, key: str, dice: random.Random) -> list[str]:
    value = weights[key]
    first = tuple(value.shape)
    changed = dice.choice([value[None], value[..., None], value.flatten()[:-1], torch.cat([value, value[:1]])])
    weights[key] = changed.clone()
    return [f"{key} has the shape {tuple(changed.shape)}", str(first)]


CHANGES = (dropped, renamed, added, reshaped)


def saved(release: Release, weights: Weights, path: Path) -> None:
    torch.save(weights if release.key is None else {release.key: weights}, path)


@pytest.mark.parametrize("layout", RELEASES)
def test_a_changed_key_is_always_named(layout: str, tmp_path: Path) -> None:
    release, dice = RELEASES[layout], random.Random(layout)
    release.write(tmp_path)
    path = tmp_path / release.file
    content = torch.load(path, weights_only=True)
    weights: Weights = content if release.key is None else content[release.key]
    keys = sorted(key for key in weights if not key.startswith(release.unused or ("\0",)))
    for trial in range(TRIALS):
        change, key = CHANGES[trial % len(CHANGES)], dice.choice(keys)
        if change is reshaped and key in release.alone:
            continue
        changed = dict(weights)
        said = change(changed, key, dice)
        saved(release, changed, path)
        with pytest.raises(LayoutError) as error, release.open(tmp_path):
            pass
        told = str(error.value)
        assert path.name in told and all(part in told for part in said), (change.__name__, key, told)


@pytest.mark.parametrize("layout", RELEASES)
def test_an_unchanged_release_is_read(layout: str, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    RELEASES[layout].write(tmp_path)
    with RELEASES[layout].open(tmp_path):
        pass
