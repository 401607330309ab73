"""Who is in a story, who stands in each of its frames, and whom a caption can mean without a name."""

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from storydalle.stories.toon.names import NAMED, sample_name
from storydalle.stories.toon.world import PRONOUNS, SEEN_LOOKS, UNSEEN_LOOKS, Guest
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.facts import KNOWN_CARRIED, KNOWN_PRONOUN, KNOWN_SAID, Character, Event

MOST = 4  # characters of a frame
ROSTER_SIZES = {1: 0.08, 2: 0.22, 3: 0.28, 4: 0.26, 5: 0.16}
SOURCE_SIZES = {1: 0.34, 2: 0.36, 3: 0.19, 4: 0.11}
CAST_SIZES = {1: 0.36, 2: 0.26, 3: 0.18, 4: 0.2}
NUM_GUESTS = {0: 0.36, 1: 0.5, 2: 0.14}
DEBUT_SHARE = 0.2  # of guests that the source could leave to a target, whose caption describes them
OWNERS_SHARE = 0.5  # of choices that prefer who is away with a hat or a thing
MOVES = {"stay": 0.4, "join": 0.21, "leave": 0.13, "switch": 0.26}
PRONOUN_SHARE = 0.62  # of captions that could mean somebody without a name
FIRST_PRONOUN_SHARE = 0.25  # of first captions, where only the source tells who was there before
NO_SUBJECT_SHARE = 0.2  # of captions that could do without a subject


class Roster(NamedTuple):
    """The characters of a story; frames show the first ``num_source`` of them at first, then the others in order."""

    characters: tuple[Character, ...]
    num_source: int

    @property
    def guests(self) -> tuple[int, ...]:
        return tuple(who for who, character in enumerate(self.characters) if isinstance(character, Guest))

    @property
    def source_guests(self) -> tuple[int, ...]:
        return tuple(who for who in self.guests if who < self.num_source)

    def pronoun(self, who: int) -> str:
        character = self.characters[who]
        return PRONOUNS[-1] if isinstance(character, Guest) else PRONOUNS[character]


def sample_roster(dice: Dice, split: str) -> Roster:
    """1 to 5 characters, at most two of them guests. Where the source has no guest, none of ``unseen`` would be new."""
    size = dice.weighted(ROSTER_SIZES)
    fewest = 1 if split == "unseen" else 0
    num_guests = dice.weighted({n: share for n, share in NUM_GUESTS.items() if fewest <= n <= size})
    num_source = dice.weighted({n: share for n, share in SOURCE_SIZES.items() if n <= size})
    most_in_source = min(num_guests, num_source)
    debuts = [dice.chance(DEBUT_SHARE) for _ in range(min(num_guests - fewest, size - num_source))]
    in_source = max(min(num_guests - sum(debuts), most_in_source), num_guests - (size - num_source))
    guests = _sample_guests(dice, split, num_guests)
    named = [int(character) for character in dice.shuffled(range(len(NAMED)))[: size - num_guests]]
    num_named = num_source - in_source
    source = dice.shuffled([*guests[:in_source], *named[:num_named]])
    return Roster((*source, *dice.shuffled([*guests[in_source:], *named[num_named:]])), num_source)


def _sample_guests(dice: Dice, split: str, number: int) -> list[Character]:
    """Guests of names that begin otherwise, and of different looks."""
    guests: list[Character] = []
    looks = list(UNSEEN_LOOKS if split == "unseen" else SEEN_LOOKS)
    names: list[str] = []
    for _ in range(number):
        look = looks.pop(int(dice.rng.integers(len(looks))))
        name = sample_name(dice.rng)
        while any(name[:2] == other[:2] for other in names):
            name = sample_name(dice.rng)
        names.append(name)
        guests.append(Guest(name, *look))
    return guests


def next_cast(dice: Dice, cast: tuple[int, ...], there: Sequence[int], owners: Set[int]) -> tuple[int, ...]:
    """The cast of the next frame, of all who are ``there``; who is away and owns a hat or a thing comes back sooner."""
    absent = [who for who in there if who not in cast]
    moves = dict(MOVES)
    if not absent or len(cast) == MOST:
        del moves["join"]
    if len(cast) == 1:
        del moves["leave"]
    move = dice.weighted(moves)
    if move == "join":
        number = 2 if dice.chance(0.3) else 1
        come = _first(dice, absent, owners)[: min(number, MOST - len(cast))]
        return tuple(sorted((*cast, *come)))
    if move == "leave":
        number = 2 if len(cast) > 2 and dice.chance(0.25) else 1
        return tuple(sorted(dice.shuffled(cast)[number:]))
    if move == "switch":
        size = dice.weighted({n: share for n, share in CAST_SIZES.items() if n <= len(there)})
        return tuple(sorted(_first(dice, there, owners - set(cast))[:size]))
    return cast


def _first(dice: Dice, values: Sequence[int], preferred: Set[int]) -> list[int]:
    """The values in any order, the preferred ones often first."""
    order = dice.shuffled(values)
    return sorted(order, key=lambda who: who not in preferred) if dice.chance(OWNERS_SHARE) else order


class Telling(NamedTuple):
    """What decides whom a caption can mean without a name."""

    before: tuple[int, ...]  # the cast of the frame before
    cast: tuple[int, ...]
    doings: Mapping[int, tuple[int, int]]  # the action of each, and how it is known
    events: Sequence[Event]
    is_first: bool

    @property
    def concerned(self) -> set[int]:
        """All of whom an event tells something."""
        return {who for event in self.events for who in (event.who, event.whom) if who >= 0}

    @property
    def nobody_is_lost(self) -> bool:
        """True if the caption tells of all who were there before and are not there now."""
        told = {event.who for event in self.events if event.kind == "leaves"}
        return all(who in self.cast or who in told for who in self.before)

    def do_the_same(self, group: Sequence[int]) -> bool:
        return len({self.doings[who] for who in group}) == 1


def cast_known(dice: Dice, roster: Roster, telling: Telling) -> dict[int, int]:
    """How each of the cast is known to be there: named, meant by a pronoun, or (all of them) not mentioned at all."""
    known = dict.fromkeys(telling.cast, KNOWN_SAID)
    can_be_silent = telling.cast == telling.before and not telling.concerned and telling.do_the_same(telling.cast)
    if can_be_silent and dice.chance(NO_SUBJECT_SHARE):
        return dict.fromkeys(telling.cast, KNOWN_CARRIED)
    if not dice.chance(FIRST_PRONOUN_SHARE if telling.is_first else PRONOUN_SHARE):
        return known
    group = [who for who in telling.cast if who in telling.before and who not in telling.concerned]
    is_group = len(group) > 1 and telling.nobody_is_lost and telling.do_the_same(group)
    meant = group if is_group else _each_by_its_pronoun(dice, roster, telling)
    return known | dict.fromkeys(meant, KNOWN_PRONOUN)


def _each_by_its_pronoun(dice: Dice, roster: Roster, telling: Telling) -> list[int]:
    """Those of whom "he", "she" or "it" says who they are."""
    must_be_named = {event.who for event in telling.events if event.kind in ("looks", "is_the_one")}
    before = [roster.pronoun(who) for who in telling.before]
    fits = [who for who in telling.cast if who in telling.before and before.count(roster.pronoun(who)) == 1]
    meant = [who for who in fits if who not in must_be_named and (len(telling.cast) == 1 or dice.chance(0.8))]
    if len(meant) > 1 and not telling.nobody_is_lost:  # "they" would be more than these
        meant = meant[:1]
    named = {roster.pronoun(who) for who in (telling.concerned | set(telling.cast)) - set(meant)}
    while clash := [who for who in meant if roster.pronoun(who) in named]:
        meant = [who for who in meant if who not in clash]
        named |= {roster.pronoun(who) for who in clash}
    return meant
