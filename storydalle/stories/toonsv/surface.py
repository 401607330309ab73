"""From pieces to text: who is called how, endings of verbs, capital letters, punctuation, contractions."""

import re
from typing import NamedTuple

from storydalle.stories.toon.assertions import Fact
from storydalle.stories.toonsv.clauses import Voice
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.inflection import forms_of
from storydalle.stories.toonsv.lexicon import LITTLE
from storydalle.stories.toonsv.reference import OWNERS, SELVES, Discourse, UnclearError
from storydalle.stories.toonsv.wording import Mention, Own, Pieces, Subject, Verb

BAD = re.compile(
    r"\b(?:he|she|it|they|both|everybody|everyone|gang|all), who\b"  # relative clauses follow names
    r"|\b(?:except|but) [^,.]*, who\b"
    r"|\b(?:he|she|it|they) (?:too|as well)\b"
    r"|\b(?:then|now|there) now\b"
    r"|\b(?:here|along|there) (?:comes?|came|is|was) (?:he|she|it)\b"
    r"|\b(?:when|while|as|because|since|after|once|now that|who) (?:there is|here|along|now here)\b"
    r"|\b(?:when|while|as|because|after|once|now that|since),? (?:after|while|when|as)\b"
    r"|\b(while|and then|because|when|meanwhile|who|so|again)\b[^.!?\"]*\b\1\b"
    r"|^(?:while|as|when|after|once|now that|as soon as)\b[^,.]*;"
    r"|\" \w+ (?:he|she|it)\b",
    re.IGNORECASE,
)
CONTRACTIONS = tuple(
    (re.compile(pattern), short)
    for pattern, short in (
        (r"\b(is|are|was|were|does|do|did) not\b", r"\1n't"),
        (r"\b(he|she|it|He|She|It|there|here|There|Here) is\b", r"\1's"),
        (r"\b(they|They) are\b", r"\1're"),
        (r"\b([A-Z][a-z]+) is (?=\w+ing\b)", r"\1's "),
    )
)


class Segment(NamedTuple):
    """Words of a caption with the facts that they tell."""

    words: str
    facts: tuple[Fact, ...]


def spell(pieces: Pieces, discourse: Discourse, voice: Voice) -> list[Segment]:
    """Return the words of the pieces, from left to right, by the facts that they tell."""
    segments: list[Segment] = []
    words: list[str] = []
    pending: Verb | None = None  # agrees with the subject that follows
    for piece in pieces:
        if isinstance(piece, str):
            words.append(piece)
        elif isinstance(piece, Mention):
            mentioned = discourse.words_for(piece)
            if pending:
                words.append(_inflected(pending, discourse, voice))
                pending = None
            words.append(mentioned)
        elif isinstance(piece, Verb):
            if piece.form == "of next":
                pending = piece
            else:
                words.append(_inflected(piece, discourse, voice))
        elif isinstance(piece, Own):
            words.append((SELVES if piece.is_self else OWNERS)[discourse.pronoun])
        elif isinstance(piece, Subject):
            words.append(piece.words)
            discourse.subject, discourse.is_plural, discourse.pronoun = frozenset(), piece.is_plural, "it"
        else:
            segments.append(Segment(" ".join(words), piece.facts))
            words = []
    if words:
        segments.append(Segment(" ".join(words), ()))
    return segments


def _inflected(verb: Verb, discourse: Discourse, voice: Voice) -> str:
    forms, plural, past = forms_of(verb.base), discourse.is_plural, voice.is_past
    if verb.form in ("simple", "of next"):
        if verb.base == "be":
            return _be(plural, past)
        return forms.past if past else forms.base if plural else forms.third
    if verb.form == "progressive":
        return forms.gerund if voice.is_terse and not discourse.is_pronoun else f"{_be(plural, past)} {forms.gerund}"
    if verb.form == "perfect":
        return f"{'had' if past else 'have' if plural else 'has'} {forms.participle}"
    return {"gerund": forms.gerund, "participle": forms.participle, "base": forms.base}[verb.form]


def _be(plural: bool, past: bool) -> str:
    return ("were" if plural else "was") if past else ("are" if plural else "is")


_INSIDE_QUOTES = re.compile(r'" *([^"]*?) *"')
_BEFORE_MARK = re.compile(r" +([,.;:!?])")
_SUBJECT = rf"(?=[A-Z]|(?:the|he|she|it|they|both|all|every\w+|{'|'.join(LITTLE)}) )"
_OBJECT_AND_SUBJECT = re.compile(r" \| and " + _SUBJECT)  # "|" ends an object
_OBJECT_BEFORE_CLAUSE = re.compile(r" \| , " + _SUBJECT)
_DOUBLE_MARK = re.compile(r",(?:\s*,)+")
_COMMA_AND_STOP = re.compile(r",\s*([.;:!?])")
_START = re.compile(r"(^|[.!?]\s+(?:\")?)(\"?[a-z])")


def finished(sentences: list[list[Segment]], dice: Dice, voice: Voice) -> str:
    """Return a caption: its sentences with their punctuation, as the voice of the story has it."""
    texts = [tidy(" ".join(segment.words for segment in sentence)) for sentence in sentences]
    for text in texts:
        if BAD.search(text):
            raise UnclearError
    ends = ["!" if dice.chance(0.06) else "." for _ in texts]
    whole = " ".join(text if text[-1] in '.!?"' else text + end for text, end in zip(texts, ends, strict=True))
    whole = _START.sub(lambda match: match[1] + match[2].upper(), whole)
    if voice.contracts:
        for pattern, short in CONTRACTIONS:
            whole = pattern.sub(short, whole)
    if voice.is_lower:
        whole = whole.lower()
    return whole if voice.has_stop else whole.rstrip(".")


def tidy(text: str) -> str:
    """Return text with its marks where they belong."""
    text = _OBJECT_BEFORE_CLAUSE.sub(" ; ", " ".join(text.split()))
    text = _OBJECT_AND_SUBJECT.sub(" , and ", text).replace(" |", "").strip(", ")
    text = _DOUBLE_MARK.sub(",", _BEFORE_MARK.sub(r"\1", text))
    return _INSIDE_QUOTES.sub(r'"\1"', _COMMA_AND_STOP.sub(r"\1", text))
