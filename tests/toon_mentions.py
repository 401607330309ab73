"""Whom the words of a caption of ToonSV 2 mean, by the rules of ``people/README.md``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.toon_words import COLORS, LEMMAS, NUMBERS, SPECIES_NOUNS, THING_NOUNS

PRONOUNS = {"he": "he", "him": "he", "she": "she", "her": "she", "it": "it"}
OWNERS = {"his": "he", "her": "she", "its": "it"}
ADJECTIVES = {"little", "small", "dear", "good", "sweet", "brave", "young", "cute", "baby", "tiny", "brown"}
ITEMS = {"hat": "hat", "cap": "hat"} | {noun: prop for prop, nouns in THING_NOUNS.items() for noun in nouns.split()}
OWNED = {"own", "hand", "hands", "arm", "arms", "leg", "legs", "eyes", "head", "might", "home", "hats", "things"}
OWNED |= {*ITEMS, *" ".join(COLORS.values()).split(), "friend", "friends", "feet", "ears"}
DUMMY = re.compile(
    r"it (?:is|was|gets?|got|grows?|grew|turns?|turned|becomes?|became)(?: (?:almost|broad|late|at|to|quite)){0,2} "
    r"(?:\w*day\w*|\w*night\w*|dark|pitch-dark|light|dusk|sunset|evening|morning|late)\b"
)
BEFORE_OBJECTS = set(
    [
        "to",
        "with",
        "without",
        "by",
        "from",
        "on",
        "of",
        "join",
        "meet",
        "give",
        "hand",
        "pass",
        "lend",
        "bring",
        "let",
        "visit",
        "see",
        "leave",
        "offer",
    ]
)


@dataclass(frozen=True)
class Person:
    name: str
    pronoun: str

    @property
    def is_guest(self) -> bool:
        return self.pronoun == "it"

    @property
    def nouns(self) -> set[str]:
        return set() if self.is_guest else set(SPECIES_NOUNS[self.name.lower()].split())


@dataclass(frozen=True)
class Mention:
    """Who is meant by words of a caption; ``is_subject`` unless a verb or a preposition governs them."""

    who: frozenset[str]
    is_subject: bool


def words_of(caption: str, names: Sequence[str]) -> list[str]:
    """The words and marks of a caption in lower case, without what is spoken, and without contractions."""
    text = re.sub(r'"[^"]*"', " ", caption.lower())
    text = re.sub(r"n't\b", " not", re.sub(r"'re\b", " are", text))
    text = re.sub(r"\b(he|she|it|here|there)'s\b", r"\1 is", text)
    named = "|".join((*names, "everyone", "everybody", "friend", "one", "gang"))
    text = re.sub(rf"\b({named})'s (?=\w+ing\b)", r"\1 is ", text)
    return re.findall(r"'s|[a-z]+(?:-[a-z]+)*|[.,;:!?]", text)


class Mentions:
    """Reads one caption: its words become lemmas, marks, things ("ITEM_ball") and mentions ("<0>")."""

    def __init__(self, people: Sequence[Person], before: frozenset[str], seen: frozenset[str]) -> None:
        self.people = {person.name.lower(): person for person in people}
        self.before, self.seen = before, seen
        self.named: list[str] = []
        self.found: list[Mention] = []
        self.owners: list[set[str]] = []  # whom each his, her, its and their would mean if not the subject

    def read(self, caption: str) -> list[str]:
        words = words_of(caption, [*self.people])
        out: list[str] = []
        at = 0
        while at < len(words):
            who, end = self._phrase(words, at)
            if who and end > at:
                governor = out[-1] if out else ""
                self.found.append(Mention(frozenset(who), governor not in BEFORE_OBJECTS))
                out.append(f"<{len(self.found) - 1}>")
                at = self._after_apposition(words, end, who)
            else:
                out.append(self._lemma(words, at))
                at += 1
        return out

    def _lemma(self, words: list[str], at: int) -> str:
        word = words[at]
        if word in ITEMS and not (word == "rose" and words[at - 1] in ("sun", "he", "she")):
            return f"ITEM_{ITEMS[word]}"
        if word in OWNERS or word == "their":
            pronoun = OWNERS.get(word, word)
            self.owners.append(self._fitting(pronoun, self.named) or self._fitting(pronoun, self.before))
            return word
        if word == "gone" and words[at - 1] in ("is", "was", "are", "were", "still"):
            return word
        if word in ("left", "waves", "beginning") and at and words[at - 1] == "the":
            return word
        return LEMMAS.get(word, word)

    def _phrase(self, words: list[str], at: int) -> tuple[set[str], int]:
        """Those whom a phrase beginning here means, and where it ends; nobody if it is none."""
        both = words[at] == "both" and at + 1 < len(words) and words[at + 1] not in ("of", "boys", "girls", "friends")
        who, end = self._simple(words, at + 1) if both else (set[str](), at)
        if not who:
            who, end = self._simple(words, at)
        if not who:
            return who, at
        commas = 0
        while True:  # A and B; A, B and C; A, B, and C
            link = 1 if words[end : end + 1] in (["and"], [","]) else 0
            if words[end : end + 2] == [",", "and"] and commas:
                link = 2
            if not link:
                return who, end
            is_last = words[end + link - 1] == "and"
            if not is_last and not self._goes_on(words, end + 1):
                return who, end
            saved = list(self.named)
            more, after = self._simple(words, end + link)
            if not more:
                self.named = saved
                return who, end
            who, end, commas = who | more, after, commas + (not is_last)
            if is_last:
                return who, end

    def _goes_on(self, words: list[str], at: int) -> bool:
        """A list goes on after a comma: another mention, then a comma or and, then a mention."""
        saved = list(self.named)
        try:
            while True:
                more, end = self._simple(words, at)
                if not more:
                    return False
                if words[end : end + 2] == [",", "and"]:
                    return bool(self._simple(words, end + 2)[0])
                if words[end : end + 1] == ["and"]:
                    return bool(self._simple(words, end + 1)[0])
                if words[end : end + 1] != [","]:
                    return False
                at = end + 1
        finally:
            self.named = saved

    def _simple(self, words: list[str], at: int) -> tuple[set[str], int]:
        """A phrase without "and"."""
        for read in (self._named, self._pronoun, self._group):
            who, end = read(words, at)
            if who:
                return who, end
        return set(), at

    def _named(self, words: list[str], at: int) -> tuple[set[str], int]:
        """Pip; little Pip; Pip the chick; the chick; the little chick."""
        end = at
        is_definite = words[end : end + 1] == ["the"]
        end += is_definite
        while end < len(words) and words[end] in ADJECTIVES:
            end += 1
        if end >= len(words):
            return set(), at
        for name, person in self.people.items():
            if (words[end] == name and not is_definite) or (is_definite and words[end] in person.nouns):
                if words[end + 1 : end + 2] == ["the"] and words[end + 2 : end + 3] and words[end + 2] in person.nouns:
                    end += 2
                if not is_definite and end > at and words[end - 1] in ("baby", "tiny", "brown"):
                    return set(), at
                while is_definite and words[end + 1 : end + 2] and words[end + 1] in person.nouns:
                    end += 1  # the teddy bear
                if person.name not in self.named:
                    self.named.append(person.name)
                return {person.name}, end + 1
        return set(), at

    def _pronoun(self, words: list[str], at: int) -> tuple[set[str], int]:
        word = words[at] if at < len(words) else ""
        following = words[at + 1] if at + 1 < len(words) else ""
        if word not in PRONOUNS or (word == "her" and following in OWNED):
            return set(), at
        if word == "it" and DUMMY.match(" ".join(words[at : at + 5])):
            return set(), at
        fitting = self._fitting(PRONOUNS[word], self.named) or self._fitting(PRONOUNS[word], self.before)
        assert len(fitting) == 1, f"{word!r} in {' '.join(words)!r} means {sorted(fitting)}"
        return fitting, at + 1

    def _fitting(self, pronoun: str, names: Sequence[str] | frozenset[str]) -> set[str]:
        return {name for name in names if self.people[name.lower()].pronoun == pronoun}

    def _group(self, words: list[str], at: int) -> tuple[set[str], int]:
        """They, both, all three, everybody, the others, the boys, his friends."""
        text = " ".join(words[at : at + 7])
        everyone = self.before | set(self.named)
        others = everyone - set(self.named)
        for pattern, who in (
            (r"(?:every(?:body|one)|all) (?:except|but) ", None),
            (
                r"the other (?:two|three|four)|the others|the rest|the other one|(?:his|her|its|their) friends?\b",
                others,
            ),
            (r"(?:both|the (?:two|three|four)) boys|the boys", self._fitting("he", self.seen | set(self.named))),
            (r"(?:both|the (?:two|three|four)) girls|the girls", self._fitting("she", self.seen | set(self.named))),
            (r"they (?:all|both)|(?:them|they)(?: all| both)?", everyone),
            (r"all (?:two|three|four)(?: of them)?|all of them|both(?! hands| arms)(?: of them| friends)?", everyone),
            (r"the (?:two|three|four)(?: of them| friends)?|everybody|everyone|the whole gang", everyone),
        ):
            match = re.match(rf"(?:{pattern})", text + " ")
            if match is None:
                continue
            end = at + len(match[0].split())
            if who is None:
                absent, end = self._simple(words, end)
                return everyone - absent, end
            self._check_number(match[0], who)
            return set(who), end
        return set(), at

    def _check_number(self, words: str, who: set[str] | frozenset[str]) -> None:
        numbers = {number for word, number in NUMBERS.items() if word in words.split()} | (
            {2} if "both" in words.split() else set()
        )
        assert numbers <= {len(who)}, f"{words!r} means {sorted(who)}"

    def _after_apposition(self, words: list[str], at: int, who: set[str]) -> int:
        """The end of ", a purple star with glasses," behind a guest's name."""
        if len(who) > 1 or not self.people[next(iter(who)).lower()].is_guest or words[at : at + 1] != [","]:
            return at
        if words[at + 1 : at + 2] not in (["a"], ["an"], ["the"], ["on"], ["standing"]):
            return at
        text = " ".join(words[at + 1 : at + 12])
        if not re.match(
            r"(?:an? .*(?:with)|the (?:one|\w+ one|\w+ [,.;!])|(?:on|standing on) the (?:left|right))", text
        ):
            return at
        end = next((end for end in range(at + 1, len(words)) if words[end] in ",.;!?"), len(words))
        return end + (words[end : end + 1] == [","])
