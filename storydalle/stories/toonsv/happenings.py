"""What happens in a frame: hats and things change hands, places and the light change, or the caption names what is."""

from collections.abc import Iterator, Sequence, Set

from storydalle.stories.toon.world import HATS, PROPS, SETTINGS, TINTS
from storydalle.stories.toonsv.chronicle import OBJECT_OF, PLACE_EVENTS, Chronicle
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.facts import Event

NUM_EVENTS = {0: 0.45, 1: 0.38, 2: 0.17}  # about hats and things
OBJECT_WEIGHTS = {"hat": 0.58, "prop": 0.42}
MOST_EVENTS = 4  # of a caption, but for those who leave and come
KIND_WEIGHTS = {
    "puts_on": 3.6,
    "takes_off": 1.0,
    "gives_hat": 3.4,
    "swaps_hats": 4.0,
    "wears": 0.5,
    "takes_up": 2.2,
    "puts_down": 0.8,
    "gives_prop": 1.8,
    "swaps_props": 2.0,
    "holds": 0.5,
}
CROWDED = 0.35  # how much less often a hat is put on, or a thing taken up, where half of all have one
PLACE_SHARE = 0.27  # of frames where the place changes
LIGHT_SHARE = 0.12
STATIVE_SHARE = 0.05  # of frames that name the place, or the light, that already is
HOME_SHARE = 0.08


def object_events(
    dice: Dice, chronicle: Chronicle, cast: tuple[int, ...], guests: Sequence[int], events: Sequence[Event]
) -> list[Event]:
    """Up to two events of hats and things; no hat and no hand takes part in two."""
    leavers = tuple(event.who for event in events if event.kind == "leaves")
    touched = {pair for event in events for pair in _touched(event)}
    happened: list[Event] = []
    for _ in range(min(dice.weighted(NUM_EVENTS), max(0, MOST_EVENTS - len(events)))):
        name = dice.weighted(OBJECT_WEIGHTS)
        there, givers = (
            [who for who in group if name == "prop" or who not in guests] for group in (cast, (*cast, *leavers))
        )
        possible: dict[str, list[Event]] = {}
        taken = {event.value for event in (*events, *happened) if OBJECT_OF.get(event.kind) == "prop"}
        for event in _possible(dice, chronicle, name, there, givers, taken):
            if touched.isdisjoint(_touched(event)):
                possible.setdefault(event.kind, []).append(event)
        if not possible:
            continue
        weights = {kind: KIND_WEIGHTS[kind] * _room(chronicle, kind) for kind in possible}
        event = dice.pick(possible[dice.weighted(weights)])
        touched.update(_touched(event))
        happened.append(event)
    return happened


def _touched(event: Event) -> list[tuple[str, int]]:
    name = OBJECT_OF.get(event.kind)
    return [(name, who) for who in (event.who, event.whom) if who >= 0] if name else []


def _room(chronicle: Chronicle, kind: str) -> float:
    """Less room for another hat where many have one."""
    if kind not in ("puts_on", "takes_up"):
        return 1.0
    has = chronicle.has[OBJECT_OF[kind]]
    return CROWDED if 2 * sum(value > 0 for value in has.values()) >= len(has) > 1 else 1.0


def _possible(
    dice: Dice, chronicle: Chronicle, name: str, there: Sequence[int], givers: Sequence[int], taken: Set[int]
) -> Iterator[Event]:
    """What can happen to hats, or to things, now.

    A thing is in one hand only, so none that another event has ``taken`` is taken up. Hats there are enough.
    """
    gets, loses, gives, swaps, has = {
        "hat": ("puts_on", "takes_off", "gives_hat", "swaps_hats", "wears"),
        "prop": ("takes_up", "puts_down", "gives_prop", "swaps_props", "holds"),
    }[name]
    number = len(HATS if name == "hat" else PROPS)
    in_use = taken | set(chronicle.has["prop"].values()) if name == "prop" else set()
    have = {who: chronicle.have(name, who) for who in {*there, *givers}}
    for who in there:
        new = [value for value in range(1, number) if value not in in_use and value != have[who]]
        if new and (not have[who] or dice.chance(0.3)):
            yield Event(gets, who, value=dice.pick(new))
        if have[who]:
            yield Event(loses, who, value=have[who])
            yield Event(has, who, value=have[who])
            yield from (Event(swaps, who, w, have[who]) for w in there if w > who and have[w] not in (0, have[who]))
        elif dice.chance(0.2):
            yield Event(has, who, value=0)
    for who in givers:
        if have[who]:
            yield from (Event(gives, who, whom, have[who]) for whom in there if whom != who and not have[whom])


def scenery_events(dice: Dice, chronicle: Chronicle, events: Sequence[Event]) -> list[Event]:
    """Where they go, how the light changes, or that it is as it is; nothing of what is told already."""
    kinds = {event.kind for event in events}
    happened: list[Event] = []
    if not kinds & set(PLACE_EVENTS):
        comes = kinds & {"arrives", "comes_back", "leaves", "is_away"}
        if dice.chance(PLACE_SHARE / 3 if comes else PLACE_SHARE):
            happened.append(_journey(dice, chronicle))
        elif chronicle.home is None and dice.chance(HOME_SHARE):
            happened.append(Event("is_home", value=chronicle.setting))
        elif dice.chance(STATIVE_SHARE):
            happened.append(Event("is_in", value=chronicle.setting))
    if "is_time" not in kinds:
        if dice.chance(LIGHT_SHARE):
            happened.append(Event("turns", value=dice.other(len(TINTS), chronicle.light)))
        elif dice.chance(STATIVE_SHARE):
            happened.append(Event("is_time", value=chronicle.light))
    return happened


def _journey(dice: Dice, chronicle: Chronicle) -> Event:
    """To a new place, or back to one where they have been, by its name or without."""
    here, places = chronicle.setting, chronicle.places
    earlier, new = set(places) - {here}, set(range(len(SETTINGS))) - set(places)
    ways: dict[Event, float] = {Event("travels", value=dice.pick(sorted(new))): 2.0} if new else {}
    if earlier:
        ways[Event("returns", value=dice.pick(sorted(earlier)))] = 2.4
        ways[Event("returns_to_last", value=places[-2])] = 1.4
    if chronicle.start not in (None, here):
        ways[Event("returns_to_start", value=places[0])] = 1.4
    if chronicle.home is not None and chronicle.home != here:
        ways[Event("returns_home", value=chronicle.home)] = 4.0
    return dice.weighted(ways)


def contradictions(dice: Dice, chronicle: Chronicle, cast: tuple[int, ...]) -> list[Event]:
    """One or two things that the caption says otherwise than the source shows."""
    possible = [
        Event("is_in", value=dice.other(len(SETTINGS), chronicle.setting)),
        Event("is_time", value=dice.other(len(TINTS), chronicle.light)),
    ]
    in_use = set(chronicle.has["prop"].values())
    for who in cast:
        if hat := chronicle.have("hat", who):
            possible.append(Event("wears", who, value=dice.other(len(HATS), hat)))
        if chronicle.have("prop", who):
            prop = dice.other(len(PROPS), *(in_use - {0}))
            in_use.add(prop)
            possible.append(Event("holds", who, value=prop))
    return dice.shuffled(possible)[: 1 if dice.chance(0.6) else 2]
