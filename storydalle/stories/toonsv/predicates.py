"""Verb phrases, phrases beside a verb and whole clauses for each kind of statement."""

from collections.abc import Callable
from functools import partial

from storydalle.stories.toon.world import ACTIONS, HATS, PROPS, SETTINGS, TINTS
from storydalle.stories.toonsv import lexicon
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.facts import MARKS, Tale, look_words, mark_words
from storydalle.stories.toonsv.statements import LIGHTING, PLACING, Statement
from storydalle.stories.toonsv.whereabouts import LIGHT_TURNS, LIGHTS, PLACES
from storydalle.stories.toonsv.wording import Mention, Own, Piece, Pieces, Predicate, Subject, Verb, clause, modifier
from storydalle.stories.toonsv.wording import predicate as read

VERBS_OF_TRIPS = lexicon.phrases(
    "go, go, come, travel, head, walk, set off, move, fly, drive, wander, make a trip, ride, take a trip, sail"
)
VERBS_OF_RETURNS = lexicon.phrases(
    """go back, return, come back, head back, travel back, walk back, ~be back, go again"""
)
BACK = lexicon.phrases("back, back, back, once more, again, once again")
TO_LAST = lexicon.phrases(
    """go back to the place before, go back to the last place, return to the place before, turn back
    go back the same way, go back to the previous place, head back to the last place, return to the last place"""
)
AT_LAST = lexicon.phrases("back at the place before, back at the last place, back in the previous place")
TO_START = lexicon.phrases(
    """go back to where everything began, go back to the start, return to where the story began, return to the beginning
    return to the very first place, head back to where everything started, go back to where the tale started
    go back to the first place"""
)
AT_START = lexicon.phrases(
    """back where everything began, back at the start, back where the story began, back in the very first place
    back where everything started, back at the beginning"""
)
HOME = lexicon.phrases(
    "go home, go back home, return home, come home, head home, ~be home again, ~be back home, walk home"
)
AT_HOME = lexicon.phrases("at home, back home, home again, back at home, at home again")
REASONS = {
    "waves": lexicon.phrases("glad, friendly, happy, polite, in a good mood"),
    "jumps": lexicon.phrases("happy, excited, full of energy, glad, wide awake, in a good mood"),
    "sits": lexicon.phrases("tired, lazy, a bit weary, out of breath, exhausted, bored"),
    "sleeps": lexicon.phrases("tired, sleepy, exhausted, worn out, very tired, so sleepy"),
    "runs": lexicon.phrases("late, full of energy, cold, scared, in good shape, wide awake, excited"),
    "dances": lexicon.phrases("happy, in a good mood, glad, full of joy, excited, so happy"),
    "cries": lexicon.phrases("sad, lonely, unhappy, very sad, hungry, upset, afraid, so sad"),
    "cheers": lexicon.phrases("happy, proud, glad, excited, full of joy, overjoyed"),
}


def an(words: str) -> str:
    """Return words with a or an before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def a_hat(dice: Dice, value: int, adorns: bool = True) -> str:
    """Return words for a hat that is seen for the first time."""
    color, noun = dice.pick(lexicon.HAT_COLORS[HATS[value]]), dice.pick(lexicon.HAT_NOUNS)
    new = f"{dice.pick(lexicon.NEW)} " if adorns and dice.chance(0.15) else ""
    return an(f"{new}{color} {noun}")


def the_hat(dice: Dice, value: int, owner: Piece | None) -> Pieces:
    """Words for a hat that somebody wears already; ``owner`` may stand for the article."""
    color = f"{HATS[value]} " if value and dice.chance(0.55) else ""
    noun = "hat" if dice.chance(0.85) else "cap"
    return [owner if owner and dice.chance(0.6) else "the", f"{color}{noun}"]


def a_thing(dice: Dice, value: int, adorns: bool = True) -> str:
    """Return words for a thing that is seen for the first time."""
    new = f"{dice.pick(lexicon.THING_NEW)} " if adorns and dice.chance(0.2) else ""
    return an(new + dice.pick(lexicon.THINGS[PROPS[value]]))


def the_thing(dice: Dice, value: int, owner: Piece | None) -> Pieces:
    """Words for a thing that somebody holds already."""
    noun = dice.pick(lexicon.THINGS[PROPS[value]]).split()[-1] if dice.chance(0.3) else PROPS[value]
    return [owner if owner and dice.chance(0.5) else "the", noun]


def _passed_on(dice: Dice, statement: Statement, noun: str) -> dict[str, Pieces]:
    """What stands in the slots of giving and getting, by what is given."""
    value, giver = statement.value, Mention(statement.who, "own")
    the = the_hat if noun == "hat" else the_thing
    return {
        f"the_{noun}": the(dice, value, Own()),
        f"whose_{noun}": [giver, *the(dice, value, None)[1:]],
        "whom": [Mention((statement.whom,), "object")],
        "who": [Mention(statement.who, "object")],
    }


def getting_of(dice: Dice, statement: Statement) -> Predicate:
    """What the one who is given a hat or a thing does."""
    noun = "hat" if statement.kind == "gets_hat" else "thing"
    slots = _passed_on(dice, statement, noun)
    slots[f"the_{noun}"] = (the_hat if noun == "hat" else the_thing)(dice, statement.value, None)
    return read(dice.pick(lexicon.GETS_HAT if noun == "hat" else lexicon.GETS_THING), slots)


def handing_over(dice: Dice, statement: Statement) -> Pieces:
    """A clause in the passive: the hat is given to one by the other."""
    the = the_hat if statement.kind == "gives_hat" else the_thing
    verb = dice.pick(("give", "hand", "pass"))
    giver, taker = Mention(statement.who, "object"), Mention((statement.whom,), "object")
    goes: Pieces = [Verb("be", "simple"), Verb(verb, "participle"), "to", taker, "by", giver]
    if dice.chance(0.3):
        goes = [Verb("go", "simple"), "from", giver, "to", taker]
    return [Subject(" ".join(map(str, the(dice, statement.value, None)))), *goes]


class Phrasing:
    """Words for the statements of one story."""

    def __init__(self, tale: Tale, dice: Dice, adorns: bool = True) -> None:
        self.tale, self.dice = tale, dice
        self.adorns = adorns  # hats and things have adjectives that say nothing
        self._by_kind: dict[str, Callable[[Statement], Predicate]] = {
            "acts": lambda told: read(self.dice.pick(lexicon.ACTION_WORDS[ACTIONS[told.value]])),
            "goes_on": partial(self._plain, lexicon.GOES_ON),
            "is_there": partial(self._plain, lexicon.IDLE),
            "stays": partial(self._plain, lexicon.STAYS),
            "leaves": partial(self._plain, lexicon.LEAVES),
            "is_away": partial(self._plain, lexicon.IS_AWAY),
            "puts_on": partial(self._hat, lexicon.PUTS_ON),
            "takes_off": partial(self._hat, lexicon.TAKES_OFF),
            "takes_up": partial(self._thing, lexicon.TAKES_UP),
            "puts_down": partial(self._thing, lexicon.PUTS_DOWN),
            "wears": lambda told: self._hat(lexicon.WEARS if told.value else lexicon.NO_HAT, told),
            "holds": lambda told: self._thing(lexicon.HOLDS if told.value else lexicon.NO_THING, told),
            "gives_hat": lambda told: read(dice.pick(lexicon.GIVES_HAT), _passed_on(dice, told, "hat")),
            "gives_prop": lambda told: read(dice.pick(lexicon.GIVES_THING), _passed_on(dice, told, "thing")),
            "swaps_hats": partial(self._swap, "hats"),
            "swaps_props": partial(self._swap, "things"),
            "returns_to_last": partial(self._plain, TO_LAST),
            "returns_to_start": partial(self._plain, TO_START),
            "returns_home": partial(self._plain, HOME),
            **dict.fromkeys(("travels", "returns", "is_in", "is_home"), self._trip),
            **dict.fromkeys(("looks", "is_the_one"), self._description),
        }

    def predicate(self, statement: Statement) -> Predicate:
        """Return what the subject of a statement does."""
        return self._by_kind[statement.kind](statement)

    def company(self, statement: Statement, others: tuple[int, ...]) -> Predicate:
        """Return how one arrives or comes back who joins the others."""
        arrives = statement.kind == "arrives"
        if not others:
            return read(self.dice.pick(lexicon.ARRIVES if arrives else lexicon.COMES_BACK))
        whom: Pieces = [Mention(others, "object")]
        return read(self.dice.pick(lexicon.JOINS if arrives else lexicon.REJOINS), {"whom": whom})

    def adjunct(self, statement: Statement) -> Pieces | None:
        """Return a statement as a phrase beside a verb; None if there is none."""
        kind = statement.kind
        if kind in PLACING:
            return [self.place(statement)]
        if kind == "alone":
            return modifier(self.dice.pick(lexicon.ALONE))
        if kind in LIGHTING:
            return [self.dice.pick(LIGHTS[TINTS[statement.value]])]
        if kind in ("wears", "holds") and not statement.value:
            kind += " nothing"
        if kind not in lexicon.ADJUNCTS:
            return None
        slots: dict[str, list[Piece]] = {}
        if statement.value:
            is_hat = kind in ("puts_on", "wears")
            words = (
                a_hat(self.dice, statement.value, self.adorns)
                if is_hat
                else a_thing(self.dice, statement.value, self.adorns)
            )
            slots = {"hat" if is_hat else "thing": [words]}
        return modifier(self.dice.pick(lexicon.ADJUNCTS[kind]), slots)

    def place(self, statement: Statement) -> str:
        """Return where the frame is."""
        dice, kind, setting = self.dice, statement.kind, statement.value
        if kind == "returns_to_last":
            return dice.pick(AT_LAST)
        if kind == "returns_to_start":
            return dice.pick(AT_START)
        if kind == "returns_home":
            return dice.pick(AT_HOME)
        where, _, place = dice.pick(PLACES[SETTINGS[setting]])
        words = f"{where} {place}".strip()
        if kind == "returns":
            back = dice.pick(BACK)
            return f"{words} {back}" if back.endswith(("again", "more")) else f"{back} {words}"
        return f"at home {words}" if kind == "is_home" else words

    def light(self, statement: Statement) -> Pieces:
        """Return a clause that tells the light."""
        return clause(self.dice.pick(LIGHT_TURNS[TINTS[statement.value]]))

    def description(self, statement: Statement) -> str:
        """Return what a guest is: "a purple star with glasses", "the star"."""
        guest = self.tale.guest(statement.who[0])
        assert guest is not None
        color, shape, accessory = look_words(guest)
        pick = self.dice.pick
        if statement.kind == "looks":
            little = "little " if self.adorns and self.dice.chance(0.25) else ""
            with_it = f"with {pick(lexicon.ACCESSORY_WORDS[accessory])}"
            return f"{an(f'{little}{color} {pick(lexicon.SHAPE_WORDS[shape])}')} {with_it}"
        mark, word = MARKS[statement.value], mark_words(guest, statement.value)
        if mark == "color":
            return f"the {word} one"
        if mark == "shape":
            return f"the {word}"
        if mark == "accessory":
            return f"the one with {pick(lexicon.ACCESSORY_WORDS[word])}"
        return pick((f"the one on the {word}", f"on the {word}", f"the {word} one", f"standing on the {word}"))

    def _plain(self, phrases: tuple[str, ...], _: Statement) -> Predicate:
        return read(self.dice.pick(phrases))

    def _hat(self, phrases: tuple[str, ...], statement: Statement) -> Predicate:
        slots: dict[str, Pieces] = {"the_hat": the_hat(self.dice, statement.value, Own())}
        if statement.value:
            slots["hat"] = [a_hat(self.dice, statement.value, self.adorns)]
        return read(self.dice.pick(phrases), slots)

    def _thing(self, phrases: tuple[str, ...], statement: Statement) -> Predicate:
        slots: dict[str, Pieces] = {}
        if statement.value:
            slots["the_thing"] = the_thing(self.dice, statement.value, Own())
            slots["thing"] = [a_thing(self.dice, statement.value, self.adorns)]
        return read(self.dice.pick(phrases), slots)

    def _swap(self, kind: str, statement: Statement) -> Predicate:
        slots: dict[str, Pieces] = {"kind": [Own(), kind] if self.dice.chance(0.4) else [kind]}
        if len(statement.who) > 1:
            return read(self.dice.pick(lexicon.SWAPS), slots)
        return read(self.dice.pick(lexicon.SWAPS_WITH), slots | {"whom": [Mention((statement.whom,), "object")]})

    def _trip(self, statement: Statement) -> Predicate:
        dice, kind = self.dice, statement.kind
        if kind == "is_home" and dice.chance(0.4):
            where, _, place = dice.pick(PLACES[SETTINGS[statement.value]])
            return read(f"{dice.pick(('live', '~have {own} home'))} {where} {place}")
        verb = dice.pick(VERBS_OF_TRIPS if kind == "travels" else VERBS_OF_RETURNS)
        if kind in ("is_in", "is_home") or verb == "~be back" or dice.chance(0.12):
            return read(f"~be {self.place(statement)}")
        _, to, place = dice.pick(PLACES[SETTINGS[statement.value]])
        words = f"{to} {place}".strip()
        return read(f"go {words} again" if verb == "go again" else f"{verb} {words}")

    def _description(self, statement: Statement) -> Predicate:
        return read(f"~be {self.description(statement)}")
