"""Small folders of ours in the layouts that can be released, and what their release holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from storydalle.files.weights import files_of
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.released.release import mindalle_release, write_release
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN
from tests.test_byte_level import tiny_tokenizer
from tests.test_conversion import CAPTIONS, HEADS

IMAGES: dict[str, Any] = {  # the same in our words as ``vqgan()`` is in taming's
    **{"resolution": 8, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [4]},
    **{"z_channels": 8, "codebook_size": 24, "embed_dim": 12},
}
DRAWN: dict[str, Any] = {"pixel_range": (0, 1), "norm_eps": 1e-5}  # what detoker.pt means


def weights_of(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in files_of(folder / "model.safetensors") for name, value in load_file(file).items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


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
