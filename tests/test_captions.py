"""Caption tokenizer: minDALL-E's files read unchanged, names that match whole words, nothing lost in silence."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers.implementations import CharBPETokenizer

from storydalle.tokens.caption_tokenizer import CaptionTokenizer

RELEASED = Path(__file__).parents[1] / "../shared/data/bpe-16k"
VOCAB, MERGES = RELEASED / "bpe-16k-vocab.json", RELEASED / "bpe-16k-merges.txt"
released = pytest.mark.skipif(not VOCAB.exists(), reason="minDALL-E's bpe-16k files are not beside the repository")
CAPTIONS = ["Pip waves at Momo on the beach.", "She puts on a red hat!", "They run, and Pip's hat flies away."] * 4


@pytest.fixture(scope="module")
def trained() -> CaptionTokenizer:
    return CaptionTokenizer.train(CAPTIONS, vocab_size=160, text_length=24, added_names=("Pip", "Momo"))


def ids(tokenizer: CaptionTokenizer, caption: str) -> list[int]:
    """The tokens of a caption without its padding."""
    tokens = tokenizer.encode([caption]).tokens[0]
    return tokens[tokens != tokenizer.pad_id].tolist()


@released
def test_the_released_files_give_the_released_ids():
    ours = CaptionTokenizer.from_files(VOCAB, MERGES)
    theirs = CharBPETokenizer(str(VOCAB), str(MERGES), unk_token="[UNK]", lowercase=True)
    for caption in ("A RED fox, sleeping!", "mr. O'Neil's 3 dinosaurs", "Ünïcode — 日本 🙂", "xqzzv"):
        assert ids(ours, caption) == theirs.encode(caption).ids


@released
def test_padding_lies_inside_the_released_vocabulary():
    tokenizer = CaptionTokenizer.from_files(VOCAB, MERGES)
    assert tokenizer.vocab_size == 16384
    assert 0 <= tokenizer.pad_id < 16384
    assert tokenizer.encode(["a fox"]).tokens.shape == (1, 64)


@released
def test_released_names_take_rows_after_the_vocabulary_and_match_whole_words():
    # "dino" is a piece of the released vocabulary: its row must not be lent to the name.
    tokenizer = CaptionTokenizer.from_files(VOCAB, MERGES, added_names=("fred", "dino", "Eddy"))
    assert tokenizer.vocab_size == 16387
    assert ids(tokenizer, "Dino, dino and EDDY")[::2] == [16385, 16385, 16386]
    bare = CaptionTokenizer.from_files(VOCAB, MERGES)
    for caption in ("a dinosaur", "alfred", "teddy"):
        assert ids(tokenizer, caption) == ids(bare, caption)


def test_names_are_single_tokens_after_the_pieces(trained: CaptionTokenizer):
    assert ids(trained, "pip PIP Pip's momo")[:3] == [trained.vocab_size - 2] * 3
    assert ids(trained, "Momo!")[0] == trained.vocab_size - 1
    assert max(ids(trained, "pippin momos")) < trained.vocab_size - 2


def test_captions_that_differ_by_case_alone_have_the_same_ids(trained: CaptionTokenizer):
    assert ids(trained, "Pip WAVES") == ids(trained, "pip waves")


def test_decoding_restores_lower_cased_words(trained: CaptionTokenizer):
    for caption in ("pip waves at momo on the beach .", "she puts on a red hat !", "quizzical zebras , 42 % ?"):
        assert trained.decode(trained.encode([caption]).tokens[0]) == caption


def test_any_word_of_letters_can_be_spelled(trained: CaptionTokenizer):
    unknown = trained.encode(["[UNK] 日"]).tokens[0].tolist()
    for letter in "abcdefghijklmnopqrstuvwxyz0123456789":
        assert trained.decode(ids(trained, f"{letter}x x{letter}")) == f"{letter}x x{letter}"
    assert trained.decode(unknown).endswith("[UNK]")


def test_padding_written_by_a_user_is_text(trained: CaptionTokenizer):
    assert len(ids(trained, "[PAD]")) >= 3


def test_an_empty_caption_is_all_padding(trained: CaptionTokenizer):
    encoded = trained.encode(["", "pip"])
    assert (encoded.tokens[0] == trained.pad_id).all()
    assert (encoded.tokens[1] == trained.pad_id).sum() == 23
    assert trained.decode(encoded.tokens[0]) == ""


def test_no_captions_are_an_empty_batch(trained: CaptionTokenizer):
    assert trained.encode([]).tokens.shape == (0, 24)


def test_a_caption_that_is_too_long_is_cut_and_said(trained: CaptionTokenizer):
    encoded = trained.encode(["pip", "momo " * 30, "pip " * 24, "pip " * 25])
    assert encoded.num_truncated == 2
    assert encoded.overflow == [(1, 6), (3, 1)]
    assert (encoded.tokens[1] == trained.vocab_size - 1).all()


def test_a_caption_alone_equals_its_row(trained: CaptionTokenizer):
    together = trained.encode(CAPTIONS).tokens
    assert torch.equal(together, torch.cat([trained.encode([caption]).tokens for caption in CAPTIONS]))


def test_a_tokenizer_trained_twice_gives_the_same_tokens(trained: CaptionTokenizer):
    for _ in range(5):
        again = CaptionTokenizer.train(iter(CAPTIONS), vocab_size=160, text_length=24, added_names=("Pip", "Momo"))
        assert torch.equal(again.encode(CAPTIONS).tokens, trained.encode(CAPTIONS).tokens)
    assert trained.vocab_size == 162


def test_saved_and_loaded_are_equal(trained: CaptionTokenizer, tmp_path: Path):
    trained.save(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json"}
    loaded = CaptionTokenizer.load(tmp_path)
    assert (loaded.vocab_size, loaded.pad_id, loaded.text_length) == (162, trained.pad_id, 24)
    assert torch.equal(loaded.encode(CAPTIONS).tokens, trained.encode(CAPTIONS).tokens)
    assert loaded.decode(loaded.encode(["Pip waves"]).tokens[0]) == "pip waves"


@pytest.mark.parametrize("wrong", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [None, "", "no json", "[1, 2]", '{"text_length": 8}'])
def test_a_wrong_file_is_named_in_one_line(trained: CaptionTokenizer, tmp_path: Path, wrong: str, content: str | None):
    trained.save(tmp_path)
    (tmp_path / wrong).unlink()
    if content is not None:
        (tmp_path / wrong).write_text(content)
    with pytest.raises(ValueError) as error:
        CaptionTokenizer.load(tmp_path)
    assert str(tmp_path / wrong) in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_released_files_are_named_in_one_line(tmp_path: Path):
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    merges.write_text("#version: 0.2\n")
    for content in (None, "{", json.dumps({"[UNK]": 0, "a": 1}), json.dumps({"[PAD]": 0, "[UNK]": 7})):
        if content is not None:
            vocab.write_text(content)
        with pytest.raises(ValueError) as error:
            CaptionTokenizer.from_files(vocab, merges)
        assert str(vocab) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [("pip", "PIP"), ("",)])
def test_names_that_cannot_be_told_apart_are_refused(names: tuple[str, ...]):
    with pytest.raises(ValueError, match="added name"):
        CaptionTokenizer.train(CAPTIONS, vocab_size=150, added_names=names)


def test_foreign_ids_and_lengths_are_refused(trained: CaptionTokenizer):
    with pytest.raises(ValueError, match="token 162 lies outside the vocabulary of 162"):
        trained.decode([0, 162])
    for length in (0, 2**31):
        with pytest.raises(ValueError, match=f"text_length={length}: a caption has 1 to 1024 tokens"):
            CaptionTokenizer.train(CAPTIONS, vocab_size=150, text_length=length)
