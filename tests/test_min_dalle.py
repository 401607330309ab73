"""A converted DALL-E Mega draws as min-dalle does: super-conditioning, an epsilon of its own, emoji by their names."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from storydalle.commands.main import main
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.sampling import FrameKey
from storydalle.released.conversion import mega, write_conversion
from storydalle.released.release import mega_release, write_release
from storydalle.tokens.byte_level import ByteLevelTokenizer, spelled
from storydalle.tokens.caption_tokenizer import load_caption_tokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.training.building import story_dalle
from tests.released_tokenizers import Taming
from tests.test_byte_level import released_ids, write_files
from tests.test_conversion import HEADS, Weights, write_mega


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Weights]]:
    """A folder with min-dalle's files, what they hold, and what they were converted to below ``ours``."""
    folder = tmp_path_factory.mktemp("mega")
    files = write_mega(folder)
    with mega(folder, folder / "last.ckpt", num_heads=HEADS) as conversion:
        write_conversion(conversion, folder / "ours")
    return folder, files


# ------------------------------------------------------------------------------------------------ super-conditioning


def supercondition(model: StoryDALLE, caption: str, factor: float) -> list[int]:
    """min-dalle's loop with one candidate a step: beside the caption's row one of nothing but start and end."""
    rows = model.caption_tokenizer.encode([caption, ""]).tokens
    codes = torch.zeros(2, 0, dtype=torch.long)
    backbone, length = model.model.backbone, model.model.backbone.image_length
    for step in range(length):
        padded = torch.cat([codes, torch.zeros(2, length - step, dtype=torch.long)], 1)
        captioned, empty = backbone(rows, padded).image[:, step]
        mixed = empty * (1 - factor) + captioned * factor
        codes = torch.cat([codes, mixed.argmax().expand(2, 1)], 1)
    return codes[0].tolist()


def test_a_converted_mega_draws_with_the_superconditioning_of_its_program(
    released: tuple[Path, dict[str, Weights]],
) -> None:
    model = StoryDALLE.from_pretrained(released[0] / "ours")
    drawn = {}
    for guidance in (1.0, 16.0):
        greedy = model.sampling(temperature=0.0, guidance=guidance)
        tokens = model.caption_tokenizer.encode(["a red hat"]).tokens[None]
        drawn[guidance] = model.draw(tokens, None, [FrameKey(0, 0, 0)], sampling=greedy).codes.flatten().tolist()
        assert drawn[guidance] == supercondition(model, "a red hat", guidance)
    assert drawn[1.0] != drawn[16.0]


@pytest.mark.parametrize("suffix", ["", "_mini"])
def test_a_converted_mega_draws_with_a_factor_of_16_by_default(suffix: str, tmp_path: Path) -> None:
    write_mega(tmp_path, suffix)
    with mega(tmp_path, tmp_path / "last.ckpt", suffix, HEADS) as conversion:
        settings = conversion.model.sampling()
    assert (settings.guidance, settings.top_k, settings.temperature) == (16.0, 256, 1.0)


def test_a_training_on_a_mega_draws_without_guidance_until_it_has_dropped_captions_of_its_own(
    released: tuple[Path, dict[str, Weights]],
) -> None:
    made = story_dalle(str(released[0] / "ours"), "runs", {"source_blocks": "all", "story_depth": 1})
    settings = made.sampling()
    assert (settings.guidance, settings.top_k) == (1.0, 256)
    with pytest.raises(ValueError, match="not trained for guidance"):
        made.sampling(guidance=16.0)


def test_guidance_is_taken_from_the_command_line(
    released: tuple[Path, dict[str, Weights]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text("a red square\n")
    Image.new("RGB", (20, 20), "red").save("frame.png")
    asked = ("captions=story.txt", "source=frame.png", "out=strip", "guidance=16")
    assert main(["generate", f"model={released[0] / 'ours'}", *asked]) == 0


# ------------------------------------------------------------------------------------------------ detokenizer


def test_the_detokenizer_has_its_programs_epsilon_and_the_encoder_tamings(
    released: tuple[Path, dict[str, Weights]],
) -> None:
    folder, files = released
    tokenizer = StoryDALLE.from_pretrained(folder / "ours").image_tokenizer
    assert [tokenizer.config[half]["norm_eps"] for half in ("tokenizer", "detokenizer")] == [1e-6, 1e-5]
    codes = torch.arange(16)[None] % 24
    right, other = (Taming(files["detoker.pt"], eps, groups=32).pixels(codes).clamp(0, 1) for eps in (1e-5, 1e-6))
    ours = (tokenizer.decode(codes) + 1) / 2
    assert (ours - right).abs().max() < 0.25 * (other - right).abs().max(), "nearer to the one by far"


def test_models_saved_before_keep_the_epsilon_that_they_were_saved_with(
    released: tuple[Path, dict[str, Weights]],
) -> None:
    config = json.loads((released[0] / "ours" / "config.json").read_text())["image_tokenizer"]
    config["detokenizer"]["norm_eps"] = 1e-6
    assert ImageTokenizer.from_config(config).config["detokenizer"]["norm_eps"] == 1e-6
    del config["detokenizer"]["norm_eps"]
    assert ImageTokenizer.from_config(config).config["detokenizer"]["norm_eps"] == 1e-6


def test_there_and_back_is_the_same_detokenizer(released: tuple[Path, dict[str, Weights]], tmp_path: Path) -> None:
    with mega_release(released[0] / "ours") as release:
        write_release(release, tmp_path / "theirs")
    with mega(tmp_path / "theirs", tmp_path / "theirs" / "last.ckpt", num_heads=HEADS) as conversion:
        again = conversion.model
    assert again.image_tokenizer.config["detokenizer"]["norm_eps"] == 1e-5
    ours = load_caption_tokenizer(released[0] / "ours" / "captions")
    assert again.caption_tokenizer.fingerprint == ours.fingerprint


# ------------------------------------------------------------------------------------------------ emoji


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a 🐶 waves", "a dog_face waves"),  # as the package says that min-dalle asks
        ("🐱🐶!", "cat_facedog_face!"),
        ("she is 😀.", "she is grinning_face."),
        ("it is 🔥", "it is fire"),
        ("it is 30° ★ №1 日本", "it is 30° ★ №1 日本"),
        ("👩\u200d🚀 and 🐶\ufe0f", "woman_rocket and dog_face\ufe0f"),
        ("plain #1 * 2", "plain #1 * 2"),
    ],
)
def test_an_emoji_is_spelled_and_other_signs_are_left(caption: str, said: str) -> None:
    assert spelled(caption) == said


def test_a_converted_mega_reads_an_emoji_as_its_name(released: tuple[Path, dict[str, Weights]]) -> None:
    folder = released[0]
    ours = StoryDALLE.from_pretrained(folder / "ours").caption_tokenizer
    for tokenizer in (ours, ours.with_names(["pip"])):
        assert torch.equal(*tokenizer.encode(["a 🐶", "a dog_face"]).tokens)
    files = folder / "vocab.json", folder / "merges.txt"
    long = ByteLevelTokenizer.from_files(*files)
    for caption, same in (("a 🐶 here", "a dog_face here"), ("fire 🔥!", "fire fire!"), ("café 30°", "café 30°")):
        tokens = long.encode([caption]).tokens[0]
        assert tokens[tokens != 1].tolist() == released_ids(files, same)


def test_tokenizers_saved_before_still_drop_emoji(tmp_path: Path) -> None:
    files = write_files(tmp_path / "released")
    new = ByteLevelTokenizer.from_files(*files)
    old = ByteLevelTokenizer.from_files(*files, spells_emoji=False)
    assert new.fingerprint != old.fingerprint
    assert torch.equal(*old.encode(["a 🐶 b", "a b"]).tokens)
    for tokenizer, said in ((new, {"spells_emoji": True}), (old, {})):
        tokenizer.save(tmp_path / "saved")
        config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
        assert config == {"kind": "byte_level", "text_length": 64, "vocab_size": 331} | said
        assert load_caption_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint
