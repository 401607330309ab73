"""One interface for every image tokenizer: ranges, kinds, hashes; variants of the VQGAN; two VQGANs as a pair."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storydalle import StoryDALLE
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.models.zoo import CONFIG_NAME
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.dvae import DVAE
from storydalle.tokens.encoding import FrameEncoder, encoding_hash
from storydalle.tokens.image_tokenizer import IMAGE_TOKENIZERS, ImageTokenizer, PixelRange
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import NORM_EPS, VQGAN
from storydalle.training import tokenizer_training
from storydalle.training.tokenizer_training import ImageTokenizerTraining
from tests.released_tokenizers import TINY, TINY_VQGAN, Taming, detoker_weights, pictures, taming_weights
from tests.shifted import fixed
from tests.tiny import CAPTIONS


def tiny_vqgan(**changes: Any) -> VQGAN:
    """Filled with the weights of ``taming_weights``."""
    model = VQGAN(**{**TINY_VQGAN, **changes})
    theirs = taming_weights(**TINY, gumbel=changes.get("quantizer") == "gumbel")
    model.load_state_dict({key.replace("quantize.embed.", "quantize.embedding."): v for key, v in theirs.items()})
    return model.eval()


def tiny_dvae() -> DVAE:
    torch.manual_seed(0)
    return DVAE(16, hidden=8, num_groups=3, blocks_per_group=1, codebook_size=20, embed_dim=6).eval()


def tiny_pair(**changes: Any) -> PairedTokenizer:
    detokenizer = {**TINY_VQGAN, "pixel_range": (0, 1), **changes}
    model = PairedTokenizer({**TINY_VQGAN, "norm_eps": 1e-5}, detokenizer)
    theirs = detoker_weights()
    renamed = {key.replace("embedding.", "quantize.embedding."): value for key, value in theirs.items()}
    model.detokenizer.load_state_dict(renamed)
    kept = model.tokenizer.state_dict()
    model.tokenizer.load_state_dict({key: v for key, v in taming_weights(**TINY).items() if key in kept})
    return model.eval()


TINIES = {"vqgan": tiny_vqgan, "dvae": tiny_dvae, "paired": tiny_pair}
every_kind = pytest.mark.parametrize("kind", list(IMAGE_TOKENIZERS))


def story_dalle(images: ImageTokenizer, **backbone: Any) -> StoryDALLE:
    """A tiny model around an image tokenizer."""
    torch.manual_seed(0)
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=60, text_length=16)
    sizes = {
        "text_vocab_size": captions.vocab_size,
        "image_vocab_size": images.codebook_size,
        "text_length": 16,
        "image_length": images.num_codes,
        **{"dim": 32, "depth": 2, "num_heads": 2, "pad_id": captions.pad_id},
    }
    return StoryDALLE(images, captions, retrofit(DALLE(**{**sizes, **backbone}))).eval()


# ------------------------------------------------------------------------------------------------ the interface


def test_every_kind_has_a_tiny_version_here() -> None:
    assert set(TINIES) == set(IMAGE_TOKENIZERS)


@every_kind
def test_pictures_become_codes_and_pictures_again(kind: str) -> None:
    model = TINIES[kind]()
    assert model.kind == kind and isinstance(model, ImageTokenizer)
    codes = model.encode(pictures(2, model.resolution))
    assert codes.shape == (2, model.num_codes) and codes.dtype == torch.long
    assert codes.min() >= 0 and codes.max() < model.codebook_size
    drawn = model.decode(codes)
    assert drawn.shape == (2, 3, model.resolution, model.resolution)
    assert drawn.min() >= -1.0 and drawn.max() <= 1.0


@every_kind
def test_wrong_pictures_and_codes_are_refused(kind: str) -> None:
    model = TINIES[kind]()
    with pytest.raises(ValueError, match="8x16 pixels do not fit"):
        model.encode(torch.zeros(1, 3, 16, 8))
    with pytest.raises(ValueError, match="9 codes a picture do not fill this tokenizer's 16"):
        model.decode(torch.zeros(1, 9, dtype=torch.long))
    with pytest.raises(ValueError, match="code 20 lies outside the codebook of 20"):
        model.decode(torch.full((1, 16), 20))


@every_kind
def test_saved_and_opened_again_it_is_the_same(kind: str, tmp_path: Path) -> None:
    model = TINIES[kind]()
    model.save_pretrained(tmp_path)
    for opened in (ImageTokenizer.from_pretrained(tmp_path), type(model).from_pretrained(tmp_path)):
        assert type(opened) is type(model) and opened.config == model.config and not opened.training
        codes = model.encode(pictures(2, 16))
        assert torch.equal(opened.encode(pictures(2, 16)), codes)
        assert torch.equal(opened.decode(codes), model.decode(codes))


@every_kind
def test_a_class_opens_no_other_kind(kind: str, tmp_path: Path) -> None:
    TINIES[kind]().save_pretrained(tmp_path)
    for other in {type(TINIES[name]()) for name in IMAGE_TOKENIZERS if name != kind}:
        with pytest.raises(ValueError, match=rf"config\.json .* of kind {kind}, not {other.kind}"):
            other.from_pretrained(tmp_path)


def test_a_config_without_a_kind_is_a_vqgan(tmp_path: Path) -> None:
    model = tiny_vqgan()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for later in ("kind", "quantizer", "norm_eps", "pixel_range"):
        del config[later]
    (tmp_path / "config.json").write_text(json.dumps(config))
    opened = ImageTokenizer.from_pretrained(tmp_path)
    assert type(opened) is VQGAN and opened.config == model.config


@pytest.mark.parametrize("config", [{"kind": "other"}, {"kind": "dvae", "colour": 3}, {"kind": ["vqgan"]}, [1]])
def test_a_foreign_configuration_is_refused(config: Any, tmp_path: Path) -> None:
    tiny_vqgan().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json is not the configuration of an image tokenizer"):
        ImageTokenizer.from_pretrained(tmp_path)


def test_pixel_ranges_are_undone_and_the_public_one_changes_nothing() -> None:
    images = pictures(2, 16)
    assert PixelRange().inward(images) is images and PixelRange().outward(images) is images
    own = PixelRange(0.0, 1.0).inward(images)
    torch.testing.assert_close(own, (images + 1) / 2)
    torch.testing.assert_close(PixelRange(0.0, 1.0).outward(own), images)


# ------------------------------------------------------------------------------------------------ hashes, caches


@every_kind
def test_equal_hashes_make_equal_codes(kind: str) -> None:
    model = TINIES[kind]()
    before = encoding_hash(model)
    drawing = [p for name, p in model.named_parameters() if "decoder" in name or "post_quant" in name]
    encoding = next(p for name, p in model.named_parameters() if "encoder" in name)
    with torch.no_grad():
        for parameter in drawing:
            parameter.mul_(2)
        assert encoding_hash(model) == before
        encoding.mul_(2)
    assert encoding_hash(model) != before


def test_what_changes_codes_changes_the_hash() -> None:
    settings = [{}, {"norm_eps": 1e-5}, {"pixel_range": (0.0, 1.0)}, {"quantizer": "gumbel"}]
    hashes = [encoding_hash(tiny_vqgan(**changes)) for changes in settings]
    assert len(set(hashes)) == len(settings)
    assert encoding_hash(tiny_pair()) == hashes[1], "a pair has the codes of its tokenizer"


@every_kind
def test_frames_are_encoded_alike_for_the_cache(kind: str) -> None:
    model = TINIES[kind]()
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    expected = model.encode(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1.0)
    assert np.array_equal(FrameEncoder(model)(frames), expected.numpy())


def test_windows_of_a_gumbel_vqgan_are_encoded_alone() -> None:
    model = tiny_vqgan(quantizer="gumbel", encoder_window=4)
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    assert FrameEncoder(model).window == 4
    expected = model.encode(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1.0)
    assert np.array_equal(FrameEncoder(model)(frames), expected.numpy())


# ------------------------------------------------------------------------------------------------ the VQGAN's variants


@pytest.mark.parametrize("quantizer", ["nearest", "gumbel"])
@pytest.mark.parametrize("eps", [1e-6, 1e-5, 1e-2])
@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_codes_and_pictures_equal_tamings(quantizer: str, eps: float, pixel_range: tuple[float, float]) -> None:
    model = tiny_vqgan(quantizer=quantizer, norm_eps=eps, pixel_range=pixel_range)
    taming = Taming(taming_weights(**TINY, gumbel=quantizer == "gumbel"), eps)
    images = pictures(3, 16)
    own = images if pixel_range[0] else (images + 1) / 2
    codes = model.encode(images)
    torch.testing.assert_close(model.latents(images), taming.latents(own), atol=5e-5, rtol=1e-5)
    assert torch.equal(codes, taming.codes(own))
    assert len(codes.unique()) > 1
    drawn = taming.pixels(codes)
    theirs = drawn if pixel_range[0] else drawn * 2 - 1
    torch.testing.assert_close(model.decode(codes), theirs.clamp(-1, 1), atol=5e-5, rtol=1e-5)


def test_the_epsilon_of_the_norms_is_seen_in_the_latents() -> None:
    """Otherwise the test above would pass with any."""
    images = pictures(1, 16) * 0.02
    latents = [tiny_vqgan(norm_eps=eps).latents(images) for eps in (NORM_EPS, 1e-2)]
    assert (latents[0] - latents[1]).abs().max() > 1e-3


def test_gumbel_codes_are_not_the_nearest() -> None:
    model = tiny_vqgan(quantizer="gumbel")
    latents = model.latents(pictures(3, 16))
    nearest = model.quantize.nearest(latents.permute(0, 2, 3, 1).flatten(0, 2)).view(3, -1)
    assert not torch.equal(model.quantize.choose(latents), nearest)


def test_gumbel_codes_are_found_in_full_precision_under_autocast() -> None:
    model = tiny_vqgan(quantizer="gumbel")
    latents = model.latents(pictures(3, 16))
    with torch.autocast("cpu", torch.bfloat16):
        codes = model.quantize.choose(latents)
    assert torch.equal(codes, model.quantize.choose(latents))


@pytest.mark.parametrize(
    ("settings", "grid", "attention", "codes"),
    [
        ({"codebook_size": 1024}, 16, {4: 2}, 1024),
        ({}, 16, {4: 2}, 16384),
        (
            {"ch_mult": (1, 1, 2, 4), "attn_resolutions": (32,), "codebook_size": 8192, "quantizer": "gumbel"},
            *(32, {3: 2}, 8192),
        ),
    ],
)
def test_tamings_models_are_settings_of_the_vqgan(
    settings: dict[str, Any], grid: int, attention: dict[int, int], codes: int
) -> None:
    with torch.device("meta"):
        model = VQGAN(**settings)
    assert (model.grid, model.codebook_size) == (grid, codes)
    assert {i: len(level.attn) for i, level in enumerate(model.encoder.down) if level.attn} == attention
    has_proj = "quantize.proj.weight" in model.state_dict()
    assert has_proj == (settings.get("quantizer") == "gumbel")
    if has_proj:
        assert tuple(model.state_dict()["quantize.proj.weight"].shape) == (8192, 256, 1, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantizer": "soft"}, "quantizer=soft is unknown: there are nearest, gumbel"),
        ({"pixel_range": (1.0, 0.0)}, r"pixel_range=\[1.0, 0.0\]"),
    ],
)
def test_unknown_settings_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VQGAN(**{**TINY_VQGAN, **changes})


@pytest.mark.parametrize("make", [tiny_dvae, tiny_pair, lambda: tiny_vqgan(quantizer="gumbel")])
def test_only_a_vqgan_of_nearest_vectors_is_trained(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make()
    # The types forbid the other kinds too, but only tests check types.
    monkeypatch.setattr(ImageTokenizerTraining, "__init__", inspect.unwrap(ImageTokenizerTraining.__init__))
    monkeypatch.setattr(tokenizer_training, "check_trainable", inspect.unwrap(tokenizer_training.check_trainable))
    with pytest.raises(ValueError, match="cannot be trained here: only a vqgan"):
        ImageTokenizerTraining(made)


# ------------------------------------------------------------------------------------------------ the pair


def test_a_pair_encodes_by_the_one_and_draws_by_the_other() -> None:
    pair, images = tiny_pair(norm_eps=1e-5), pictures(2, 16)
    codes = pair.encode(images)
    assert torch.equal(codes, Taming(taming_weights(**TINY), eps=1e-5).codes(images))
    drawn = Taming(detoker_weights(), eps=1e-5).pixels(codes).clip(0, 1)
    torch.testing.assert_close((pair.decode(codes) + 1) / 2, drawn, atol=5e-5, rtol=0)
    assert not torch.allclose(pair.decode(codes), tiny_vqgan().decode(codes), atol=1e-2)


def test_pictures_in_the_wrong_range_have_other_codes() -> None:
    """The mistake of the released StoryDALL-E code: [0, 1] into an encoder that knows [-1, 1]."""
    images = pictures(4, 16)
    right, wrong = (tiny_vqgan(pixel_range=pixels).encode(images) for pixels in ((-1.0, 1.0), (0.0, 1.0)))
    assert (right != wrong).float().mean() > 0.2


def test_a_pair_keeps_no_half_that_it_never_uses() -> None:
    names = {name.rpartition(".")[0].split(".")[1] for name in tiny_pair().state_dict() if name.startswith("tok")}
    assert names == {"encoder", "quant_conv", "quantize"}
    names = {name.split(".")[1] for name in tiny_pair().state_dict() if name.startswith("detok")}
    assert names == {"quantize", "post_quant_conv", "decoder"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codebook_size": 21}, "codebook_size=20, the detokenizer 21"),
        ({"ch_mult": (1, 1)}, "num_codes=16, the detokenizer 64"),
        ({"resolution": 32, "ch_mult": (1, 1, 1, 2)}, "resolution=16, the detokenizer 32"),
    ],
)
def test_two_halves_that_do_not_agree_are_refused_with_both_numbers(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"the tokenizer has {said}: they must agree"):
        PairedTokenizer(TINY_VQGAN, {**TINY_VQGAN, **changes})


# ------------------------------------------------------------------------------------------------ in StoryDALL-E


@every_kind
def test_a_model_with_any_kind_is_saved_and_opened(kind: str, tmp_path: Path) -> None:
    made = story_dalle(TINIES[kind]())
    made.half().float()  # weights are stored in half precision
    made.save_folder(tmp_path)
    opened = StoryDALLE.open_folder(tmp_path)
    assert json.loads((tmp_path / CONFIG_NAME).read_text())["image_tokenizer"]["kind"] == kind
    assert opened.image_tokenizer.description == made.image_tokenizer.description
    codes = made.image_tokenizer.encode(pictures(1, 16))
    assert torch.equal(opened.image_tokenizer.encode(pictures(1, 16)), codes)
    drawn = opened.generate(["Pip waves."], None)
    assert drawn.frames[0].size == (16, 16)


@every_kind
def test_a_backbone_of_another_kinds_codes_is_refused(kind: str, tmp_path: Path) -> None:
    story_dalle(TINIES[kind](), codes_of=kind)
    other = next(name for name in IMAGE_TOKENIZERS if name != kind)
    with pytest.raises(
        ValueError, match=f"codes of an image tokenizer of kind {other}, but this one is of kind {kind}"
    ):
        story_dalle(TINIES[kind](), codes_of=other)
    story_dalle(TINIES[kind](), codes_of=kind).save_folder(tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    config["image_tokenizer"] = TINIES[other]().description
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"kind {kind}, but this one is of kind {other}"):
        StoryDALLE.open_folder(tmp_path)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"image_length": 15}, "15 codes a frame, its tokenizer 16"),
        ({"image_vocab_size": 21}, "21 image codes, its tokenizer 20"),
    ],
)
@every_kind
def test_sizes_that_do_not_agree_are_refused_with_both_numbers(kind: str, sizes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        story_dalle(TINIES[kind](), **sizes)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    story_dalle(tiny_vqgan()).save_folder(tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    config["image_tokenizer"] = tiny_dvae().description
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not hold the weights of its configuration"):
        StoryDALLE.open_folder(tmp_path)


def test_the_shipped_model_opens_and_encodes_as_before() -> None:
    shipped = Path(__file__).parent.parent / "storydalle/zoo/story_dalle"
    if not (shipped / CONFIG_NAME).is_file():
        pytest.skip("no weights ship yet")
    assert "kind" not in json.loads((shipped / CONFIG_NAME).read_text())["image_tokenizer"]
    tokenizer = StoryDALLE.from_pretrained("story_dalle").image_tokenizer
    images = torch.rand(4, 3, 128, 128, generator=fixed(0)) * 2 - 1
    with torch.inference_mode():
        codes = tokenizer.encode(images)
    # Written down before there were kinds; each code is nearer than the next by 0.2% or more, far beyond rounding.
    assert encoding_hash(tokenizer) == "dc40451f38203874"
    assert codes[0, :8].tolist() == [1524, 515, 1901, 1247, 869, 607, 1576, 1599]
    assert hashlib.sha256(codes.numpy().tobytes()).hexdigest()[:16] == "d3dea57874f1e8f5"
