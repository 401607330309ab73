"""Names of characters as words of a pretrained model: old words stay, new ones are learned in every mode of tuning."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from storydalle.models.backbones.backbone import Backbone
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.tokens.byte_level import ByteLevelTokenizer
from storydalle.tokens.caption_tokenizer import CaptionTokenizer, TextTokenizer, load_caption_tokenizer
from storydalle.training.building import story_dalle, text_to_image
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.test_byte_level import write_files
from tests.tiny import CAPTIONS, CODEBOOK, GRID, TEXT, TinyData, TinyStories, tiny_story_dalle, trainer

NAMES = ["pororo", "Loopy", "pip"]
PAPER = {"source_blocks": "all", "story_depth": 1}


def tokenizer(kind: str, folder: Path, spare: int = 2) -> TextTokenizer:
    if kind == "mega":
        vocab, merges = write_files(folder / "released")
        words = {**json.loads(vocab.read_text()), "<mask>": 0}
        vocab.write_text(json.dumps({word: i for i, word in enumerate(words)}))
        return ByteLevelTokenizer.from_files(vocab, merges, TEXT, len(words) + spare)
    return CaptionTokenizer.train(CAPTIONS, vocab_size=60, text_length=TEXT)


def pretrained(kind: str, folder: Path) -> Path:
    """A text-to-image model without names; Mega's table has two rows to spare."""
    made = tiny_story_dalle(source_blocks="none", story_depth=0)
    if kind == "mega":
        words, rows = tokenizer(kind, folder), {"image_vocab_size": CODEBOOK, "num_codes": CODEBOOK}
        sizes = {"text_length": TEXT, "image_length": GRID**2, "dim": 32, "depth": 2, "num_heads": 2}
        backbone = MegaDALLE(words.vocab_size, glu_dim=48, start_code=CODEBOOK, **rows, **sizes)
        made = StoryDALLE(made.image_tokenizer, words, retrofit(backbone, "none", story_depth=0))
    made.save_pretrained(folder / "base")
    return folder / "base"


def tables(backbone: Backbone) -> list[torch.Tensor]:
    return [table.weight.detach().clone() for table in backbone.word_tables]


@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_a_name_is_one_token_where_it_is_a_word_of_its_own(kind: str, tmp_path: Path) -> None:
    plain = tokenizer(kind, tmp_path)
    named = plain.with_names(NAMES)
    assert named.added_names == ("pororo", "loopy", "pip") and plain.added_names == ()
    assert named.added_ids == list(range(named.added_ids[0], named.added_ids[0] + 3))
    for caption, ids in (
        ("Pororo waves.", [0]),
        ("LOOPY and pororo!", [1, 0]),
        ("pip's hat, pip", [2, 2]),
        ("pororos and spip", []),
    ):
        found = named.encode([caption]).tokens[0].tolist()
        assert [index for index in found if index in named.added_ids] == [named.added_ids[i] for i in ids], caption
    told = "a hat for a boy"
    assert torch.equal(named.encode([told]).tokens, plain.encode([told]).tokens), "other words are what they were"
    assert named.decode(named.encode(["she waves at loopy and pororo"]).tokens[0]) == "she waves at loopy and pororo"
    assert named.fingerprint != plain.fingerprint


@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_a_name_that_is_known_is_not_added_twice(kind: str, tmp_path: Path) -> None:
    named = tokenizer(kind, tmp_path).with_names(["pororo"])
    again = named.with_names(["Pororo", "crong", "crong"])
    assert again.added_names == ("pororo", "crong")
    assert again.added_ids[0] == named.added_ids[0]
    assert named.with_names(["pororo"]).fingerprint == named.fingerprint
    again.save(tmp_path / "saved")
    opened = load_caption_tokenizer(tmp_path / "saved")
    assert (opened.added_ids, opened.fingerprint) == (again.added_ids, again.fingerprint)


def test_megas_names_take_rows_that_no_word_uses_and_more_where_those_do_not_suffice(tmp_path: Path) -> None:
    plain = tokenizer("mega", tmp_path)
    spare = plain.vocab_size - 2
    for names, rows in ((["pororo"], 2), (["pororo", "crong"], 2), (["a1", "b2", "c3"], 3)):
        named = plain.with_names(names)
        assert (named.added_ids[0], named.vocab_size) == (spare, spare + rows)


@pytest.mark.parametrize(("kind", "rows"), [("dalle", 3), ("mega", 1)])
def test_a_pretrained_model_gets_names_and_keeps_its_words(kind: str, rows: int, tmp_path: Path) -> None:
    folder = pretrained(kind, tmp_path)
    before = StoryDALLE.from_pretrained(folder)
    made = story_dalle(str(folder), "runs", PAPER, NAMES)
    backbone, old = made.model.backbone, before.model.backbone
    assert backbone.text_vocab_size == old.text_vocab_size + rows == made.caption_tokenizer.vocab_size
    assert backbone.config["text_vocab_size"] == backbone.text_vocab_size
    assert len(backbone.word_tables) == (2 if kind == "dalle" else 1)
    for new, kept in zip(backbone.word_tables, tables(old), strict=True):
        assert torch.equal(new.weight[: len(kept)], kept)
        fresh = new.weight[len(kept) :]
        assert fresh.shape == (rows, kept.shape[1]) and 0.01 < fresh.std().item() < 0.03
        assert new.weight.requires_grad and isinstance(new.weight, nn.Parameter)
        assert len(new.weight) == (new.num_embeddings if isinstance(new, nn.Embedding) else new.out_features)
    tokens = before.caption_tokenizer.encode(["she waves"]).tokens
    codes = torch.zeros(1, GRID**2, dtype=torch.long)
    torch.testing.assert_close(backbone(tokens, codes).image, old(tokens, codes).image)
    made.save_pretrained(tmp_path / "named")
    again = StoryDALLE.from_pretrained(tmp_path / "named")
    assert again.caption_tokenizer.added_names == ("pororo", "loopy", "pip")
    assert story_dalle(str(tmp_path / "named"), "runs", PAPER, NAMES).caption_tokenizer.added_ids == (
        again.caption_tokenizer.added_ids
    )


@pytest.mark.parametrize("tuning", ["full", "prompt", "retrofit"])
@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_names_are_learned_in_every_mode_and_frozen_words_stay_to_the_bit(
    kind: str, tuning: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    made = story_dalle(str(pretrained(kind, tmp_path)), "runs", PAPER, ["pip", "momo"])
    before = tables(made.model.backbone)
    text_weight = 1.0 if kind == "dalle" else 0.0
    options = {"text_weight": text_weight, "weight_decay": 0.1, "max_steps": 3, "train_names": True}
    system = StoryDALLETraining(made, tuning=tuning, **options)
    trainer(tmp_path, 3).fit(system, TinyData(made))
    ids = made.caption_tokenizer.added_ids
    others = [i for i in range(made.caption_tokenizer.vocab_size) if i not in ids]
    names = ["embedding", "head"]
    for name, old, new in zip(names, before, tables(made.model.backbone), strict=False):
        assert all(not torch.equal(old[i], new[i]) for i in ids), name
        is_frozen = tuning == "retrofit" or (tuning == "prompt" and name == "head")
        assert torch.equal(old[others], new[others]) == is_frozen, name


@pytest.mark.parametrize("names", [[], ["pip", "momo"]])
def test_no_row_of_a_frozen_table_trains_unless_names_are_there_and_asked_for(names: list[str], tmp_path: Path) -> None:
    made = story_dalle(str(pretrained("dalle", tmp_path)), "runs", PAPER, names)
    system = StoryDALLETraining(made, tuning="retrofit", train_names=not names)
    assert not any(table.weight.requires_grad for table in system.model.backbone.word_tables)


@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_a_fresh_backbone_of_either_kind_fits_its_tokenizers(kind: str, tmp_path: Path) -> None:
    tiny_story_dalle().image_tokenizer.save_pretrained(tmp_path / "images")
    sizes = {"dim": 32, "depth": 2, "num_heads": 2} | ({"kind": "mega", "glu_dim": 48} if kind == "mega" else {})
    made = text_to_image(
        str(tmp_path / "images"), "runs", {"vocab_size": 80, "text_length": TEXT}, TinyStories(), sizes
    )
    assert made.model.backbone.kind == kind and made.model.backbone.num_codes == CODEBOOK
    made.generate(["Pip waves."], None)
    with pytest.raises(ValueError, match="kind 'gpt' is none of dalle, mega"):
        text_to_image(str(tmp_path / "images"), "runs", {"vocab_size": 80}, TinyStories(), {"kind": "gpt"})
