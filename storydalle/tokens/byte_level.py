"""Captions <-> token ids in the format of DALL-E Mega: byte-level byte-pair encoding between ``<s>`` and ``</s>``."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase, Replace
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence
from torch import Tensor

from storydalle.files.json_values import JsonObject, as_int, as_list
from storydalle.files.reading import read_object
from storydalle.tokens.caption_tokenizer import (
    MAX_TEXT_LENGTH,
    MERGES_HEADER,
    BytePairTokenizer,
    EncodedCaptions,
)

START, END, UNK, PAD = "<s>", "</s>", "<unk>", "<pad>"
SPACE = "Ġ"  # a space ahead of a piece
AS_PICTURE, JOINER = "\ufe0f", "\u200d"  # between emoji: the one before is a picture, and one with the next


class ByteLevelTokenizer(BytePairTokenizer):
    """Byte-pair encoding of captions as in min-dalle: ``<s> pieces </s>``, filled up with id 1 to ``text_length``.

    Each word with its punctuation is lower-cased and merged as a whole, after the mark of a space. Characters beyond
    ASCII are dropped, but with ``spells_emoji`` an emoji becomes its name (``spelled``). An empty caption is ``<s>
    </s>``. ``vocab_size`` is the number of rows of the backbone's table, if that is more than the vocabulary needs
    (Mega: 50272).

    Each of ``added_names`` is a token with an id after those of the vocabulary, in the given order: they use unused
    rows first, then new ones. They match whole words in any case.
    """

    kind = "byte_level"
    pad_id = 1  # what min-dalle's encoder masks, whatever the vocabulary says

    def __init__(
        self,
        tokenizer: Tokenizer,
        text_length: int = 64,
        vocab_size: int | None = None,
        added_names: Sequence[str] = (),
        spells_emoji: bool = False,
    ) -> None:
        self.added_names = tuple(name.lower() for name in added_names)
        add_names(tokenizer, self.added_names)
        ids = tokenizer.get_vocab()
        for token in (START, END, UNK):
            if token not in ids:
                raise ValueError(f"the vocabulary lacks {token}: it is not one of min-dalle")
        needed = max(ids.values()) + 1
        if len(set(ids.values())) < len(ids):
            raise ValueError("two entries of the vocabulary share an id: they are rows of a table")
        if (other := tokenizer.id_to_token(self.pad_id)) not in (None, PAD):
            raise ValueError(f"id {self.pad_id} is {other!r} in the vocabulary, where min-dalle's is padding")
        if vocab_size is not None and vocab_size < needed:
            raise ValueError(f"vocab_size={vocab_size}: the vocabulary has ids up to {needed - 1}")
        if not 3 <= text_length <= MAX_TEXT_LENGTH:
            raise ValueError(
                f"text_length={text_length}: a caption has 1 to {MAX_TEXT_LENGTH - 2} tokens between {START} and {END}"
            )
        self.text_length, self.spells_emoji = text_length, spells_emoji
        self.start_id, self.end_id = ids[START], ids[END]
        self._vocab_size = needed if vocab_size is None else vocab_size
        self._tokenizer = tokenizer

    @classmethod
    def from_files(
        cls,
        vocab_json: str | Path,
        merges_txt: str | Path,
        text_length: int = 64,
        vocab_size: int | None = None,
        spells_emoji: bool = True,
    ) -> "ByteLevelTokenizer":
        """Read min-dalle's vocabulary and merges, or others in GPT-2's layout, to be used in the same way."""
        try:
            vocab = {word: as_int(index) for word, index in read_object(Path(vocab_json)).items()}
            merges = read_merges(Path(merges_txt).read_text(encoding="utf-8"))
            bpe = BPE(vocab, merges, unk_token=UNK)
            return cls(byte_level_bpe(bpe), text_length, vocab_size, spells_emoji=spells_emoji)
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise ValueError(f"{vocab_json} and {merges_txt} are not a vocabulary and its merges: {error}") from error

    @staticmethod
    def bare(model: BPE) -> Tokenizer:
        return byte_level_bpe(model)

    def own_settings(self) -> dict[str, object]:
        settings: dict[str, object] = {"vocab_size": self.vocab_size}
        settings |= {"added_names": list(self.added_names)} if self.added_names else {}
        return settings | ({"spells_emoji": True} if self.spells_emoji else {})

    @classmethod
    def reader(cls, config: JsonObject) -> Callable[[Tokenizer], "ByteLevelTokenizer"]:
        text_length, vocab_size = as_int(config["text_length"]), as_int(config["vocab_size"])
        names, spells = [*map(str, as_list(config.get("added_names", [])))], bool(config.get("spells_emoji", False))
        return lambda tokenizer: cls(tokenizer, text_length, vocab_size, names, spells)

    @property
    def added_ids(self) -> list[int]:
        first = self._tokenizer.get_vocab_size(with_added_tokens=False)
        return list(range(first, first + len(self.added_names)))

    def with_names(self, names: Sequence[str]) -> "ByteLevelTokenizer":
        names = (*self.added_names, *self.unknown_names(names))
        bare = byte_level_bpe(self._tokenizer.model)
        num_rows = max(self.vocab_size, bare.get_vocab_size() + len(names))
        return ByteLevelTokenizer(bare, self.text_length, num_rows, names, self.spells_emoji)

    @property
    def fingerprint(self) -> str:
        told = [self.kind, self._tokenizer.to_str(), self.text_length, self.vocab_size]
        text = json.dumps(told + ["spells_emoji"] * self.spells_emoji)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def encode(self, captions: Sequence[str]) -> EncodedCaptions:
        """A caption that is too long loses its last pieces.

        Differs from min-dalle: the end token is kept. There it is cut off.
        """
        tokens = torch.full((len(captions), self.text_length), self.pad_id, dtype=torch.long)
        limit, overflow = self.text_length - 2, []
        texts = [spelled(caption) for caption in captions] if self.spells_emoji else list(captions)
        for i, encoding in enumerate(self._tokenizer.encode_batch(texts)):
            if len(encoding.ids) > limit:
                overflow.append((i, len(encoding.ids) - limit))
            ids = [self.start_id, *encoding.ids[:limit], self.end_id]
            tokens[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return EncodedCaptions(tokens, len(overflow), overflow)

    def decode(self, ids: Int[Tensor, " t"] | Sequence[int]) -> str:
        """Lower-cased words between single spaces; padding, start and end are left out."""
        pieces = []
        names = dict(zip(self.added_ids, self.added_names, strict=True))
        for index in map(int, ids):
            piece = self._tokenizer.id_to_token(index) if 0 <= index < self.vocab_size else None
            piece = SPACE + names[index] if index in names else piece
            if index in (self.pad_id, self.start_id, self.end_id):
                continue
            if piece is None:
                raise ValueError(f"token {index} is no entry of the vocabulary, whose table has {self.vocab_size} rows")
            pieces.append(piece)
        return self._tokenizer.decoder.decode(pieces).strip()


def spelled(caption: str) -> str:
    """A caption with names in place of emoji, in min-dalle's form: "dog_face", without spaces around.

    Differs from min-dalle: names are from the Unicode standard ("slice_of_pizza"), not from its annotations ("pizza"),
    which the package that min-dalle uses has. Nearly two thirds of single emoji have the same name in both; for joined
    emoji the parts are named here. Skin tones, flags, and emoji unknown to this version of Python are dropped.
    """
    if caption.isascii():
        return caption

    def names(match: re.Match[str]) -> str:
        found = [unicodedata.name(letter, "") for letter in match[0] if letter not in (AS_PICTURE, JOINER)]
        return "_".join(filter(None, found)).lower().replace(" ", "_")

    return emoji().sub(names, caption)


@cache
def emoji() -> re.Pattern[str]:
    """One emoji, or several joined into one."""
    letters = "".join(map(chr, (*range(0xA9, 0x3300), *range(0x1F000, 0x1FB00))))
    others = set(Replace(Regex(r"[\p{Emoji}&&\p{Extended_Pictographic}]"), "").normalize_str(letters))
    one = "[" + "".join(letter for letter in letters if letter not in others) + "]"
    return re.compile(f"{one}(?:{AS_PICTURE}?{JOINER}{one})*")


def add_names(tokenizer: Tokenizer, names: Sequence[str]) -> None:
    """Add names as tokens; ValueError if one has a token already, or is given twice."""
    num_words = tokenizer.get_vocab_size()
    for i, name in enumerate(names):
        # Captions are lower-cased, so that no piece of the vocabulary is a name in capitals and would lend its id.
        is_new = tokenizer.add_tokens([AddedToken(name.upper(), single_word=True, normalized=True)]) == 1
        if not is_new or tokenizer.token_to_id(name.upper()) != num_words + i:
            raise ValueError(f"added name {name!r} is given twice or has no letters: give each name once")


def byte_level_bpe(model: BPE) -> Tokenizer:
    """A tokenizer that splits only at white space and puts a space before every word, also the first one.

    Differs from min-dalle: line breaks and tabs separate words as spaces do. There they become unknown tokens.
    """
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = NormalizerSequence([Lowercase(), Replace(Regex(r"[^\x00-\x7f]"), "")])
    tokenizer.pre_tokenizer = PreTokenizerSequence(
        [WhitespaceSplit(), ByteLevel(add_prefix_space=True, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def read_merges(text: str) -> list[tuple[str, str]]:
    """Pairs of pieces, the first to be merged first.

    Differs from min-dalle: the first and the last line are skipped by their content (a version, nothing), not by their
    position, so no merge is lost if one of them is missing.
    """
    merges = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith(MERGES_HEADER)):
            continue
        pair = line.split()
        if len(pair) != 2:
            raise ValueError(f"line {number} of the merges is no pair of pieces: {line!r}")
        merges.append((pair[0], pair[1]))
    return merges
