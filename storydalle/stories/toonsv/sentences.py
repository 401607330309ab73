"""Sentences: clauses joined by conjunctions, again and again, with places and times before or behind them."""

from collections.abc import Sequence

from storydalle.stories.toon.world import ACTIONS, SETTINGS
from storydalle.stories.toonsv.clauses import ClauseMaker, Unit
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.statements import Statement
from storydalle.stories.toonsv.whereabouts import PLACES
from storydalle.stories.toonsv.wording import Mention, Pieces, Verb

OPENERS = (
    *("then", "now", "next ,", "after that ,", "later ,", "suddenly ,", "meanwhile ,", "at last"),
    *("in the end ,", "so", "and", "and then", "soon", "a bit later", "a little later ,", "this time ,"),
    *("oh ,", "look ,", "finally ,", "all of a sudden ,", "in the meantime ,", "once again ,", "here"),
    *("well ,", "just then ,", "the next moment ,"),
)
FIRST_OPENERS = ("once ,", "one day ,", "look ,", "here", "today", "now", "so ,", "first ,", "to begin with ,")
REMARKS = (
    *(
        "what a day !",
        "so much fun !",
        "how nice .",
        "nobody knows why .",
        "that is life .",
        "what a surprise !",
        "wow !",
    ),
    *(
        "time goes by .",
        "the end .",
        "all is well .",
        "everything is fine .",
        "how funny !",
        "oh dear !",
    ),
    *(
        "a good day .",
        "nothing else happens .",
        "what a story !",
        "can you see ?",
        "that was unexpected .",
        "oh no !",
    ),
    *("how lovely !", "life is good .", "isn't that great ?", "who would have thought ?", "like magic ."),
    *(
        "this is fun .",
        "so quiet here .",
        "there is a lot to see .",
        "the birds are singing .",
        "the air is fresh .",
    ),
)
NEVER_FIRST = ("the end .", "nothing else happens .", "such is life .", "that was unexpected .")
SAYINGS = (  # with commas before what follows them
    *("what a day !", "this is fun !", "how nice !", "I like it here ,", "look at this !", "oh dear ,", "thank you ,"),
    *(
        "I have an idea ,",
        "life is good ,",
        "how lovely !",
        "well , well ,",
        "I am so hungry ,",
        "hello !",
        "what now ?",
    ),
    *("good idea ,", "let us play ,", "I love this ,", "nice to see you ,", "where are we ?", "time for a break ,"),
    *("oh no !", "that was great ,", "I am glad ,", "who is there ?", "wait for me !", "never mind ,", "see you ,"),
)
WISHES = (
    "I want to go {} ,",
    "let us go {} one day ,",
    "I wish we were {} ,",
    "have you been {} ?",
    "tomorrow we go {} ,",
)
JOINS = (
    "and",
    "and",
    ", and",
    ", and",
    "while",
    ", while",
    ";",
    ", but",
    "as",
    ",",
    "and then",
    ". then",
    "and meanwhile",
)
AFTER_EVENTS = ("and", ", and", ", so", "and then", ", then", ", and so", ", and now", "; then", "and")
MOVED = ("jumps", "dances", "cries", "cheers", "waves")  # by what happens
BEFORE_EVENTS = ("when", "now that", "as", "and", ", and", "just when")
LEADING = ("while", "while", "as", "when")
LEADING_EVENTS = ("when", "after", "as soon as", "once", "now that", "when")


class Sentences:
    """Sentences for the units of one caption."""

    def __init__(self, clauses: ClauseMaker, dice: Dice) -> None:
        self.clauses, self.dice = clauses, dice

    def sentence(self, units: list[Unit], fronted: list[Statement], opener: str) -> Pieces:
        """Return the pieces of a sentence, without its end."""
        pieces: Pieces = [opener] if opener else []
        for told in fronted:
            pieces += [*self.clauses.beside(told), ","]
        return [*pieces, *self._composed(units, 0, not pieces)]

    def fragment(self, units: list[Unit], fronted: list[Statement]) -> Pieces:
        """Return the pieces of a sentence without a subject."""
        pieces: Pieces = []
        for unit in units:
            if pieces:
                pieces.append(self.dice.pick((",", ", and", ";")))
            pieces += self.clauses.main(unit) if unit.who or unit.whole else self.clauses.fragment(unit)
        for told in fronted:
            pieces += [*([","] if pieces else []), *self.clauses.beside(told)]
        return pieces

    def speech(self, who: Sequence[int]) -> Pieces:
        """Return something that one says, which may name a place where they are not."""
        dice = self.dice
        words = dice.pick(SAYINGS)
        if dice.chance(0.25):
            where, to, place = dice.pick(PLACES[dice.pick(SETTINGS)])
            wish = dice.pick(WISHES)
            words = wish.format(f"{where if 'were' in wish else to} {place}".strip())
        verb = dice.pick(("say", "say", "say", "ask" if "?" in words else "whisper"))
        speaker = Mention(tuple(who), "subject")
        if dice.chance(0.4):
            return [speaker, Verb(verb, "simple"), f', "{words.rstrip(" ,")}{"" if words[-1] in "!?" else "."}"']
        return [f'"{words}"', Verb(verb, "of next"), speaker]

    def _composed(self, units: list[Unit], depth: int, leads: bool) -> Pieces:
        """Clauses of the units in their order, the last joined to those before it or each half to the other."""
        if len(units) == 1:
            return self.clauses.main(units[0], leads)
        dice = self.dice
        if len(units) >= 3 and dice.chance(0.35):
            return self._listed(units)
        at = 1 + dice.pick(range(len(units) - 1))
        is_below = leads and depth < 2 and dice.chance(0.22)
        left = self._composed(units[:at], depth + 1, leads and not is_below)
        right = self._composed(units[at:], depth + 1, False)
        before, after = units[at - 1], units[at]
        if is_below:
            word = dice.pick(LEADING_EVENTS if before.happens and not after.happens else LEADING)
            return [word, *left, ",", *right]
        if before.happens and not after.happens:
            return [*left, dice.pick(AFTER_EVENTS), *right]
        if after.happens and not before.happens and dice.chance(0.4):
            moved = any(told.kind == "acts" and ACTIONS[told.value] in MOVED for told in before.statements)
            return [*left, "because" if moved and dice.chance(0.5) else dice.pick(BEFORE_EVENTS), *right]
        return [*left, dice.pick(JOINS[:-2] if before.happens else JOINS), *right]

    def _listed(self, units: list[Unit]) -> Pieces:
        """One clause after the other: Pip runs, Lulu sleeps and Bruno cries."""
        pieces = self.clauses.main(units[0])
        for unit in units[1:-1]:
            pieces += [",", *self.clauses.main(unit)]
        short = all(len(unit.statements) == 1 for unit in units)  # Pip runs, Lulu sleeps
        return [
            *pieces,
            self.dice.pick((", and", "and", "," if short else ", and", ", while", ", but")),
            *self.clauses.main(units[-1]),
        ]
