"""Clauses: a subject with predicates, as verbs, participles, relative clauses and phrases beside them."""

from dataclasses import dataclass, field
from typing import TypeAlias

from storydalle.stories.toon.world import ACTIONS
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.lexicon import MANNERS
from storydalle.stories.toonsv.predicates import REASONS, Phrasing, getting_of
from storydalle.stories.toonsv.statements import PLACING, Statement
from storydalle.stories.toonsv.wording import Mention, Own, Pieces, Predicate, Told, Verb

DURATIVE = ("acts", "holds", "wears", "is_there", "stays")  # may go on beside another
HAPPENS = (
    *(
        "arrives",
        "comes_back",
        "leaves",
        "puts_on",
        "takes_off",
        "gives_hat",
        "gets_hat",
        "gets_prop",
        "swaps_hats",
        "takes_up",
    ),
    *("puts_down", "gives_prop", "swaps_props", "travels", "returns", "turns"),
)
DONE = ("arrives", "comes_back", "leaves", "puts_on", "takes_off", "puts_down", "gives_hat", "gives_prop")  # has left
ECHOES = ("and so {do} {who}", "and {who} {do} too", "and {who} too", "and {who} {do} the same", "and {who} as well")


GOING_ON = (
    *("more of the same", "on and on", "the same again", "once more the same", "the same as before", "again the same"),
    *("and so on and on", "still going on", "going on and on", "still the same"),
)
Doing: TypeAlias = tuple[Statement, Predicate]


@dataclass
class Voice:
    """How a story is told."""

    is_past: bool = False
    is_terse: bool = False  # notes: no auxiliary verbs, and places alone
    contracts: bool = False
    progressive: float = 0.3  # share of verbs
    embellishes: float = 0.15  # share of adverbs, and of sentences that say nothing visible
    is_lower: bool = False
    has_stop: bool = True  # at the end of a caption


@dataclass
class Unit:
    """What is said of one subject, or a clause of its own (``whole``)."""

    who: tuple[int, ...] = ()
    statements: list[Statement] = field(default_factory=list)
    beside: list[Statement] = field(default_factory=list)  # told by phrases beside the verbs
    others: tuple[int, ...] = ()  # whom those who arrive join
    echo: Statement | None = None  # others do the same
    whole: Pieces | None = None

    @property
    def happens(self) -> bool:
        return bool(self.whole) or any(told.kind in HAPPENS for told in self.statements)


class ClauseMaker:
    """Makes clauses for the units of one caption."""

    def __init__(self, phrasing: Phrasing, dice: Dice, voice: Voice) -> None:
        self.phrasing, self.dice, self.voice = phrasing, dice, voice

    def main(self, unit: Unit, leads: bool = False) -> Pieces:
        """Return a unit as a clause with a subject; one that leads a sentence may have a participle before it."""
        if unit.whole:
            return list(unit.whole)
        doings = [(told, self._predicate(told, unit)) for told in self._split_adjuncts(unit)]
        subject: Pieces = [Mention(unit.who, "subject")]
        beside = [piece for told in unit.beside for piece in self.beside(told)]
        if len(doings) == 1:
            return [
                *subject,
                *self._verbal(doings[0], unit),
                *beside,
                *self._echo(unit),
                *self._reason(doings[0][0], unit),
            ]
        *others, last = doings
        doing = self._participle(last)
        is_durative = last[0].kind in DURATIVE and not last[1].is_state
        roll = self.dice.random()
        if roll < 0.2 and is_durative:
            return [*subject, *self._joined(others, unit), *beside, ",", *doing, "|"]
        if leads and roll < 0.3 and is_durative and not _has_owner(doing):
            return [*doing, ",", *subject, *self._joined(others, unit), *beside]
        if roll < 0.4:
            return [*subject, ", who", *self._verbal(last, unit, "simple"), ",", *self._joined(others, unit), *beside]
        first = self._participle(doings[0])
        if leads and roll < 0.48 and len(doings) == 2 and doings[0][0].kind in HAPPENS and not _has_owner(first):
            return ["after", *first, ",", *subject, *self._verbal(last, unit), *beside]
        return [*subject, *self._joined(doings, unit), *beside]

    def fragment(self, unit: Unit) -> Pieces:
        """Return a unit without a subject as words that mean the cast before: "now dancing"."""
        pieces: Pieces = []
        for told in unit.statements:
            if pieces:
                pieces.append("and")
            if told.kind == "goes_on":
                pieces += [self.dice.pick(GOING_ON), Told(told.facts)]
            elif told.kind in PLACING:
                pieces += [self._off_to(told), Told(told.facts)]
            else:
                pieces += [*self._predicate(told, unit).in_form("gerund"), Told(told.facts)]
        beside = [piece for told in unit.beside for piece in self.beside(told)]
        now = self.dice.pick(("now", "now", "then", "", "", "just", "and now", "time for"))
        doing = unit.statements and unit.statements[0].kind == "acts"
        return [now, *pieces, *beside] if doing and now else [*pieces, *beside]

    def beside(self, told: Statement) -> Pieces:
        """Return a statement as a phrase beside a verb, with its facts."""
        if told.kind == "is_away":
            return ["without", Mention(told.who, "object"), Told(told.facts)]
        if told.kind == "is_there":
            return ["with", Mention(told.who, "object"), Told(told.facts)]
        phrase = self.phrasing.adjunct(told)
        assert phrase is not None, told
        mark = [","] if str(phrase[0]).endswith("ing") else []  # wearing, carrying
        return [*mark, *phrase, Told(told.facts)]

    def _off_to(self, told: Statement) -> str:
        words = self.phrasing.place(told)
        return f"{self.dice.pick(('now', 'and now', 'here', 'now', ''))} {words}".strip()

    def _split_adjuncts(self, unit: Unit) -> list[Statement]:
        """The statements that need a verb; some of the others go beside it."""
        verbs = list(unit.statements)
        for told in unit.statements:
            if len(verbs) > 1 and not unit.echo and self.dice.chance(0.4) and self.phrasing.adjunct(told):
                verbs.remove(told)
                unit.beside.insert(0, told)
        return verbs

    def _joined(self, doings: list[Doing], unit: Unit) -> Pieces:
        """Predicates one after the other: runs, jumps and sleeps; is running and jumping."""
        form = self._form(doings)
        pieces = self._verbal(doings[0], unit, form)
        if form == "progressive":
            form = "gerund"
        for at, doing in enumerate(doings[1:], start=1):
            is_last = at == len(doings) - 1
            links = (
                ("and", "and", ", and") if doing[1].is_state else ("and", "and", "and", "and then", ", then", ", and")
            )
            link = self.dice.pick(links) if is_last else ","
            pieces += [link, *self._verbal(doing, unit, form)]
        return pieces

    def _form(self, doings: list[Doing]) -> str:
        """The form of the verbs of a clause."""
        if any(predicate.is_state for _, predicate in doings):
            return "simple"
        lasts = all(told.kind in DURATIVE for told, _ in doings)
        if self.dice.chance(self.voice.progressive if lasts else 0.06):
            return "progressive"
        happened = len(doings) == 1 and doings[0][0].kind in DONE
        return "perfect" if happened and self.dice.chance(0.1) else "simple"

    def _predicate(self, told: Statement, unit: Unit) -> Predicate:
        if told.kind in ("arrives", "comes_back"):
            return self.phrasing.company(told, unit.others)
        if told.kind.startswith("gets"):
            return getting_of(self.dice, told)
        return self.phrasing.predicate(told)

    def _verbal(self, doing: Doing, unit: Unit, form: str = "") -> Pieces:
        """A predicate as a verb with what follows it, perhaps with an adverb."""
        told, predicate = doing
        dice, form = self.dice, form or self._form([doing])
        if told.kind != "acts":
            return [*predicate.in_form(form), Told(told.facts)]
        if form == "simple" and len(predicate.pieces) == 1 and dice.chance(0.2):
            return [*self._begun(predicate), Told(told.facts)]
        pieces = predicate.in_form(form)
        if told.adverb == "again":
            return [*pieces, "again", Told(told.facts)]
        if told.adverb and form == "simple":
            pieces.insert(1 if predicate.pieces[0] == Verb("be", "simple") else 0, told.adverb)
        elif len(pieces) == 1 and dice.chance(2 * self.voice.embellishes):
            manner = dice.pick(MANNERS[ACTIONS[told.value]])
            is_before = manner.endswith("ly") and " " not in manner and form == "simple" and dice.chance(0.3)
            pieces.insert(0 if is_before else 1, manner)
        return [*pieces, Told(told.facts)]

    def _begun(self, predicate: Predicate) -> Pieces:
        """Starts to run, begins dancing."""
        first = Verb(self.dice.pick(("start", "begin", "start", "keep")), "simple")
        if first.base == "keep":
            return [Verb("keep", "simple"), *predicate.in_form("gerund")]
        if self.dice.chance(0.5):
            return [first, *predicate.in_form("gerund")]
        return [first, "to", *predicate.in_form("base")]

    def _reason(self, told: Statement, unit: Unit) -> Pieces:
        """Because he is tired."""
        if told.kind != "acts" or unit.echo or not unit.who or not self.dice.chance(self.voice.embellishes / 3):
            return []
        mood = self.dice.pick(REASONS[ACTIONS[told.value]])
        return ["because", Mention(unit.who, "pronoun"), Verb("be", "simple"), mood]

    def _participle(self, doing: Doing) -> Pieces:
        return [*doing[1].in_form("gerund"), Told(doing[0].facts)]

    def _echo(self, unit: Unit) -> Pieces:
        """And so does Lulu."""
        if not unit.echo:
            return []
        mention = Mention(unit.echo.who, "subject")
        pieces: Pieces = []
        for word in self.dice.pick(ECHOES).split(" "):
            if word == "{who}":
                pieces.append(mention)
            elif word == "{do}":
                pieces.append(Verb("do", "of next" if pieces == ["and", "so"] else "simple"))
            else:
                pieces.append(word)
        return [*pieces, "|", Told(unit.echo.facts)]


def _has_owner(pieces: Pieces) -> bool:
    """Something in the pieces is his, her, its or theirs."""
    return any(isinstance(piece, Own) for piece in pieces)
