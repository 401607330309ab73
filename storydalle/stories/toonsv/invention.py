"""Stories are invented frame by frame: the cast, what happens, what each does, and how a caption can tell who it is."""

from collections.abc import Sequence
from functools import lru_cache

from storydalle.stories.toon.world import ACTIONS, PROPS, SETTINGS, TINTS, generator
from storydalle.stories.toonsv.casting import Roster, Telling, cast_known, next_cast, sample_roster
from storydalle.stories.toonsv.chronicle import Chronicle
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.facts import KNOWN_CARRIED, KNOWN_SAID, MARKS, Appearance, Event, Scene, Tale
from storydalle.stories.toonsv.happenings import contradictions, object_events, scenery_events

SPLITS = ("train", "val", "test", "unseen", "misleading", "long20", "long50")
LENGTHS = {"long20": (20,), "long50": (50,)}  # others have 2 to 8 targets
MISLEADING = "misleading"
LIGHT_WEIGHTS = dict(zip(range(len(TINTS)), (0.4, 0.3, 0.3), strict=True))
HAT_SHARE = 0.22  # of named characters in the source
PROP_SHARE = 0.3
TOGETHER_SHARE = 0.45  # of frames whose characters all do the same


def length_of(split: str, index: int) -> int:
    """The number of targets of a story whose length is left to the split."""
    return Dice(generator("2/length", split, index)).pick(LENGTHS.get(split, tuple(range(2, 9))))


@lru_cache(maxsize=256)  # captions, labels and pictures of a story are asked for one after another
def invent(split: str, index: int, num_targets: int | None = None) -> Tale:
    """Story ``index`` of a split; it depends on nothing else."""
    num_targets = length_of(split, index) if num_targets is None else num_targets
    dice = Dice(generator("2/facts", split, index, num_targets))
    roster = sample_roster(dice, split)
    source = _source(dice, roster, split)
    story = _Invention(dice, roster, source, split)
    targets = tuple(story.frame() for _ in range(num_targets))
    return Tale(split, index, roster.characters, source, targets)


def _source(dice: Dice, roster: Roster, split: str) -> Scene:
    more = 2 if split == MISLEADING else 1
    props = dice.shuffled(range(1, len(PROPS)))
    doings = _doings(dice, range(roster.num_source), {})
    shown = tuple(
        Appearance(
            who,
            action,
            prop=props.pop() if dice.chance(more * PROP_SHARE) else 0,
            hat=dice.pick((1, 2, 3, 4)) if who not in roster.guests and dice.chance(more * HAT_SHARE) else 0,
        )
        for who, (action, _) in doings.items()
    )
    return Scene(shown, dice.pick(range(len(SETTINGS))), dice.weighted(LIGHT_WEIGHTS))


def _doings(dice: Dice, cast: Sequence[int], before: dict[int, int]) -> dict[int, tuple[int, int]]:
    """The action of each of a cast, and how it is known: all the same, each its own, or one unlike all others."""
    if dice.chance(TOGETHER_SHARE):
        previous = {before.get(who) for who in cast}
        return dict.fromkeys(cast, _doing(dice, previous.pop() if len(previous) == 1 else None))
    doings = {who: _doing(dice, before.get(who)) for who in cast}
    if len(cast) > 2 and dice.chance(0.5):
        odd = dice.pick(cast)
        together = dice.other(len(ACTIONS), doings[odd][0]), KNOWN_SAID
        doings = {who: doings[odd] if who == odd else together for who in cast}
    return doings


def _doing(dice: Dice, before: int | None) -> tuple[int, int]:
    """Mostly another action; or the one before, named again ("still") or not ("goes on")."""
    if before is None:
        return dice.pick(range(len(ACTIONS))), KNOWN_SAID
    if dice.chance(0.84):
        return dice.other(len(ACTIONS), before), KNOWN_SAID
    return before, dice.pick((KNOWN_SAID, KNOWN_CARRIED))


class _Invention:
    """A story while it is invented."""

    def __init__(self, dice: Dice, roster: Roster, source: Scene, split: str) -> None:
        self.dice, self.roster, self.split = dice, roster, split
        self.chronicle = Chronicle(source)
        self.num_seen = roster.num_source
        self.is_first = True
        self.to_tell_apart = roster.source_guests if len(roster.source_guests) > 1 else ()

    def frame(self) -> Scene:
        before = self.chronicle.cast
        owners = {who for has in self.chronicle.has.values() for who, value in has.items() if value}
        there = range(min(len(self.roster.characters), self.num_seen + 1))
        cast = next_cast(self.dice, before, there, owners)
        events = [*self._guest_events(cast), *self._comings_and_goings(before, cast)]
        if self.is_first and self.split == MISLEADING:
            events += contradictions(self.dice, self.chronicle, cast)
        events += scenery_events(self.dice, self.chronicle, events)
        events += object_events(self.dice, self.chronicle, cast, self.roster.guests, events)
        doings = _doings(self.dice, cast, self.chronicle.actions)
        known = cast_known(self.dice, self.roster, Telling(before, cast, doings, events, self.is_first))
        parts = [Appearance(who, doings[who][0], cast_known=known[who], action_known=doings[who][1]) for who in cast]
        self.num_seen = max(self.num_seen, max(cast) + 1)
        self.is_first = False
        return self.chronicle.scene(parts, events, self.roster.guests)

    def _guest_events(self, cast: tuple[int, ...]) -> list[Event]:
        """A guest whom no frame has shown is described; the first to come of two from the source is told apart."""
        events = [Event("looks", who) for who in cast if who >= self.num_seen and who in self.roster.guests]
        there = [who for who in self.to_tell_apart if who in cast]
        if there:
            who = self.dice.pick(there)
            events.append(Event("is_the_one", who, value=self._mark(who)))
            self.to_tell_apart = ()
        return events

    def _mark(self, who: int) -> int:
        """Something that the source shows of one of its two guests, and not of the other."""
        first, second = self.roster.source_guests
        one, other = self.roster.characters[first], self.roster.characters[second]
        differ = [i for i, mark in enumerate(MARKS[:3]) if getattr(one, mark) != getattr(other, mark)]
        return self.dice.pick([*differ, MARKS.index("left" if who == first else "right")])

    def _comings_and_goings(self, before: tuple[int, ...], cast: tuple[int, ...]) -> list[Event]:
        new, gone = [who for who in cast if who not in before], [who for who in before if who not in cast]
        is_switch = bool(new and gone)
        events: list[Event] = []
        if new and self.dice.chance(0.2 if is_switch else 0.7):
            events += [Event("arrives" if who >= self.num_seen else "comes_back", who) for who in new]
        if gone and self.dice.chance(0.15 if is_switch else 0.75):
            events += [Event("leaves", who) for who in gone]
        away = [who for who in range(self.num_seen) if who not in before and who not in cast]
        if away and self.dice.chance(0.08):
            events.append(Event("is_away", self.dice.pick(away)))
        return events
