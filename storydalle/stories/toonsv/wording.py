"""Pieces of a sentence before its words are chosen: who is meant, verbs without an ending, the ends of clauses."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

from storydalle.stories.toon.assertions import Fact


class Mention(NamedTuple):
    """Characters, to be called by names or by words that mean them.

    ``case``: subject (the verbs after it agree with it), object, own (Pip's, his), or self.
    """

    who: tuple[int, ...]
    case: str


class Subject(NamedTuple):
    """Words that are a subject and mean nobody."""

    words: str
    is_plural: bool = False


class Verb(NamedTuple):
    """A verb by its base, and its form: simple, progressive, perfect, gerund, participle or base."""

    base: str
    form: str


class Own(NamedTuple):
    """The possessive of the subject (``is_self`` false), or himself, herself, itself, themselves."""

    is_self: bool = False


class Told(NamedTuple):
    """The end of a clause that tells these facts."""

    facts: tuple[Fact, ...]


Piece: TypeAlias = str | Mention | Subject | Verb | Own | Told
Pieces: TypeAlias = list[Piece]


LATER_FORMS = {"progressive": "gerund", "perfect": "participle"}  # of the second verb of two


class Predicate(NamedTuple):
    """A verb with what follows it, in no form yet: verbs have the form ``simple``."""

    pieces: tuple[Piece, ...]
    is_state: bool  # has no progressive

    def in_form(self, form: str) -> Pieces:
        """Return the pieces with their verbs in a form: is sitting and thinking. "Being" is left out."""
        pieces: Pieces = []
        for piece in self.pieces:
            if isinstance(piece, Verb):
                pieces += [] if (piece.base, form) == ("be", "gerund") else [Verb(piece.base, form)]
                form = LATER_FORMS.get(form, form)
            else:
                pieces.append(piece)
        return pieces


class Slot(NamedTuple):
    """A place in a phrase of the lexicon for other pieces."""

    name: str


Slots: TypeAlias = Mapping[str, Sequence[Piece]]
NO_SLOTS: Slots = {}


@cache
def _read(phrase: str) -> tuple[Piece | Slot, ...]:
    """The words of a phrase of the lexicon; those after "+" are verbs."""
    return tuple(_piece_of(word) for word in phrase.split(" "))


def _piece_of(word: str) -> Piece | Slot:
    if word.startswith("+"):
        return Verb(word[1:], "simple")
    if word in ("{own}", "{self}"):
        return Own(word == "{self}")
    return Slot(word[1:-1]) if word.startswith("{") else word


@cache
def _with_verb(phrase: str) -> str:
    """A phrase whose first word is its verb, if no other is marked as one: wave hello; clap and +cheer; now +wear."""
    is_marked = "+" in phrase and not re.search(r" and \+", phrase)
    return phrase if is_marked else f"+{phrase}"


def _filled(pieces: Sequence[Piece | Slot], slots: Slots) -> Pieces:
    filled: Pieces = []
    for piece in pieces:
        if isinstance(piece, Slot):
            filled += slots[piece.name]
        else:
            filled.append(piece)
    return filled


def predicate(phrase: str, slots: Slots = NO_SLOTS) -> Predicate:
    """Return a phrase of the lexicon as a predicate, with what stands in its slots."""
    pieces = _filled(_read(_with_verb(phrase.removeprefix("~"))), slots)
    return Predicate(tuple(pieces), is_state=phrase.startswith("~"))


def modifier(phrase: str, slots: Slots = NO_SLOTS) -> Pieces:
    """Return a phrase without a verb ("with {thing} in hand") as pieces."""
    return _filled(_read(phrase), slots)


def clause(phrase: str) -> Pieces:
    """Return a phrase of the lexicon that is a whole clause ("the sun +rise") as pieces."""
    subject, _, rest = phrase.removeprefix("~").partition(" +")
    return [Subject(subject, subject.endswith("stars")), *_filled(_read(f"+{rest}"), NO_SLOTS)]
