"""Light errors of typing: letters that change places, are left out, come twice or are taken for their neighbours."""

import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType

from storydalle.stories.toonsv import clauses, lexicon, predicates, reference, sentences, whereabouts
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.inflection import forms_of

SHARE = 0.06  # of captions with a slip
SHORTEST = 4  # letters of a word that can have one
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
WRITTEN_OUT = (
    "because everybody everyone except whole gang friend friends live lives lived asks asked"  # that stand in no list
)
_WORD = re.compile(r"[A-Za-z]+")


def slipped(caption: str, names: frozenset[str], dice: Dice) -> str:
    """Return a caption with one or two slips, in words that are no names and become no other word."""
    for _ in range(1 if dice.chance(0.8) else 2):
        words = [
            match for match in _WORD.finditer(caption) if len(match[0]) >= SHORTEST and match[0].lower() not in names
        ]
        if not words:
            break
        word = dice.pick(words)
        typed = _mistyped(word[0], dice)
        if typed.lower() not in known_words() | names:
            caption = caption[: word.start()] + typed + caption[word.end() :]
    return caption


def _mistyped(word: str, dice: Dice) -> str:
    """A word with one slip, not in its first letter."""
    at = 1 + dice.pick(range(len(word) - 2))
    before, letter, after = word[:at], word[at], word[at + 1 :]
    row = next((row for row in ROWS if letter in row), letter)
    near = row[max(0, row.index(letter) - 1)] if letter in row else letter
    return dice.pick(
        (before + after[0] + letter + after[1:], before + after, before + 2 * letter + after, before + near + after)
    )


@cache
def known_words() -> frozenset[str]:
    """Return all forms of all words of the grammar, in lower case."""
    words = set(WRITTEN_OUT.split())
    for module in (clauses, lexicon, predicates, reference, sentences, whereabouts):
        for phrase in phrases_of(module):
            for word in re.findall(r"[a-z]+", phrase.lower()):
                words |= {word, *forms_of(word)}
    return frozenset(words)


def phrases_of(module: ModuleType) -> Iterator[str]:
    """Yield all strings in the constants of a module."""
    todo = [value for name, value in vars(module).items() if name.isupper()]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, tuple):
            todo += value
