"""Captions <-> token ids: the interface of all caption tokenizers, and the encoding of minDALL-E's 16k vocabulary."""

import hashlib
import json
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, NotRequired, TypedDict, TypeVar

import torch
from jaxtyping import Int
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import BPEDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from storydalle.files.json_values import JsonObject, as_int, as_list, as_object
from storydalle.files.reading import read_object
from storydalle.files.registry import Registry
from storydalle.files.text import parsed
from storydalle.files.whole import write_text

PAD, UNK, END_OF_WORD = "[PAD]", "[UNK]", "</w>"
MERGES_HEADER = "#version"
TOKENIZER_NAME, CONFIG_NAME = "tokenizer.json", "tokenizer_config.json"
MAX_TEXT_LENGTH = 1024  # a row of tokens takes its memory whether a caption fills it or not


class EncodedCaptions(NamedTuple):
    """Token ids of captions, and what did not fit."""

    tokens: Int[Tensor, "b t"]  # padded with pad_id
    num_truncated: int  # captions that lost tokens
    overflow: list[tuple[int, int]]  # (index of a caption, number of tokens cut off its end)


class TextTokenizer(ABC):
    """Captions to rows of ``text_length`` token ids below ``vocab_size``, padded with ``pad_id``, and back."""

    kind: ClassVar[str]  # names the class in files
    text_length: int
    pad_id: int
    added_names: tuple[str, ...]  # words that are tokens of their own beside a vocabulary, in lower case

    @property
    @abstractmethod
    def added_ids(self) -> list[int]:
        """The tokens of ``added_names``, in their order."""

    @abstractmethod
    def with_names(self, names: Sequence[str]) -> "TextTokenizer":
        """A tokenizer with these names added; names that it has already keep their ids."""

    def unknown_names(self, names: Sequence[str]) -> list[str]:
        """Those of the names that are not added yet, each once."""
        return [name for name in dict.fromkeys(name.lower() for name in names) if name not in self.added_names]

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The number of rows that a table of token embeddings needs."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of everything that tokens depend on."""

    @abstractmethod
    def encode(self, captions: Sequence[str]) -> EncodedCaptions:
        """Tokens of captions, independent of each other; an empty caption is allowed."""

    @abstractmethod
    def decode(self, ids: Int[Tensor, " t"] | Sequence[int]) -> str:
        """The caption of tokens, without padding."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write what ``load_caption_tokenizer`` reads."""

    @abstractmethod
    def to_files(self) -> tuple[str, str]:
        """The texts of ``vocab.json`` and ``merges.txt``, from which ``from_files`` makes the same vocabulary."""

    @classmethod
    @abstractmethod
    def load(cls, folder: str | Path) -> "TextTokenizer":
        """Read what ``save`` wrote; ValueError, naming the file, where it is missing or foreign."""


Made = TypeVar("Made", bound="BytePairTokenizer")


class BytePairTokenizer(TextTokenizer):
    """A tokenizer of the ``tokenizers`` library: how it is written, read again, and turned into the released files."""

    _tokenizer: Tokenizer
    _vocab_size: int

    @staticmethod
    @abstractmethod
    def bare(model: BPE) -> Tokenizer:
        """A tokenizer of this kind around a vocabulary, without added names."""

    @abstractmethod
    def own_settings(self) -> dict[str, object]:
        """Settings beside the length of a caption, as ``reader`` gets them back."""

    @classmethod
    @abstractmethod
    def reader(cls: type[Made], config: JsonObject) -> Callable[[Tokenizer], Made]:
        """Read the saved settings, and return what makes a tokenizer with them."""

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / TOKENIZER_NAME, self.bare(self._tokenizer.model).to_str(pretty=True))
        config = {"kind": self.kind, "text_length": self.text_length, **self.own_settings()}
        write_text(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")

    def to_files(self) -> tuple[str, str]:
        """Without the added names, which the released files cannot hold."""
        return vocabulary_and_merges(self._tokenizer)

    @classmethod
    def load(cls: type[Made], folder: str | Path) -> Made:
        file = Path(folder) / CONFIG_NAME
        try:
            config = read_config(file)
            if config["kind"] != cls.kind:
                raise ValueError(f"a caption tokenizer of kind {config['kind']!r} is not of kind {cls.kind!r}")
            made = cls.reader(config)
            file = Path(folder) / TOKENIZER_NAME
            return made(Tokenizer.from_file(str(file)))
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise ValueError(f"{file} is not a caption tokenizer: {error!r}") from error


class CaptionOptions(TypedDict):
    """The options of ``CaptionTokenizer.train``."""

    vocab_size: int
    text_length: NotRequired[int]
    added_names: NotRequired[Sequence[str]]


class CaptionTokenizer(BytePairTokenizer):
    """Byte-pair encoding of captions, padded or cut to ``text_length``; there is neither a start nor an end token.

    Each of ``added_names`` is a token, with an id after those of the vocabulary, in the given order. They match whole
    words in any case. Differs from the paper's released code: there a name also matches inside words ("dino" in
    "dinosaur"), and a name that is a piece of the vocabulary keeps that piece's id, although the table gets a row for
    it. ``names_as_released`` does the same as that code, for models that it trained.
    """

    kind = "words"

    def __init__(
        self,
        tokenizer: Tokenizer,
        text_length: int = 64,
        added_names: Sequence[str] = (),
        names_as_released: bool = False,
    ) -> None:
        ids = tokenizer.get_vocab(with_added_tokens=False)
        for token in (PAD, UNK):
            if token not in ids:
                raise ValueError(f"the vocabulary lacks {token}: it is not one of this project or of minDALL-E")
        if sorted(ids.values()) != list(range(len(ids))):
            raise ValueError(f"the vocabulary's ids are not 0 to {len(ids) - 1}, each once: they are rows of a table")
        if not 1 <= text_length <= MAX_TEXT_LENGTH:
            raise ValueError(f"text_length={text_length}: a caption has 1 to {MAX_TEXT_LENGTH} tokens")
        self.text_length = text_length
        self.added_names = tuple(name.lower() for name in added_names)
        self.pad_id = ids[PAD]
        self.names_as_released = names_as_released
        self._tokenizer = tokenizer
        # Capitals occur in no lower-cased vocabulary, where "dino" may be a piece that would lend its id.
        contents = [name if names_as_released else name.upper() for name in self.added_names]
        for i, (name, content) in enumerate(zip(self.added_names, contents, strict=True)):
            tokenizer.add_tokens([AddedToken(content, single_word=not names_as_released, normalized=True)])
            index = tokenizer.token_to_id(content)
            may_be = index is not None if names_as_released else index == len(ids) + i
            if not may_be or contents.count(content) > 1:
                raise ValueError(f"added name {name!r} is given twice or has no letters: give each name once")
        every = tokenizer.get_vocab()
        self._added_ids = [every[content] for content in contents]
        self._vocab_size = len(ids) + len(contents)

    @classmethod
    def train(
        cls, captions: Iterable[str], vocab_size: int, text_length: int = 64, added_names: Sequence[str] = ()
    ) -> "CaptionTokenizer":
        """Learn at most ``vocab_size`` pieces, without added names; letters, digits and punctuation are among them."""
        captions = list(captions)
        tokenizer = char_bpe(BPE(unk_token=UNK, end_of_word_suffix=END_OF_WORD))
        written = "".join(set("".join(captions)) | set(string.ascii_letters + string.digits + string.punctuation))
        alphabet = sorted(set(tokenizer.normalizer.normalize_str(written)) - {" "})
        trainer = BpeTrainer(
            vocab_size=vocab_size,
            # Characters at the end of a word are pieces of their own. Named here, all of them are known, and their
            # ids do not hang on the library's order of words, which differs from run to run.
            special_tokens=[PAD, UNK, *alphabet, *(character + END_OF_WORD for character in alphabet)],
            end_of_word_suffix=END_OF_WORD,
            show_progress=False,
        )
        tokenizer.train_from_iterator(captions, trainer)
        return cls(char_bpe(tokenizer.model), text_length, added_names)

    @classmethod
    def from_files(
        cls,
        vocab_json: str | Path,
        merges_txt: str | Path,
        text_length: int = 64,
        added_names: Sequence[str] = (),
        names_as_released: bool = False,
    ) -> "CaptionTokenizer":
        """Read minDALL-E's vocabulary and merges, or others of that format."""
        try:
            bpe = BPE.from_file(str(vocab_json), str(merges_txt), unk_token=UNK, end_of_word_suffix=END_OF_WORD)
            return cls(char_bpe(bpe), text_length, added_names, names_as_released)
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise ValueError(f"{vocab_json} and {merges_txt} are not a vocabulary and its merges: {error}") from error

    @staticmethod
    def bare(model: BPE) -> Tokenizer:
        return char_bpe(model)

    def own_settings(self) -> dict[str, object]:
        released: dict[str, object] = {"names_as_released": True} if self.names_as_released else {}
        return {"added_names": list(self.added_names), **released}

    @classmethod
    def reader(cls, config: JsonObject) -> Callable[[Tokenizer], "CaptionTokenizer"]:
        text_length, added_names = as_int(config["text_length"]), [*map(str, as_list(config["added_names"]))]
        as_released = bool(config.get("names_as_released", False))
        return lambda tokenizer: cls(tokenizer, text_length, added_names, as_released)

    @property
    def added_ids(self) -> list[int]:
        return self._added_ids

    def with_names(self, names: Sequence[str]) -> "CaptionTokenizer":
        names = (*self.added_names, *self.unknown_names(names))
        return CaptionTokenizer(char_bpe(self._tokenizer.model), self.text_length, names, self.names_as_released)

    @property
    def fingerprint(self) -> str:
        text = json.dumps([self._tokenizer.to_str(), self.text_length, self.added_names])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def encode(self, captions: Sequence[str]) -> EncodedCaptions:
        """An empty caption is all padding."""
        tokens = torch.full((len(captions), self.text_length), self.pad_id, dtype=torch.long)
        overflow = []
        for i, encoding in enumerate(self._tokenizer.encode_batch(list(captions))):
            ids = encoding.ids
            if len(ids) > self.text_length:
                overflow.append((i, len(ids) - self.text_length))
                ids = ids[: self.text_length]
            tokens[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return EncodedCaptions(tokens, len(overflow), overflow)

    def decode(self, ids: Int[Tensor, " t"] | Sequence[int]) -> str:
        """Lower-cased words between single spaces, punctuation apart; padding is left out."""
        names = dict(zip(self.added_ids, self.added_names, strict=True))
        text = ""
        for index in map(int, ids):
            piece = self._tokenizer.id_to_token(index) if 0 <= index < self.vocab_size else None
            if piece is None:
                raise ValueError(f"token {index} lies outside the vocabulary of {self.vocab_size} entries")
            if index in names:
                text += names[index] + " "
            elif index != self.pad_id:
                text += piece.replace(END_OF_WORD, " ")
        return text.strip()


def char_bpe(model: BPE) -> Tokenizer:
    """A tokenizer that splits at spaces and punctuation and lower-cases, as minDALL-E's does."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = NormalizerSequence([BertNormalizer(lowercase=False), Lowercase()])
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = BPEDecoder(suffix=END_OF_WORD)
    return tokenizer


def vocabulary_and_merges(tokenizer: Tokenizer) -> tuple[str, str]:
    """The contents of a byte-pair tokenizer's two files, in GPT-2's layout."""
    model = as_object(as_object(parsed(tokenizer.to_str()))["model"])
    merges = "".join(f"{first} {second}\n" for first, second in map(as_list, as_list(model["merges"])))
    # min-dalle drops the first line and what follows the last line break, whatever they are.
    return json.dumps(model["vocab"], ensure_ascii=False), f"{MERGES_HEADER}: 0.2\n{merges}"


def load_caption_tokenizer(folder: str | Path) -> TextTokenizer:
    """The tokenizer that ``save`` wrote, of any kind; ValueError, naming the file, if there is none."""
    file = Path(folder) / CONFIG_NAME
    try:
        found, _ = CAPTION_TOKENIZERS.split(read_object(file))
    except ValueError as error:
        raise ValueError(f"{file} is not a caption tokenizer: {error!r}") from error
    return found.load(folder)


def read_config(file: Path) -> JsonObject:
    """The settings of a saved tokenizer; older folders, which name no kind, have the first kind."""
    return {"kind": CAPTION_TOKENIZERS.unnamed} | read_object(file)


CAPTION_TOKENIZERS: Registry[TextTokenizer] = Registry(
    "a caption tokenizer",
    {
        "words": "storydalle.tokens.caption_tokenizer.CaptionTokenizer",
        "byte_level": "storydalle.tokens.byte_level.ByteLevelTokenizer",
    },
    unnamed="words",  # once there was no other
)
