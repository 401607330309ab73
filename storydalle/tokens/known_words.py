"""The words of a model's training captions. For other words it draws something, but not what is meant."""

import difflib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from storydalle.files.json_values import are_texts
from storydalle.files.reading import read_object
from storydalle.files.whole import write_text
from storydalle.mistakes import first_few

WORDS_NAME = "words.json"
MAX_NAMED = 8  # unknown words of a caption
MAX_COMPARED = 24  # unknown words of a story, for which the nearest known one is looked up
NO_MEANINGS: Mapping[str, Sequence[str]] = {}
LIKENESS, MIN_LETTERS = 0.75, 3  # of the nearest word: shorter ones are near to anything


class KnownWords(NamedTuple):
    """Words of training captions (by ``words_of``), and all names that their captions could make up by a rule."""

    words: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    @classmethod
    def read(cls, captions: Iterable[str], names: Iterable[str] = ()) -> "KnownWords":
        """The words of captions; ``names`` are names that other captions of the same kind can contain."""
        made_up = frozenset(names)
        return cls(frozenset(word for caption in captions for word in words_of(caption)) - made_up, made_up)

    def with_those_of(self, other: "KnownWords") -> "KnownWords":
        return KnownWords(self.words | other.words, self.names | other.names)

    def notes(self, captions: Sequence[str], meanings: Mapping[str, Sequence[str]] = NO_MEANINGS) -> list[str]:
        """A line for each caption with unknown words, with the known words that ``known_for`` tells for them."""
        nearest = dict[str, str]()
        notes = []
        for number, caption in enumerate(captions, start=1):
            unknown = self.unknown_in(caption)
            for word in unknown[:MAX_NAMED]:
                if len(nearest) < MAX_COMPARED and word not in nearest:
                    best = self.known_for(word, meanings)
                    nearest[word] = f" (did you mean {best}?)" if best else ""
            if unknown:
                told = first_few([f'"{word}"{nearest.get(word, "")}' for word in unknown], MAX_NAMED)
                notes.append(f"caption {number} has words that the model never read in training: {told}")
        return notes

    def unknown_in(self, caption: str) -> list[str]:
        """The unknown words of a caption, each once."""
        return [word for word in dict.fromkeys(words_of(caption)) if word not in self.words and word not in self.names]

    def known_for(self, word: str, meanings: Mapping[str, Sequence[str]] = NO_MEANINGS) -> str | None:
        """A known word to say instead: the first known one of its ``meanings``, else the nearest in writing."""
        same = next((other for other in meanings.get(word, ()) if other in self.words), None)
        return same or self._nearest(word)

    def _nearest(self, word: str) -> str | None:
        choices = sorted(known for known in self.words if len(known) >= MIN_LETTERS)
        near = difflib.get_close_matches(word, choices, n=6, cutoff=LIKENESS)
        return min(near, key=lambda known: (num_edits(word, known), abs(len(word) - len(known))), default=None)

    def save(self, folder: Path) -> None:
        lists = {"words": sorted(self.words), "names": sorted(self.names)}
        write_text(folder / WORDS_NAME, json.dumps(lists, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "KnownWords | None":
        """The words that ``save`` wrote, None if there is no file; ValueError, naming the file, for anything else."""
        file = folder / WORDS_NAME
        if not file.is_file():
            return None
        content = read_object(file)
        words, names = (content.get(name) for name in cls._fields)
        if not are_texts(words) or not are_texts(names):
            raise ValueError(f'{file} is no list of known words: it should read {{"words": [...], "names": [...]}}')
        return cls(frozenset(words), frozenset(names))


def num_edits(first: str, second: str) -> int:
    """The number of letters to insert, delete or replace (Levenshtein distance)."""
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        above, row = row, [i]
        for j, other in enumerate(second, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != other)))
    return row[-1]


def words_of(caption: str) -> list[str]:
    """The words of a text in lower case, without punctuation and "'s"; signs such as emoji are words too."""
    text = unicodedata.normalize("NFKC", caption).casefold().replace("\u2019", "'")
    kept = "".join(character if is_of_word(character) else " " for character in text)
    words = (word.strip("'").removesuffix("'s").replace("'", "") for word in kept.split())
    return [word for word in words if word]


def is_of_word(character: str) -> bool:
    """True for letters, marks on letters, digits, apostrophes, and signs such as emoji."""
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "So" or character == "'"
