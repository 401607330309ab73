"""Released models of minDALL-E's family become folders of ours that say the same numbers."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer

from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.released.conversion import mega, min_dalle, released_story_dalle, write_conversion
from storydalle.released.layouts import LayoutError
from storydalle.released.model_layouts import ADDED_NAMES
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.training.building import story_dalle
from tests.released_models import (
    FULL_MEGA,
    MegaSizes,
    Sizes,
    Weights,
    block_shapes,
    mega_shapes,
    random_weights,
    stage2_logits,
    stage2_shapes,
    story_logits,
    story_vectors,
)
from tests.released_tokenizers import Taming, detoker_weights, pictures, taming_weights
from tests.test_byte_level import write_files

CAPTIONS = ["a red square on the left", "a blue square on the right", "pororo and loopy jump"]
DIM, HEADS = 16, 2
PIECES = ["a dinosaur, dinohats and dinomen"] * 3  # make "dino", a name of Flintstones, a piece of the vocabulary


def write_vocabulary(folder: Path, name: str) -> int:
    """``<name>vocab.json`` and ``<name>merges.txt`` as minDALL-E has them; the number of words."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = CaptionTokenizer.train([*CAPTIONS, *PIECES], vocab_size=150, text_length=8)
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save(saved)
        library = Tokenizer.from_file(str(Path(saved) / "tokenizer.json"))
    assert library.token_to_id("dino") is not None
    library.model.save(str(folder), name.rstrip("-") or None)
    return tokenizer.vocab_size


def vqgan() -> Weights:
    return taming_weights((32, 32), 1, (1,), z=8, codes=24, embed=12)


def write_min_dalle(folder: Path) -> Weights:
    """The unpacked archive; its second stage."""
    words = write_vocabulary(folder / "1.3B" / "tokenizer", "bpe-16k-")
    stage2 = random_weights(stage2_shapes(Sizes(DIM, 3, HEADS, words, 24, 8, 16)))
    torch.save({"state_dict": vqgan(), "epoch": 3}, folder / "1.3B" / "stage1_last.ckpt")
    torch.save({"state_dict": stage2}, folder / "1.3B" / "stage2_last.ckpt")
    return stage2


def write_story_dalle(folder: Path, num_names: int = 9, prompts: int = 4, **changes: Any) -> Weights:
    """A training checkpoint of the released StoryDALL-E; all its weights."""
    words = write_vocabulary(folder, "")
    weights = {f"stage1.{name}": value for name, value in vqgan().items()}
    sizes = Sizes(DIM, 3, HEADS, words + num_names, 24, 8, 16)
    weights |= {f"stage2.{name}": value for name, value in random_weights(stage2_shapes(sizes)).items()}
    shapes = {"story_linear.weight": (DIM, 12), "story_linear.bias": (DIM,), **block_shapes("story_block.", DIM)}
    if prompts:
        shapes |= {"wte.weight": (prompts, DIM)}
        for i in (0, 2):
            shapes |= {f"control_trans.{i}.weight": (DIM, DIM), f"control_trans.{i}.bias": (DIM,)}
    weights |= random_weights(shapes, seed=5)
    torch.save({"model_state_dict": weights, "epoch": 49, "optimizer_state_dict": {}}, folder / "49.pth")
    return weights


def write_mega(folder: Path, suffix: str = "", **changes: int) -> dict[str, Weights]:
    """min-dalle's files, and a VQGAN of taming's beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in write_files(folder):
        path.rename(path.with_stem(path.stem + suffix))
    sizes = MegaSizes()._replace(**changes)
    files = {
        f"encoder{suffix}.pt": random_weights(mega_shapes("encoder", MegaSizes()), seed=1),
        f"decoder{suffix}.pt": random_weights(mega_shapes("decoder", sizes), seed=2),
        "detoker.pt": detoker_weights(widths=(32, 32), blocks=1, attention=(1,), z=8, codes=24, embed=12),
    }
    for name, weights in files.items():
        torch.save(weights, folder / name)
    files["last.ckpt"] = vqgan()
    torch.save({"state_dict": files["last.ckpt"]}, folder / "last.ckpt")
    return files


def test_logits_of_a_converted_mindalle_are_the_originals(tmp_path: Path) -> None:
    stage2 = write_min_dalle(tmp_path)
    with min_dalle(tmp_path, num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
    model = StoryDALLE.from_pretrained(tmp_path / "ours")
    tokens, codes = torch.randint(0, 100, (2, 8)), torch.randint(0, 24, (2, 16))
    found = model.model.backbone(tokens, codes)
    for row in range(2):
        expected = stage2_logits(stage2, tokens[row], codes[row], HEADS)
        torch.testing.assert_close(found.image[row], expected.image, atol=5e-5, rtol=0)
        torch.testing.assert_close(found.text[row], expected.text, atol=5e-5, rtol=0)


def test_padding_of_a_converted_mindalle_is_a_token_like_others(tmp_path: Path) -> None:
    stage2 = write_min_dalle(tmp_path)
    with min_dalle(tmp_path, num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
    model = StoryDALLE.from_pretrained(tmp_path / "ours")
    tokens, codes = model.caption_tokenizer.encode(["pip"]).tokens, torch.randint(0, 24, (1, 16))
    assert (tokens[0, -3:] == model.caption_tokenizer.pad_id).all() and model.model.backbone.pad_id is None
    expected = stage2_logits(stage2, tokens[0], codes[0], HEADS)
    torch.testing.assert_close(model.model.backbone(tokens, codes).image[0], expected.image, atol=5e-5, rtol=0)


def test_a_converted_mindalle_draws_stories(tmp_path: Path) -> None:
    write_min_dalle(tmp_path)
    with min_dalle(tmp_path, num_heads=HEADS) as conversion:
        written = write_conversion(conversion, tmp_path / "ours", max_bytes=20_000)
    assert len(written) > 1, "a large model has several files"
    model = StoryDALLE.from_pretrained(tmp_path / "ours")
    assert model.resolution == 8 and model.sampling().top_k == 256
    drawn = model.generate(CAPTIONS, Image.new("RGB", (20, 20), "red"))
    assert [frame.size for frame in drawn.frames] == [(8, 8)] * 3


def test_half_precision_leaves_the_image_tokenizer_alone(tmp_path: Path) -> None:
    write_min_dalle(tmp_path)
    with min_dalle(tmp_path, num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours", dtype=torch.float16)
    kinds = {name: value.dtype for name, value in load_file(tmp_path / "ours" / "model.safetensors").items()}
    assert {kind for name, kind in kinds.items() if name.startswith("image_tokenizer.")} == {torch.float32}
    assert {kind for name, kind in kinds.items() if name.startswith("model.")} == {torch.float16}


@pytest.mark.parametrize(("num_names", "prompts"), [(9, 4), (7, 0), (0, 0)])
def test_a_released_story_dalle_keeps_all_it_has_and_says_what_it_lacks(
    num_names: int, prompts: int, tmp_path: Path
) -> None:
    weights = write_story_dalle(tmp_path, num_names, prompts)
    with released_story_dalle(tmp_path / "49.pth", num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
        notes = conversion.notes
    assert "no source attention" in notes[0] and "12 wide" in notes[1]
    model = StoryDALLE.from_pretrained(tmp_path / "ours")
    assert model.caption_tokenizer.added_names == ADDED_NAMES[num_names]
    backbone = model.model.backbone
    assert torch.equal(backbone.blocks[2].attn.key.weight, weights["stage2.blocks.2.attn.key.weight"])
    assert list(model.model.source_attention) == ["2"]
    assert not model.model.source_attention["2"].proj.weight.any(), "a fresh retrofit adds nothing"
    assert (model.model.prompt_tokens is not None) == (prompts > 0)
    if prompts:
        assert torch.equal(model.model.prompt_tokens.transform[2].bias, weights["control_trans.2.bias"])
    story = model.model.story_encoder
    assert torch.equal(story.block.mlp[0].weight, weights["story_block.mlp.0.weight"])
    source = Image.new("RGB", (20, 20), "red")
    told = [
        "not used: it reads vectors of a sentence encoder, 12 wide" in note
        for note in model.generate(CAPTIONS, source).notes
    ]
    assert told.count(True) == 1 and not any(
        "sentence" in note for note in model.generate(CAPTIONS, source, sentences=torch.randn(3, 12)).notes
    )


@pytest.mark.parametrize("prompts", [0, 4])
@pytest.mark.parametrize("has_sentences", [False, True])
def test_logits_of_a_converted_story_dalle_are_the_originals(prompts: int, has_sentences: bool, tmp_path: Path) -> None:
    weights = write_story_dalle(tmp_path, prompts=prompts)
    with released_story_dalle(tmp_path / "49.pth", num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
    model = StoryDALLE.from_pretrained(tmp_path / "ours")
    tokens = model.caption_tokenizer.encode(CAPTIONS).tokens
    codes, sentences = torch.randint(24, (3, 16)), torch.randn(3, 12)
    mask = torch.ones(1, 3, dtype=torch.bool)
    story = model.model.encode_story(tokens[None], mask, sentences[None] if has_sentences else None)
    ours = model.model(tokens[None], codes[None], codes[None, :1], mask, story)
    vectors = story_vectors(weights, sentences, HEADS) if has_sentences else [None] * 3
    theirs = [story_logits(weights, *frame, HEADS) for frame in zip(tokens, codes, vectors, strict=True)]
    torch.testing.assert_close(ours.image, torch.stack([frame.image for frame in theirs]), atol=5e-5, rtol=0)
    torch.testing.assert_close(ours.text, torch.stack([frame.text for frame in theirs]), atol=5e-5, rtol=0)


def test_a_training_on_a_released_story_dalle_says_what_it_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_story_dalle(tmp_path)
    with released_story_dalle(tmp_path / "49.pth", num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
    made = story_dalle(str(tmp_path / "ours"), "runs", {"source_blocks": "all"})
    assert "its own is discarded: source_attention, story_encoder, prompt_tokens" in capsys.readouterr().out
    assert list(made.model.source_attention) == ["0", "1", "2"]
    write_min_dalle(tmp_path / "min")
    with min_dalle(tmp_path / "min", HEADS) as conversion:
        write_conversion(conversion, tmp_path / "plain")
    story_dalle(str(tmp_path / "plain"), "runs", {})
    assert "discarded" not in capsys.readouterr().out


def test_sentence_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_story_dalle(tmp_path)
    with released_story_dalle(tmp_path / "49.pth", num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
    model = StoryDALLE.from_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match="2 sentence vectors for 3 captions"):
        model.generate(CAPTIONS, None, sentences=torch.randn(2, 12))
    with pytest.raises(ValueError, match="13 wide, the story encoder reads 12"):
        model.generate(CAPTIONS, None, sentences=torch.randn(3, 13))
    write_min_dalle(tmp_path / "min")
    with min_dalle(tmp_path / "min", HEADS) as conversion:
        write_conversion(conversion, tmp_path / "plain")
    with pytest.raises(ValueError, match="reads the captions themselves"):
        StoryDALLE.from_pretrained(tmp_path / "plain").generate(CAPTIONS, None, sentences=torch.randn(3, 12))


def test_a_conversion_is_the_same_every_time(tmp_path: Path) -> None:
    write_story_dalle(tmp_path)
    for name in ("a", "b"):
        with released_story_dalle(tmp_path / "49.pth", num_heads=HEADS) as conversion:
            write_conversion(conversion, tmp_path / name)
        torch.rand(3)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_names_have_the_ids_of_the_released_code() -> None:
    """Their order is that of rows in a trained table."""
    assert ADDED_NAMES[9] == ("pororo", "loopy", "eddy", "harry", "poby", "tongtong", "crong", "rody", "petty")
    assert ADDED_NAMES[7] == ("fred", "barney", "wilma", "betty", "pebbles", "dino", "slate")


def test_unknown_numbers_of_names_are_asked_for(tmp_path: Path) -> None:
    write_story_dalle(tmp_path, num_names=2)
    with pytest.raises(LayoutError, match=r"49\.pth.*give the 2 names"), released_story_dalle(tmp_path / "49.pth"):
        pass
    with released_story_dalle(tmp_path / "49.pth", HEADS, added_names=("tutu", "popo")) as conversion:
        assert conversion.model.caption_tokenizer.added_names == ("tutu", "popo")


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    write_min_dalle(tmp_path)
    torch.save({"state_dict": taming_weights((32, 32), 1, (1,), 8, 30, 12)}, tmp_path / "1.3B" / "stage1_last.ckpt")
    with pytest.raises(LayoutError, match="24 image codes, its tokenizer 30"), min_dalle(tmp_path, HEADS):
        pass
    (tmp_path / "1.3B" / "stage1_last.ckpt").unlink()
    with pytest.raises(LayoutError, match=r"holds no stage1_last\.ckpt"), min_dalle(tmp_path, HEADS):
        pass


def test_a_target_in_use_is_refused_and_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    write_min_dalle(tmp_path)
    (tmp_path / "ours").mkdir()
    with min_dalle(tmp_path, num_heads=HEADS) as conversion:
        with pytest.raises(FileExistsError, match="exists already"):
            write_conversion(conversion, tmp_path / "ours")

        def stop(num_bytes: int) -> None:
            raise KeyboardInterrupt

        before = set(tmp_path.iterdir())
        with pytest.raises(KeyboardInterrupt):
            write_conversion(conversion, tmp_path / "others", progress=stop)
        assert set(tmp_path.iterdir()) == before


def test_every_byte_is_told_while_it_is_written(tmp_path: Path) -> None:
    write_min_dalle(tmp_path)
    told: list[int] = []
    with min_dalle(tmp_path, num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours", progress=told.append)
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert sum(told) == sum(value.nbytes for value in weights.values())
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["backbone"]["num_heads"] == HEADS


# ------------------------------------------------------------------------------------------------ min-dalle


@pytest.mark.parametrize("suffix", ["", "_mini"])
def test_a_converted_mega_has_every_tensor_of_its_files_and_draws(suffix: str, tmp_path: Path) -> None:
    files = write_mega(tmp_path, suffix)
    with mega(tmp_path, tmp_path / "last.ckpt", suffix, num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
        assert "two fine-tunings" in conversion.notes[0]
    model = StoryDALLE.from_pretrained(tmp_path / "ours")
    ours = model.model.backbone.state_dict()
    theirs = {f"encoder.{name}": value for name, value in files[f"encoder{suffix}.pt"].items()}
    theirs |= {f"decoder.{name}": value for name, value in files[f"decoder{suffix}.pt"].items()}
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.model.backbone.num_codes == 24 and model.model.backbone.start_code == 23
    drawn = model.generate(["a red square", "a blue square"], Image.new("RGB", (20, 20), "red"))
    assert [frame.size for frame in drawn.frames] == [(8, 8)] * 2


def test_a_converted_mega_reads_with_one_network_and_draws_with_the_other(tmp_path: Path) -> None:
    files = write_mega(tmp_path)
    with mega(tmp_path, tmp_path / "last.ckpt", num_heads=HEADS) as conversion:
        write_conversion(conversion, tmp_path / "ours")
    tokenizer, images = StoryDALLE.from_pretrained(tmp_path / "ours").image_tokenizer, pictures(3, 8)
    codes = tokenizer.encode(images)
    assert torch.equal(codes, Taming(files["last.ckpt"], groups=32).codes(images))
    expected = Taming(files["detoker.pt"], eps=1e-5, groups=32).pixels(codes).clamp(0, 1) * 2 - 1
    torch.testing.assert_close(tokenizer.decode(codes), expected, atol=5e-5, rtol=0)


def test_files_of_two_megas_are_refused(tmp_path: Path) -> None:
    write_mega(tmp_path, glu=32)
    told = pytest.raises(LayoutError, match="24 wide inside and the decoder 32")
    with told, mega(tmp_path, tmp_path / "last.ckpt", num_heads=HEADS):
        pass


def test_full_size_files_have_as_many_numbers_as_is_told_of_them() -> None:
    counts = [
        sum(torch.Size(shape).numel() for shape in mega_shapes(side, FULL_MEGA).values())
        for side in ("encoder", "decoder")
    ]
    assert [round(count / 1e6, 1) for count in counts] == [1110.2, 1477.7]
