"""Captions of ToonSV, which name some facts of a frame, and full descriptions, which name all of them.

Captions name characters and their actions, a prop, a hat that is put on or taken off, and a new setting. They never
name the tint, a guest's look, a hat that is still worn, or a setting that has not changed. The wording has its own
random stream, so it does not change the facts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from storydalle.stories.toon.world import (
    ACCESSORIES,
    ACTIONS,
    CHARACTERS,
    COLORS,
    GUEST,
    HATS,
    PRONOUN,
    PRONOUNS,
    PROPS,
    SAID,
    SETTINGS,
    SHAPES,
    TINTS,
    FrameFacts,
    StoryFacts,
    generator,
)

T = TypeVar("T")

# (singular, plural) verb phrases
VERBS: dict[str, tuple[tuple[str, str], ...]] = {
    "waves": (
        ("waves", "wave"),
        ("waves hello", "wave hello"),
        ("is waving", "are waving"),
        ("says hello with a wave", "say hello with a wave"),
        ("gives a friendly wave", "give a friendly wave"),
    ),
    "jumps": (
        ("jumps", "jump"),
        ("jumps up high", "jump up high"),
        ("is jumping", "are jumping"),
        ("leaps into the air", "leap into the air"),
        ("hops up and down", "hop up and down"),
    ),
    "sits": (
        ("sits", "sit"),
        ("sits down", "sit down"),
        ("is sitting", "are sitting"),
        ("takes a seat", "take a seat"),
        ("sits down to rest", "sit down to rest"),
    ),
    "sleeps": (
        ("sleeps", "sleep"),
        ("falls asleep", "fall asleep"),
        ("is sleeping", "are sleeping"),
        ("takes a nap", "take a nap"),
        ("snoozes", "snooze"),
    ),
    "runs": (
        ("runs", "run"),
        ("runs fast", "run fast"),
        ("is running", "are running"),
        ("races along", "race along"),
        ("dashes along", "dash along"),
    ),
    "dances": (
        ("dances", "dance"),
        ("dances to the music", "dance to the music"),
        ("is dancing", "are dancing"),
        ("does a happy dance", "do a happy dance"),
        ("twirls and dances", "twirl and dance"),
    ),
    "cries": (
        ("cries", "cry"),
        ("bursts into tears", "burst into tears"),
        ("is crying", "are crying"),
        ("weeps", "weep"),
        ("sobs loudly", "sob loudly"),
    ),
    "cheers": (
        ("cheers", "cheer"),
        ("cheers loudly", "cheer loudly"),
        ("is cheering", "are cheering"),
        ("shouts hooray", "shout hooray"),
        ("celebrates", "celebrate"),
    ),
}
PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("in the meadow", "in a flowery meadow", "in a grassy field", "out on the grass"),
    "beach": ("at the beach", "on the sandy beach", "by the sea", "at the seaside"),
    "forest": ("in the forest", "in the woods", "among the trees", "deep in the forest"),
    "snow": ("in the snow", "out in the snow", "on a snowy hill", "in the snowy mountains"),
    "desert": ("in the desert", "in the hot desert", "among the dunes", "near the pyramid in the desert"),
    "city": ("in the city", "in town", "on a busy city street", "downtown"),
    "kitchen": ("in the kitchen", "in a cosy kitchen", "in the warm kitchen", "on the kitchen floor"),
    "moon": ("on the moon", "up on the moon", "on the surface of the moon", "far away on the moon"),
}
TRIPS: dict[str, tuple[str, ...]] = {
    "meadow": ("to the meadow", "to a grassy field"),
    "beach": ("to the beach", "to the seaside"),
    "forest": ("to the forest", "into the woods"),
    "snow": ("into the snow", "to the snowy mountains"),
    "desert": ("to the desert", "into the hot desert"),
    "city": ("to the city", "into town"),
    "kitchen": ("to the kitchen", "into the kitchen"),
    "moon": ("to the moon", "up to the moon"),
}
THINGS: dict[str, tuple[str, ...]] = {
    "ball": ("a ball", "a round ball", "a bouncy ball", "a toy ball"),
    "balloon": ("a balloon", "a big balloon", "a shiny balloon", "a party balloon"),
    "flower": ("a flower", "a pretty flower", "a fresh flower", "a daisy"),
    "flag": ("a flag", "a little flag", "a small flag", "a pennant"),
    "umbrella": ("an umbrella", "an open umbrella", "a parasol", "a big umbrella"),
    "lantern": ("a lantern", "a glowing lantern", "a lamp", "a bright lantern"),
}
HOLDS = ("holds", "is holding", "carries", "has")
PUTS_ON = ("puts on a {} hat", "puts a {} hat on", "tries on a {} hat", "pops on a {} hat")
TAKES_OFF = ("takes off the hat", "takes the hat off", "removes the hat", "puts the hat away")
TRAVELS = (("goes", "go"), ("comes", "come"), ("travels", "travel"), ("heads", "head"))
OPENERS = ("", "", "", "", "Now ", "Then ", "Next, ", "After that, ")
LIGHTS: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight"),
    "dusk": ("at dusk", "at sunset"),
    "night": ("at night", "by night"),
}
ACCESSORY_WORDS = {
    "antennae": "with antennae",
    "horns": "with horns",
    "glasses": "with glasses",
    "scarf": "with a scarf",
    "bow": "with a bow",
    "sprout": "with a sprout",
}
assert (*VERBS, *PLACES, *THINGS, *LIGHTS, *ACCESSORY_WORDS) == (*ACTIONS, *SETTINGS, *PROPS[1:], *TINTS, *ACCESSORIES)


def vocabulary() -> dict[str, dict[str, tuple[str, ...]]]:
    """Phrases of captions by a heading and by what they tell; of a verb, its form for one and its form for several."""
    colors = {color: (color,) for color in HATS[1:]}
    hats = {"puts on": tuple(words.format("red") for words in PUTS_ON), "takes off": TAKES_OFF}
    return {
        "actions": {action: tuple("/".join(dict.fromkeys(pair)) for pair in verbs) for action, verbs in VERBS.items()},
        "things": THINGS | {"has": HOLDS},
        "hats": colors | hats,
        "settings": {setting: words + TRIPS[setting] for setting, words in PLACES.items()}
        | {"goes there": tuple("/".join(pair) for pair in TRAVELS)},
        "only in full descriptions": LIGHTS | {accessory: (words,) for accessory, words in ACCESSORY_WORDS.items()},
        "words that tell no fact": {"openings": tuple(words.strip(" ,") for words in dict.fromkeys(OPENERS) if words)},
    }


@dataclass(frozen=True)
class Clauses:
    """The parts of a sentence; those that are None are left out."""

    subject: str
    plural: bool
    action: str
    first: str | None = None  # who holds the prop, where the subject is several
    place: str | None = None
    trip: str | None = None
    thing: str | None = None
    wearer: str | None = None  # who puts on a hat, where the subject is several
    dressing: str | None = None


def captions_of(facts: StoryFacts) -> list[str]:
    """One caption for each target frame."""
    rng = generator("captions", facts.split, facts.index, len(facts.targets))
    return [_caption(rng, facts, frame, position) for position, frame in enumerate(facts.targets)]


def descriptions_of(facts: StoryFacts) -> list[str]:
    """One full description for each frame, the source's first."""
    rng = generator("descriptions", facts.split, facts.index, len(facts.targets))
    return [_description(rng, facts, frame) for frame in facts.frames]


def name_of(facts: StoryFacts, character: int) -> str:
    """The name of a character in captions."""
    if character == GUEST:
        assert facts.guest is not None
        return facts.guest.name
    return CHARACTERS[character].capitalize()


def _caption(rng: np.random.Generator, facts: StoryFacts, frame: FrameFacts, position: int) -> str:
    names = [name_of(facts, character) for character in frame.cast]
    is_said = frame.setting_known == SAID
    dressing = wearer = None
    if frame.event:
        dressing = _pick(rng, PUTS_ON if frame.event.hat else TAKES_OFF).format(HATS[frame.event.hat])
        wearer = name_of(facts, frame.event.wearer)
    several = len(names) > 1
    verbs = VERBS[ACTIONS[frame.action]]
    if is_said or (dressing and not several):
        verbs = tuple(verb for verb in verbs if not verb[0].startswith("is "))  # "goes to town and is dancing"
    clauses = Clauses(
        subject=_pronoun(frame) if frame.cast_known == PRONOUN else _listed(names),
        plural=several,
        action=_pick(rng, verbs)[several],
        first=names[0] if several else None,
        place=_pick(rng, PLACES[SETTINGS[frame.setting]]) if is_said else None,
        trip=_pick(rng, TRIPS[SETTINGS[frame.setting]]) if is_said else None,
        thing=_pick(rng, THINGS[PROPS[frame.prop]]) if frame.prop else None,
        wearer=wearer if several else None,
        dressing=dressing,
    )
    opener = _pick(rng, OPENERS) if position else ""
    return _sentence(rng, clauses, opener)


def _sentence(rng: np.random.Generator, clauses: Clauses, opener: str) -> str:
    """Join the clauses in one of several orders."""
    main = _main_clause(rng, clauses)
    if clauses.place is None:
        sentence = opener + main
    else:
        form = int(rng.integers(5))
        if form < 2:
            sentence = f"{opener}{clauses.place}, {main}"
        elif form < 4:
            sentence = opener + _travelling(rng, clauses)
        else:
            sentence = opener + _main_clause(rng, clauses, clauses.place)
    return _start(sentence) + "."


def _main_clause(rng: np.random.Generator, clauses: Clauses, place: str | None = None) -> str:
    """Subject, action and its details; starts with a name, or with a pronoun in lower case."""
    base = f"{clauses.subject} {clauses.action}" + (f" {place}" if place else "")
    if clauses.thing:
        return _with_prop(rng, clauses, base)
    if clauses.dressing:
        return _with_hat(rng, clauses, base)
    return base


def _with_prop(rng: np.random.Generator, clauses: Clauses, base: str) -> str:
    holds = _pick(rng, HOLDS)
    if clauses.first:
        forms = (
            f"{base}, and {clauses.first} {holds} {clauses.thing}",
            f"{base} while {clauses.first} {holds} {clauses.thing}",
            f"{base}; {clauses.first} {holds} {clauses.thing}",
            f"{base}. {clauses.first} {holds} {clauses.thing}",
        )
    else:
        forms = (
            f"{base} with {clauses.thing}",
            f"{base}, holding {clauses.thing}",
            f"{base} and {'holds' if holds == 'has' else holds} {clauses.thing}",
            f"{base} with {clauses.thing} in hand",
        )
    return _pick(rng, forms)


def _with_hat(rng: np.random.Generator, clauses: Clauses, base: str) -> str:
    dressing = clauses.dressing
    if clauses.wearer:
        forms = (
            f"{base}, and {clauses.wearer} {dressing}",
            f"{base} while {clauses.wearer} {dressing}",
            f"{base}; {clauses.wearer} {dressing}",
            f"{base}. {clauses.wearer} {dressing}",
        )
    else:
        forms = (
            f"{base} and {dressing}",
            f"{clauses.subject} {dressing} and{base.removeprefix(clauses.subject)}",
            f"{clauses.subject} {dressing}, then{base.removeprefix(clauses.subject)}",
            f"{base}, then {dressing}",
        )
    return _pick(rng, forms)


def _travelling(rng: np.random.Generator, clauses: Clauses) -> str:
    """As in "Pip goes to the beach and waves"."""
    verb = _pick(rng, TRAVELS)[clauses.plural]
    rest = _main_clause(rng, clauses).removeprefix(clauses.subject)
    return f"{clauses.subject} {verb} {clauses.trip} and{rest}"


def _description(rng: np.random.Generator, facts: StoryFacts, frame: FrameFacts) -> str:
    names = [_described(facts, frame, character) for character in frame.cast]
    several = len(names) > 1
    action = _pick(rng, VERBS[ACTIONS[frame.action]])[several]
    place = _pick(rng, PLACES[SETTINGS[frame.setting]])
    light = _pick(rng, LIGHTS[TINTS[facts.tint]])
    subject = _listed(names)
    thing = ""
    if frame.prop:
        holder = f", and {name_of(facts, frame.cast[0])} {_pick(rng, HOLDS)}" if several else ", holding"
        thing = f"{holder} {_pick(rng, THINGS[PROPS[frame.prop]])}"
    forms = (
        f"{subject} {action} {place} {light}{thing}.",
        f"{_start(place)} {light}, {subject} {action}{thing}.",
        f"{_start(light)}, {subject} {action} {place}{thing}.",
    )
    return _pick(rng, forms)


def _described(facts: StoryFacts, frame: FrameFacts, character: int) -> str:
    name = name_of(facts, character)
    if character == GUEST and facts.guest:
        guest = facts.guest
        return f"{name} the {COLORS[guest.color]} {SHAPES[guest.shape]} {ACCESSORY_WORDS[ACCESSORIES[guest.accessory]]}"
    hat = frame.hats[character]
    return f"{name} in a {HATS[hat]} hat" if hat else name


def _pronoun(frame: FrameFacts) -> str:
    return "they" if len(frame.cast) > 1 else PRONOUNS[frame.cast[0]]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _start(text: str) -> str:
    return text[0].upper() + text[1:]


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
