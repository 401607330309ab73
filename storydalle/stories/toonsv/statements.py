"""The statements that a caption has to make about a frame, each with the facts that it tells."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from storydalle.stories.toon.assertions import Fact
from storydalle.stories.toon.world import ACTIONS, HATS, PROPS, SETTINGS, TINTS
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.facts import (
    KNOWN_CARRIED,
    KNOWN_PRONOUN,
    KNOWN_SAID,
    Event,
    Scene,
    Tale,
    look_words,
)

PLACING = ("travels", "returns", "returns_to_last", "returns_to_start", "returns_home", "is_in", "is_home")
LIGHTING = ("turns", "is_time")
ABOUT_GUESTS = ("looks", "is_the_one")


@dataclass(frozen=True)
class Statement:
    """One thing that a caption tells: an event, or that somebody ``acts``, ``goes_on`` or ``is_there``.

    ``who`` is empty for what is told of the whole cast without a subject.
    """

    kind: str
    who: tuple[int, ...] = ()
    whom: int = -1
    value: int = 0
    facts: tuple[Fact, ...] = ()
    adverb: str = ""  # still, again


def statements_of(tale: Tale, scene: Scene, frames: tuple[Scene, ...], dice: Dice) -> list[Statement]:
    """Return all that the caption of a frame tells, after the frames before."""
    statements = [_of_event(tale, event) for event in scene.events]
    statements += [replace(told, adverb=_adverb(told, frames, dice)) for told in _of_actions(tale, scene, dice)]
    told = {one for each in statements for one in (*each.who, each.whom)}
    for known in (KNOWN_SAID, KNOWN_PRONOUN):
        silent = tuple(one.who for one in scene.known_by(known) if one.who not in told)
        if silent:
            kind = "stays" if scene.told("leaves") and not scene.told("travels", "returns") else "is_there"
            statements.append(Statement(kind, silent, facts=_shown(tale, silent)))
    return statements


def _adverb(told: Statement, frames: tuple[Scene, ...], dice: Dice) -> str:
    """Still, where all did the same in the frame before; again, where they did it earlier."""
    if told.kind != "acts" or not dice.chance(0.4):
        return ""
    did = [[frame.of(one) for one in told.who] for frame in frames]
    same = [all(one and one.action == told.value for one in each) and bool(each) for each in did]
    if same and same[-1]:
        return "still"
    return "again" if any(same) else ""


def _of_actions(tale: Tale, scene: Scene, dice: Dice) -> Iterator[Statement]:
    """Those who do the same and are told by the same kind of words are told together, and sometimes all who do it."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    merges = dice.chance(0.35)
    for one in scene.shown:
        if one.action_known in (KNOWN_SAID, KNOWN_CARRIED):
            by = KNOWN_SAID if merges and one.cast_known == KNOWN_PRONOUN else one.cast_known
            action = one.action if one.action_known == KNOWN_SAID else -1
            groups.setdefault((one.action_known, action, by), []).append(one.who)
    for (known, action, by), who in groups.items():
        subject = () if by == KNOWN_CARRIED else tuple(who)
        if known == KNOWN_CARRIED:
            yield Statement("goes_on", subject, facts=_shown(tale, subject))
        else:
            facts = tuple(Fact("action", (tale.name(one),), ACTIONS[action]) for one in who)
            yield Statement("acts", subject, value=action, facts=facts)


def _shown(tale: Tale, who: tuple[int, ...]) -> tuple[Fact, ...]:
    return tuple(Fact("shown", (tale.name(one),)) for one in who)


def _of_event(tale: Tale, event: Event) -> Statement:
    who: tuple[int, ...] = () if event.who < 0 else (event.who,)
    if event.kind in ("swaps_hats", "swaps_props"):
        who = (event.who, event.whom)
    return Statement(event.kind, who, event.whom, event.value, tuple(_facts_of(tale, event)))


def _facts_of(tale: Tale, event: Event) -> Iterator[Fact]:
    name = (tale.name(event.who),) if event.who >= 0 else ()
    match event.kind:
        case "arrives" | "comes_back":
            yield Fact("shown", name)
        case "leaves" | "is_away":
            yield Fact("absent", name)
        case "puts_on" | "wears":
            yield Fact("hat", name, HATS[event.value])
        case "takes_off":
            yield Fact("hat", name, HATS[0])
        case "takes_up" | "holds":
            yield Fact("prop", name, PROPS[event.value])
        case "puts_down":
            yield Fact("prop", name, PROPS[0])
        case "gives_hat" | "gives_prop" | "swaps_hats" | "swaps_props":
            kind, values = ("hat", HATS) if event.kind.endswith(("hat", "hats")) else ("prop", PROPS)
            yield Fact(kind, (tale.name(event.whom),), values[event.value])
            if event.kind.startswith("gives"):
                yield Fact(kind, name, values[0])
        case "turns" | "is_time":
            yield Fact("light", value=TINTS[event.value])
        case "looks":
            guest = tale.guest(event.who)
            assert guest is not None
            for kind, value in zip(("color", "shape", "accessory"), look_words(guest), strict=True):
                yield Fact(kind, name, value)
        case kind if kind in PLACING:
            yield Fact("setting", value=SETTINGS[event.value])
