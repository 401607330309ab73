"""How characters are called: by name, by kind, by a pronoun or a word for a group, only where that means them alone.

The rules are those of ``storydalle/stories/toon/people/README.md``: "they" means the cast before with those whom the
caption has named until then; "he" the one who fits, of those named, else of the cast before.
"""

from dataclasses import dataclass, field

from storydalle.stories.toon.world import CHARACTERS, GUEST, SPECIES
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.facts import Tale
from storydalle.stories.toonsv.lexicon import LITTLE, SPECIES_WORDS
from storydalle.stories.toonsv.wording import Mention, Pieces

OBJECTS = {"he": "him", "she": "her", "it": "it", "they": "them"}
OWNERS = {"he": "his", "she": "her", "it": "its", "they": "their"}
SELVES = {"he": "himself", "she": "herself", "it": "itself", "they": "themselves"}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
GENDERED = {"he": ("the boys", "boys"), "she": ("the girls", "girls")}


class UnclearError(Exception):
    """No words for a mention mean exactly those who are meant."""


@dataclass
class Discourse:
    """Who can be meant by which word at a point of a caption."""

    tale: Tale
    dice: Dice
    before: frozenset[int]  # the cast of the frame before
    seen: frozenset[int]  # of all frames before
    may_name: frozenset[int]
    appositions: dict[int, Pieces] = field(default_factory=dict)
    named: list[int] = field(default_factory=list)
    meant: set[int] = field(default_factory=set)
    subject: frozenset[int] = frozenset()
    pronoun: str = "it"  # of the subject
    is_plural: bool = False
    is_pronoun: bool = False  # the subject is told by one
    last_several: frozenset[int] = frozenset()

    @property
    def everyone(self) -> frozenset[int]:
        """Those whom "they" means now."""
        return self.before.union(self.named)

    def words_for(self, mention: Mention) -> str:
        """Return words that mean those of ``mention``, and remember them; UnclearError if there are none."""
        who = frozenset(mention.who)
        if mention.case == "pronoun":
            return self._bare_pronoun(mention.who)
        words, is_plural, pronoun = self._single(mention) if len(who) == 1 else self._several(mention)
        self.meant |= who
        if len(who) > 1:
            self.last_several = who
        if mention.case == "object":
            return words + " |"
        if mention.case == "subject":
            self.subject, self.is_plural, self.pronoun = who, is_plural, pronoun
            self.is_pronoun = words in OBJECTS
        return words

    def is_clear(self, who: int) -> bool:
        """The pronoun of a character means it here."""
        pronoun = self.tale.pronoun(who)
        fitting = {one for one in self.named if self.tale.pronoun(one) == pronoun}
        return (fitting or {one for one in self.before if self.tale.pronoun(one) == pronoun}) == {who}

    def _bare_pronoun(self, who: tuple[int, ...]) -> str:
        """The pronoun of those who were named just now."""
        if frozenset(who) != self.everyone if len(who) > 1 else not self.is_clear(who[0]):
            raise UnclearError
        return "they" if len(who) > 1 else self.tale.pronoun(who[0])

    def _single(self, mention: Mention) -> tuple[str, bool, str]:
        (who,), case = mention.who, mention.case
        pronoun = self.tale.pronoun(who)
        is_clear = self.is_clear(who) and not (case != "subject" and who in self.subject)
        if who not in self.may_name:
            words = self._unnamed(who, is_clear, case)
        elif is_clear and who in self.named and self.dice.chance(0.92 if self.subject == {who} else 0.7):
            words = _inflected(pronoun, case)
        else:
            words = self._name(who, case)
            if case == "own":
                words += "'s"
        return words, False, pronoun

    def _unnamed(self, who: int, is_clear: bool, case: str) -> str:
        pronoun = self.tale.pronoun(who)
        options = [_inflected(pronoun, case)] * 3 if is_clear else []
        if self.named and self.everyone - set(self.named) == {who} and case != "own":
            options.append("the other one")
            if len(set(self.named)) == 1:
                options.append(f"{OWNERS[self.tale.pronoun(self.named[0])]} friend")
        if not options:
            raise UnclearError
        return self.dice.pick(options)

    def _name(self, who: int, case: str) -> str:
        """The name or the kind of one, who is named now."""
        if who not in self.named:
            self.named.append(who)
        name, roll = self.tale.name(who), self.dice.random()
        if case in ("subject", "object") and who in self.appositions:
            return f"{name} , {self.appositions.pop(who)[0]} ,"
        character = self.tale.roster[who]
        if not isinstance(character, int) or character == GUEST:
            return f"little {name}" if roll > 0.96 else name
        assert CHARACTERS[character] != "guest"
        kind = SPECIES[character]
        if roll > 0.93 and case != "listed":
            return f"the {self.dice.pick(SPECIES_WORDS[kind])}"
        if roll > 0.90 and case != "listed":
            return f"the {self.dice.pick(LITTLE)} {self.dice.pick(SPECIES_WORDS[kind]).split()[-1]}"
        if roll > 0.87 and case != "own":
            return f"{name} the {kind}"
        return f"{self.dice.pick(LITTLE)} {name}" if roll > 0.85 else name

    def _several(self, mention: Mention) -> tuple[str, bool, str]:
        who, case = frozenset(mention.who), mention.case
        options = self._group_words(who, case)
        unnamed = [one for one in mention.who if one not in self.may_name]
        fresh = [one for one in mention.who if one in self.may_name and one not in self.named]
        if not fresh and options and (unnamed or self.dice.chance(0.75)):
            words = self.dice.pick(options)
            return words, not words.startswith("every") and words != "the whole gang", "they"
        if unnamed:
            return self._mixed(mention, unnamed, fresh)
        return self._listed([self._name(one, "listed") for one in self.dice.shuffled(mention.who)], case), True, "they"

    def _mixed(self, mention: Mention, unnamed: list[int], fresh: list[int]) -> tuple[str, bool, str]:
        """Some who have to be named with some who must not be, or all but one who has to be named."""
        who = frozenset(mention.who)
        absent = self.everyone - who
        if not fresh and len(absent) == 1 and absent <= self.may_name - set(self.named) and mention.case == "subject":
            name = self._name(next(iter(absent)), "object").replace(" ,", "")
            options = [f"everybody except {name}", f"everyone but {name}", f"all but {name}", f"everybody but {name}"]
            words = self.dice.pick(options)
            return words, words.startswith("all"), "they"
        named = [one for one in mention.who if one in self.may_name]
        if not named or mention.case == "own":
            parts = [self._unnamed(one, self.is_clear(one), mention.case) for one in unnamed]
            if "the other one" in parts or len(set(parts)) < len(parts):
                raise UnclearError
            return self._listed(parts, mention.case), True, "they"
        first = [self._name(one, "listed") for one in named] if self.dice.chance(0.5) else []
        rest = self.words_for(Mention(tuple(unnamed), mention.case))
        rest = rest.removesuffix(" |")
        if rest in ("they", "they all", "they both", "them", "both", "the other one") or " and " in rest:
            raise UnclearError
        parts = [*first, rest] if first else [rest, *(self._name(one, "listed") for one in named)]
        return self._listed(parts, mention.case), True, "they"

    def _group_words(self, who: frozenset[int], case: str) -> list[str]:
        """Words for a group that mean exactly these."""
        if case == "own":
            return ["their"] if who == self.everyone else []
        options: list[str] = []
        if who == self.everyone:
            options += self._all_words(len(who), case, self.last_several in (who, frozenset()))
        others = self.everyone - set(self.named)
        if self.named and who == others:
            options += ["the others", f"the other {NUMBERS[len(who)]}", "the rest", "the others"]
            if len(set(self.named)) == 1:
                options.append(f"{OWNERS[self.tale.pronoun(self.named[0])]} friends")
        for pronoun, (words, noun) in GENDERED.items():
            fitting = {one for one in self.seen.union(self.named) if self.tale.pronoun(one) == pronoun}
            if who == fitting:
                options += [words, f"both {noun}" if len(who) == 2 else f"the {NUMBERS[len(who)]} {noun}"]
        return options

    def _all_words(self, size: int, case: str, is_last: bool) -> list[str]:
        number = NUMBERS[size]
        if case == "subject":
            plain = ["they"] * 6 if is_last else []
            some = ["both", "both of them", "they both", "the two", "both friends"]
            many = [f"all {number}", f"all {number} of them", "they all", "everybody", "everyone", "all of them"]
            many += ["the whole gang", "everybody"]
        else:
            plain = ["them"] * 4 if is_last else []
            some = ["both of them", "the two", "them both"]
            many = ["all of them", "everybody", "them all", f"all {number}"]
        return [*plain, *(some if size == 2 else many), f"the {number} of them", f"the {number} friends"]

    def _listed(self, parts: list[str], case: str) -> str:
        if len(parts) == 1:
            return parts[0]
        if case == "subject" and len(parts) == 2 and self.dice.chance(0.04):
            return f"both {' and '.join(parts)}"
        last = " , and " if len(parts) > 2 and self.dice.chance(0.2) else " and "
        words = " , ".join(parts[:-1]) + last + parts[-1]
        return words + "'s" if case == "own" else words


def _inflected(pronoun: str, case: str) -> str:
    return {"subject": {}, "object": OBJECTS, "own": OWNERS, "self": SELVES}[case].get(pronoun, pronoun)
