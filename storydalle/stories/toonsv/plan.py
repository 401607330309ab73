"""The plan of a caption: what is told of whom together, in which order, in how many sentences."""

from dataclasses import dataclass, field, replace

from storydalle.stories.toon.assertions import Fact
from storydalle.stories.toonsv.clauses import Unit, Voice
from storydalle.stories.toonsv.facts import KNOWN_CARRIED, KNOWN_PRONOUN, KNOWN_SAID, Scene
from storydalle.stories.toonsv.predicates import Phrasing, handing_over
from storydalle.stories.toonsv.statements import ABOUT_GUESTS, LIGHTING, PLACING, Statement
from storydalle.stories.toonsv.wording import Mention, Pieces, Subject, Told, Verb

HERE_COMES = (("here", "come"), ("along", "come"), ("there", "be"), ("here", "be"), ("now here", "come"))


@dataclass
class SentencePlan:
    """The clauses of one sentence and what stands before them."""

    units: list[Unit]
    fronted: list[Statement] = field(default_factory=list)


@dataclass
class CaptionPlan:
    """All that one caption tells."""

    sentences: list[SentencePlan]
    appositions: dict[int, Pieces]


class Planner:
    """Plans for the caption of one frame; a careful one is plainer, and always has words that are clear."""

    def __init__(
        self, scene: Scene, phrasing: Phrasing, voice: Voice, before: frozenset[int], is_careful: bool
    ) -> None:
        self.scene, self.phrasing, self.dice, self.voice = scene, phrasing, phrasing.dice, voice
        self.num_before = len(before)
        told = {event.who for event in scene.told("leaves")}
        self.must_name_company = not before <= told.union(scene.cast)  # else those before would be there too
        self.newcomers = {event.who for event in scene.told("arrives", "comes_back")}
        self.is_careful = is_careful
        self.is_whole = all(one.cast_known == KNOWN_CARRIED for one in scene.shown)  # nobody is a subject
        self.by_pronoun = frozenset(one.who for one in scene.known_by(KNOWN_PRONOUN))

    def plan(self, statements: list[Statement]) -> CaptionPlan:
        """Return what is told together, in order."""
        appositions: dict[int, Pieces] = {}
        about = [told for told in statements if told.kind in ABOUT_GUESTS]
        for told in list(about):
            if told.who[0] not in appositions and self.dice.chance(0.6):
                appositions[told.who[0]] = [self.phrasing.description(told)]
                about.remove(told)
        frames = [told for told in statements if told.kind in (*PLACING, *LIGHTING)]
        absent = [told for told in statements if told.kind == "is_away"]
        told_of = [told for told in statements if told not in (*frames, *absent) and told.kind not in ABOUT_GUESTS]
        units = self._ordered([*self._units(told_of), *(Unit(told.who, [told]) for told in about)])
        self._add_absent(units, absent)
        self._add_alone(units)
        fronted: list[Statement] = []
        for told in frames:
            self._add_frame(units, told, fronted)
        return CaptionPlan(self._sentences(units, fronted), appositions)

    def _units(self, statements: list[Statement]) -> list[Unit]:
        """Statements about the same are told together, most times."""
        units: list[Unit] = []
        others = tuple(one for one in self.scene.cast)
        for told in statements:
            unit = self._special(told)
            if unit is None:
                same = next((unit for unit in units if unit.who == told.who and not unit.whole and not unit.echo), None)
                if same and len(same.statements) < 3 and told.who and self.dice.chance(0.8):
                    same.statements.append(told)
                    continue
                unit = Unit(told.who, [told])
                if told.kind in ("arrives", "comes_back"):
                    unit.others = self._company(told, others)
            units.append(unit)
        return units

    def _company(self, told: Statement, others: tuple[int, ...]) -> tuple[int, ...]:
        """Whom one who arrives joins, where it is told."""
        met = tuple(one for one in others if one not in told.who)
        return met if met and (self.must_name_company or self.dice.chance(0.45)) else ()

    def _special(self, told: Statement) -> Unit | None:
        """A statement as a clause of another form, sometimes."""
        dice = self.dice
        if self.is_careful or not dice.chance(0.3):
            return None
        if told.kind in ("gives_hat", "gives_prop"):
            if dice.chance(0.4):
                return Unit((), [told], whole=[*handing_over(dice, told), Told(told.facts)])
            return Unit((told.whom,), [replace(told, kind=told.kind.replace("gives", "gets"))])
        if told.kind in ("swaps_hats", "swaps_props"):
            return Unit((told.who[0],), [replace(told, who=told.who[:1])])
        if told.kind == "arrives" and dice.chance(0.5) and not self.must_name_company:
            word, verb = dice.pick(HERE_COMES)
            whole: Pieces = [word, Verb(verb, "of next"), Mention(told.who, "subject"), "|", Told(told.facts)]
            return Unit((), [told], whole=whole)
        if told.kind == "acts" and len(told.who) > 1 and not self.by_pronoun & set(told.who):
            at = 1 + dice.pick(range(len(told.who) - 1))
            first, second = (
                replace(told, who=who, facts=facts)
                for who, facts in ((told.who[:at], told.facts[:at]), (told.who[at:], told.facts[at:]))
            )
            return Unit(first.who, [first], echo=second)
        return None

    def _ordered(self, units: list[Unit]) -> list[Unit]:
        """In any order, though what happens is mostly told first.

        A careful plan tells pronouns first ("they" are those of the frame before) or last ("the others").
        """
        dice = self.dice
        pull = dice.pick((2.0, 2.0, -2.0)) if self.is_careful else 0.5

        def place(unit: Unit) -> float:
            return dice.random() - 0.45 * unit.happens - pull * bool(self.by_pronoun & set(unit.who))

        return [unit for _, _, unit in sorted((place(unit), at, unit) for at, unit in enumerate(units))]

    def _add_absent(self, units: list[Unit], absent: list[Statement]) -> None:
        for told in absent:
            hosts = [unit for unit in units if unit.who and not unit.echo]
            if hosts and self.dice.chance(0.4):
                self.dice.pick(hosts).beside.append(told)
            else:
                units.insert(self.dice.pick(range(len(units) + 1)), Unit(told.who, [told]))

    def _add_alone(self, units: list[Unit]) -> None:
        """That nobody else is there: where it must be said, and of one alone sometimes."""
        cast = self.scene.cast
        must = self.must_name_company and set(cast) <= self.newcomers
        if not must and (len(cast) > 1 or not self.dice.chance(0.25 if self.num_before > 1 else 0.04)):
            return
        told = Statement("alone", facts=(Fact("cast", tuple(map(self.phrasing.tale.name, cast))),))
        hosts = [unit for unit in units if unit.who == cast and not unit.whole and not unit.beside]
        if hosts:
            self.dice.pick(hosts).beside.append(told)
        elif must:
            units.append(Unit(whole=[Subject("nobody else"), Verb("be", "simple"), "there", Told(told.facts)]))

    def _add_frame(self, units: list[Unit], told: Statement, fronted: list[Statement]) -> None:
        """A place or a light: before the first sentence, beside a verb, as a trip, or as a clause."""
        dice, roll = self.dice, self.dice.random()
        if told.kind in LIGHTING and (roll < (0.6 if told.kind == "turns" else 0.2) or not units):
            at = dice.pick((0, 0, len(units)))
            units.insert(at, Unit((), [told], whole=[*self.phrasing.light(told), Told(told.facts)]))
            return
        going = set(self.scene.cast)
        hosts = [
            u for u in units if u.who and not u.whole and not u.echo and len(u.statements) < 3 and going >= set(u.who)
        ]
        if told.kind in PLACING and (roll < 0.5 or not units):
            if self.is_whole or not hosts or (roll < 0.2 and self._can_name_all()):
                silent = [unit for unit in units if unit.statements and unit.statements[0].kind == "is_there"]
                units[:] = [unit for unit in units if unit not in silent or len(unit.statements) > 1]
                units.insert(0, Unit(() if self.is_whole else self.scene.cast, [told]))
            else:
                hosts[0].statements.insert(0, told)
            return
        if roll < 0.75:
            fronted.append(told)
        else:
            beside = [unit for unit in units if not unit.whole and not unit.echo]
            if beside:
                dice.pick(beside).beside.append(told)
            else:
                fronted.append(told)

    def _can_name_all(self) -> bool:
        known = {one.cast_known for one in self.scene.shown}
        return len(known) == 1

    def _sentences(self, units: list[Unit], fronted: list[Statement]) -> list[SentencePlan]:
        dice, sentences = self.dice, [SentencePlan(units[:1])]
        for unit in units[1:]:
            size = len(sentences[-1].units)
            parts = self.voice.is_terse or self.is_careful or self.is_whole
            if dice.chance(0.6 if parts else 0.3 + 0.15 * size):
                sentences.append(SentencePlan([unit]))
            else:
                sentences[-1].units.append(unit)
        for told in fronted:
            (sentences[0] if dice.chance(0.85) else dice.pick(sentences)).fronted.append(told)
        return sentences


def named_of(scene: Scene) -> frozenset[int]:
    """Whom the caption of a frame may name: those it has to name, and those of its events whom it does not show."""
    shown = set(scene.cast)
    about = {one for event in scene.events for one in (event.who, event.whom) if one >= 0}
    return frozenset(one.who for one in scene.known_by(KNOWN_SAID)) | (about - shown)
