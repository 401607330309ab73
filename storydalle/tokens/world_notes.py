"""Notes on captions for a model of a drawn world: characters, guests and actions that its frames cannot show."""

import difflib
import re
from collections.abc import Sequence
from itertools import chain, pairwise

from storydalle.mistakes import first_few
from storydalle.stories.drawn_worlds import World
from storydalle.stories.toon.names import NAMED, possible_names
from storydalle.stories.toon.world import ACTIONS, SHAPES
from storydalle.stories.toonsv.vocabulary import forms_of_actions, meanings
from storydalle.tokens.known_words import LIKENESS, MAX_COMPARED, MAX_NAMED, KnownWords, words_of

# A verb comes after these, as after names.
SUBJECTS = frozenset(("he", "she", "it", "they", "both", "everybody", "everyone", "is", "are"))
NEAR = 8  # letters before a word, in which the end of the sentence before is looked for
_WORD = re.compile(r"[^\W\d_]+")
_STARTS = re.compile(r"(^|[.!?:;])\W*$")  # what stands before the first word of a sentence


class WorldNotes:
    """Notes on a story for a world and for the words that a model of it knows."""

    def __init__(self, world: World, known: KnownWords, captions: Sequence[str], has_source: bool) -> None:
        self.world, self.known, self.captions, self.has_source = world, known, captions, has_source
        self.guest_names = frozenset(possible_names())
        self.strangers = [self.strangers_in(caption) for caption in captions]

    def lines(self) -> list[str]:
        """A line for each caption that names too many, then about guests, then about actions; then where to look."""
        notes = [*self._crowds(), *self._guests(), *self._lacking()]
        if any(self.known.unknown_in(caption) for caption in self.captions):
            notes.append(f"storydalle prepare data={self.world.name} words=true prints the words of {self.world.title}")
        return notes

    def _crowds(self) -> list[str]:
        notes, most = [], self.world.most_shown
        for number, (caption, strangers) in enumerate(zip(self.captions, self.strangers, strict=True), start=1):
            names = [word for word in dict.fromkeys(words_of(caption)) if word in NAMED or word in self.guest_names]
            names += strangers
            if len(names) > most:
                told = first_few([name.capitalize() for name in names], MAX_NAMED)
                notes.append(
                    f"caption {number} names {len(names)} characters ({told}), but a frame of {self.world.title} shows "
                    f"at most {most}: do not expect all of them"
                )
        return notes

    def _guests(self) -> list[str]:
        """On guests that nothing shows, on more guests than a story has, and on names that no guest has."""
        strangers = list(dict.fromkeys(chain.from_iterable(self.strangers)))
        words = dict.fromkeys(word for caption in self.captions for word in words_of(caption))
        guests = [*(word for word in words if word in self.guest_names), *strangers]
        told, title = first_few([name.capitalize() for name in guests], MAX_NAMED), self.world.title
        is_described = not words.keys().isdisjoint(self.known.words.intersection(SHAPES))
        notes = []
        if len(guests) > self.world.most_guests:
            notes.append(
                f"the captions name {len(guests)} guests ({told}), but a story of {title} has at most "
                f"{self.world.most_guests}"
            )
        if guests and not self.has_source and not is_described:
            notes.append(f"only a source shows how guests look ({told}), and none is given: their look is made up")
        elif strangers:
            named = first_few([name.capitalize() for name in strangers], MAX_NAMED)
            notes.append(f"no character of {title} is called {named}: only a guest that the source shows can be meant")
        return notes

    def _lacking(self) -> list[str]:
        """On words where a verb is expected that are no action of the world, and mean none."""
        told = zip(self.captions, self.strangers, strict=True)
        candidates = list(dict.fromkeys(word for each in told for word in self._unknown_verbs(*each)))
        lacking = [word for word in candidates[:MAX_COMPARED] if self.known.known_for(word, meanings()) is None]
        if not lacking:
            return []
        named = first_few([f'"{word}"' for word in lacking], MAX_NAMED)
        return [
            f"{self.world.title} has no other actions than {', '.join(ACTIONS)}: {named} will not be drawn as meant"
        ]

    def _unknown_verbs(self, caption: str, strangers: list[str]) -> list[str]:
        """Unknown words that follow a name, a pronoun, "is" or "are"."""
        words, unknown = words_of(caption), set(self.known.unknown_in(caption))
        subjects = {*SUBJECTS, *NAMED, *self.guest_names, *strangers}
        return [
            word
            for before, word in pairwise(words)
            if before in subjects and word in unknown and word not in strangers and not word.endswith("ly")
        ]

    def strangers_in(self, caption: str) -> list[str]:
        """Names in a caption that are no words of the model: capitalised ones, at the start only before a verb."""
        found = dict[str, None]()
        for match in _WORD.finditer(caption):
            word, before = match[0].casefold(), caption[max(0, match.start() - NEAR) : match.start()]
            is_name = match[0].istitle() and len(word) > 1 and word not in meanings() and word not in self.guest_names
            if is_name and self.known.unknown_in(word) and not difflib.get_close_matches(word, NAMED, 1, LIKENESS):
                following = _WORD.search(caption, match.end())
                if not _STARTS.search(before) or (following is not None and is_of_name(following[0].casefold())):
                    found[word] = None
        return list(found)


def is_of_name(word: str) -> bool:
    """True for a word that goes on after a name: a verb of an action, "is" or "and"."""
    return word in ("and", "is") or word in forms_of_actions()
