"""DALL-E Mega's caption tokenizer: min-dalle's ids from files in GPT-2's layout, and an end that is never lost."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from storydalle.tokens.byte_level import ByteLevelTokenizer
from storydalle.tokens.caption_tokenizer import CaptionTokenizer, load_caption_tokenizer

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
LEARNED = ["pip waves at momo on the beach.", "she puts on a red hat!", "they run, and pip's hat flies away."] * 4
CAPTIONS = ["Pip WAVES at Momo.", "She's got 3 hats; it's (really) red!", "", "  two   spaces ", "zebra", "Pip"]


def write_files(folder: Path) -> tuple[Path, Path]:
    """vocab.json and merges.txt as GPT-2 has them: a version ahead of the merges, a line break at their end."""
    trainer = BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    tokenizer.train_from_iterator(LEARNED, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = map(Path, tokenizer.model.save(str(folder)))
    vocab.write_text(json.dumps({**json.loads(vocab.read_text()), "<mask>": 330}, ensure_ascii=False))
    assert merges.read_text().startswith("#version: 0.2\n")
    assert merges.read_text().endswith("\n")
    return vocab, merges


def tiny_tokenizer(folder: Path, text_length: int = 16, spare: int = 0) -> ByteLevelTokenizer:
    """A tokenizer from freshly written files; ``spare`` rows of the table belong to no token."""
    return ByteLevelTokenizer.from_files(*write_files(folder / "released"), text_length, 331 + spare)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_files(tmp_path / "released")


def ids(tokenizer: ByteLevelTokenizer, caption: str) -> list[int]:
    tokens = tokenizer.encode([caption]).tokens[0]
    return tokens[tokens != 1].tolist()


def released_ids(files: tuple[Path, Path], caption: str) -> list[int]:
    """min-dalle's encoding, restated: each word behind the mark of a space, the earliest merge first, until none."""
    vocab = json.loads(files[0].read_text(encoding="utf-8"))
    order = [tuple(line.split(" ")) for line in files[1].read_text(encoding="utf-8").split("\n")[1:-1]]
    words = "".join(letter for letter in caption.lower() if ord(letter) < 128).split(" ")
    found = [vocab["<s>"]]
    for word in filter(None, words):
        pieces = ["Ġ", *word]
        while True:
            known = [(order.index(pair), i) for i, pair in enumerate(pairwise(pieces)) if pair in order]
            if not known:
                break
            _, at = min(known)
            pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
        found += [vocab.get(piece, vocab["<unk>"]) for piece in pieces]
    return [*found, vocab["</s>"]]


@pytest.mark.parametrize("caption", [*CAPTIONS, "café ÜBER 日本 naïve", "İstanbul", "a</s> <s> <pad>"])
def test_a_caption_has_the_ids_that_min_dalle_gives_it(files: tuple[Path, Path], caption: str):
    assert ids(ByteLevelTokenizer.from_files(*files, text_length=64), caption) == released_ids(files, caption)


def test_a_word_is_merged_with_its_punctuation(files: tuple[Path, Path]):
    vocab, (version, *merges) = json.loads(files[0].read_text()), files[1].read_text().split("\n")
    files[0].write_text(json.dumps(vocab | {"h.": 331}))
    files[1].write_text("\n".join([version, "h .", *merges]))
    found = ids(ByteLevelTokenizer.from_files(*files), "beach. h.")
    assert found.count(331) == 2
    assert found == released_ids(files, "beach. h.")


def test_a_word_is_put_together_by_the_merges_of_the_file(files: tuple[Path, Path]):
    assert len(ids(ByteLevelTokenizer.from_files(*files), "Pip")) == 3


def test_a_caption_stands_between_start_and_end_before_padding_of_id_1(files: tuple[Path, Path]):
    tokenizer = ByteLevelTokenizer.from_files(*files)
    tokens = tokenizer.encode(["pip", ""]).tokens
    assert tokenizer.pad_id == 1
    assert tokens.shape == (2, 64)
    assert tokens[0, 0] == 0 and tokens[0, 2] == 2
    assert (tokens[0, 3:] == 1).all()
    assert tokens[1].tolist() == [0, 2] + [1] * 62


def test_a_caption_that_is_too_long_keeps_its_end_and_the_cut_is_said(tmp_path: Path):
    """The released code loses the end token of such captions (facts: G5)."""
    tokenizer = tiny_tokenizer(tmp_path, text_length=8)
    encoded = tokenizer.encode(["pip " * 6, "pip " * 7, "pip", "pip " * 20])
    pip = ids(tokenizer, "pip")[1]
    assert encoded.tokens[0].tolist() == encoded.tokens[1].tolist() == [0, *[pip] * 6, 2]
    assert encoded.overflow == [(1, 1), (3, 14)]
    assert encoded.num_truncated == 2


def test_white_space_of_any_kind_separates_words(files: tuple[Path, Path]):
    tokenizer = ByteLevelTokenizer.from_files(*files)
    assert ids(tokenizer, "pip\nwaves\t at  momo\r\n") == ids(tokenizer, "pip waves at momo")


def test_decoding_restores_lower_cased_words(files: tuple[Path, Path]):
    tokenizer = ByteLevelTokenizer.from_files(*files)
    for caption in ("pip waves at momo on the beach.", "quizzical zebras, 42 % (of them)?", "a</s> <s>", ""):
        assert tokenizer.decode(tokenizer.encode([caption]).tokens[0]) == caption
    assert tokenizer.decode(tokenizer.encode(["A  RED\nhat"]).tokens[0]) == "a red hat"


def test_a_caption_alone_equals_its_row(files: tuple[Path, Path]):
    tokenizer = ByteLevelTokenizer.from_files(*files)
    together = tokenizer.encode(CAPTIONS).tokens
    assert torch.equal(together, torch.cat([tokenizer.encode([caption]).tokens for caption in CAPTIONS]))
    assert tokenizer.encode([]).tokens.shape == (0, 64)


def test_rows_of_the_table_that_no_token_uses_are_counted(files: tuple[Path, Path]):
    assert ByteLevelTokenizer.from_files(*files).vocab_size == 331
    wide = ByteLevelTokenizer.from_files(*files, vocab_size=340)
    assert wide.vocab_size == 340
    with pytest.raises(ValueError, match="token 335 is no entry of the vocabulary, whose table has 340 rows"):
        wide.decode([0, 335])
    with pytest.raises(ValueError, match="vocab_size=330: the vocabulary has ids up to 330"):
        ByteLevelTokenizer.from_files(*files, vocab_size=330)


@pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1)])
def test_no_merge_is_lost_without_a_version_or_a_line_break_at_the_end(files: tuple[Path, Path], cut: slice):
    whole = ByteLevelTokenizer.from_files(*files)
    lines = files[1].read_text().split("\n")
    files[1].write_text("\n".join(lines[cut]))
    assert ByteLevelTokenizer.from_files(*files).fingerprint == whole.fingerprint


def test_saved_and_loaded_are_equal(tmp_path: Path):
    tokenizer = tiny_tokenizer(tmp_path, spare=5)
    tokenizer.save(tmp_path / "saved")
    for loaded in (ByteLevelTokenizer.load(tmp_path / "saved"), load_caption_tokenizer(tmp_path / "saved")):
        assert isinstance(loaded, ByteLevelTokenizer)
        assert (loaded.vocab_size, loaded.text_length, loaded.pad_id) == (336, 16, 1)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert torch.equal(loaded.encode(CAPTIONS).tokens, tokenizer.encode(CAPTIONS).tokens)
        assert loaded.decode(loaded.encode(["Pip waves"]).tokens[0]) == "pip waves"


def test_the_fingerprint_tells_apart_what_gives_other_tokens(tmp_path: Path):
    prints = {tiny_tokenizer(tmp_path, *sizes).fingerprint for sizes in ((16, 0), (17, 0), (16, 1))}
    assert len(prints) == 3


def test_the_opener_finds_the_class_and_takes_old_folders_for_the_first_kind(tmp_path: Path):
    words = CaptionTokenizer.train(LEARNED, vocab_size=160, text_length=24)
    words.save(tmp_path)
    assert load_caption_tokenizer(tmp_path).fingerprint == words.fingerprint
    config = tmp_path / "tokenizer_config.json"
    old = json.loads(config.read_text())
    assert old.pop("kind") == "words"
    config.write_text(json.dumps(old))
    assert isinstance(load_caption_tokenizer(tmp_path), CaptionTokenizer)
    assert CaptionTokenizer.load(tmp_path).fingerprint == words.fingerprint
    with pytest.raises(ValueError, match="'words' is not of kind 'byte_level'"):
        ByteLevelTokenizer.load(tmp_path)
    tiny_tokenizer(tmp_path).save(tmp_path / "other")
    with pytest.raises(ValueError, match="'byte_level' is not of kind 'words'"):
        CaptionTokenizer.load(tmp_path / "other")


@pytest.mark.parametrize("wrong", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [None, "", "no json", "[1, 2]", '{"kind": "runes"}', '{"kind": "byte_level"}'])
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, wrong: str, content: str | None):
    tiny_tokenizer(tmp_path).save(tmp_path)
    (tmp_path / wrong).unlink()
    if content is not None:
        (tmp_path / wrong).write_text(content)
    with pytest.raises(ValueError) as error:
        load_caption_tokenizer(tmp_path)
    assert str(tmp_path / wrong) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("{", "", "not a vocabulary"),
        ('{"a": 0}', "", "lacks <s>"),
        ('{"<s>": 0, "a": 1, "</s>": 2, "<unk>": 3}', "", "id 1 is 'a'"),
        ('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4}', "#version: 0.2\na\n", "line 2 of the merges"),
        ('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4}', "a a\n", "aa"),
    ],
)
def test_wrong_released_files_are_named_in_one_line(tmp_path: Path, vocab: str, merges: str, message: str):
    files = tmp_path / "vocab.json", tmp_path / "merges.txt"
    files[0].write_text(vocab)
    files[1].write_text(merges)
    with pytest.raises(ValueError, match=message) as error:
        ByteLevelTokenizer.from_files(*files)
    assert str(files[0]) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_length_without_room_for_a_token_is_refused(files: tuple[Path, Path]):
    with pytest.raises(ValueError, match="text_length=2"):
        ByteLevelTokenizer.from_files(*files, text_length=2)


@pytest.mark.parametrize("length", [2, 2**31])
def test_captions_of_no_or_of_endless_tokens_are_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(ValueError, match=f"text_length={length}: a caption has 1 to 1022 tokens"):
        tiny_tokenizer(tmp_path, text_length=length)
