"""The words of ToonSV 2 by the facts that they tell, taken from the lists that its captions are written with."""

from functools import cache

from storydalle.stories.toon.names import NAMED
from storydalle.stories.toon.world import SPECIES
from storydalle.stories.toonsv import lexicon, predicates, reference, sentences, whereabouts
from storydalle.stories.toonsv.inflection import forms_of

SLOTS = {
    "{own}": "their",
    "{self}": "themselves",
    "{whom}": "somebody",
    "{who}": "somebody",
    "{whose_hat}": "somebody's hat",
    "{whose_thing}": "somebody's thing",
    "{the_hat}": "the hat",
    "{the_thing}": "the thing",
    "{hat}": "a hat",
    "{thing}": "a thing",
    "{kind}": "hats",
    "{}": "somewhere",
}


def vocabulary() -> dict[str, dict[str, tuple[str, ...]]]:
    """Phrases of captions by a heading and by what they tell; a verb stands for all of its forms."""
    places = {
        setting: tuple(f"{'/'.join(dict.fromkeys(part[:2]))} {part[2]}".strip() for part in parts)
        for setting, parts in whereabouts.PLACES.items()
    }
    lights = {light: words + whereabouts.LIGHT_TURNS[light] for light, words in whereabouts.LIGHTS.items()}
    told = {
        "characters": _characters(),
        "actions": lexicon.ACTION_WORDS,
        "how and why they do it": {
            action: words + predicates.REASONS.get(action, ()) for action, words in lexicon.MANNERS.items()
        },
        "things": lexicon.THINGS | {"any": lexicon.THING_NEW},
        "hats": lexicon.HAT_COLORS | {"hat": lexicon.HAT_NOUNS, "any": lexicon.NEW},
        "settings": places,
        "lights": lights,
        "guests": lexicon.SHAPE_WORDS | lexicon.ACCESSORY_WORDS,
        "who comes, stays and goes": _comings(),
        "hats and things change hands": _hands(),
        "ways": _ways(),
        "words that tell no fact": _idle(),
    }
    return {heading: {key: _shown(words) for key, words in rows.items()} for heading, rows in told.items()}


def _characters() -> dict[str, tuple[str, ...]]:
    kinds = {NAMED[SPECIES.index(kind)].capitalize(): words for kind, words in lexicon.SPECIES_WORDS.items()}
    tables = (reference.OBJECTS, reference.OWNERS, reference.SELVES)
    pronouns = {one: (one, *dict.fromkeys(table[one] for table in tables)) for one in reference.OBJECTS}
    groups = tuple(words for pair in reference.GENDERED.values() for words in pair)
    return {**kinds, **pronouns, "groups": (*groups, *reference.NUMBERS.values()), "any": lexicon.LITTLE}


def _comings() -> dict[str, tuple[str, ...]]:
    return {
        "comes": lexicon.ARRIVES + lexicon.JOINS,
        "comes back": lexicon.COMES_BACK + lexicon.REJOINS,
        "leaves": lexicon.LEAVES,
        "is away": lexicon.IS_AWAY,
        "stays": lexicon.STAYS,
        "alone": lexicon.ALONE,
        "goes on": lexicon.GOES_ON,
    }


def _hands() -> dict[str, tuple[str, ...]]:
    return {
        "puts on a hat": lexicon.PUTS_ON,
        "takes it off": lexicon.TAKES_OFF,
        "gives it": lexicon.GIVES_HAT,
        "gets it": lexicon.GETS_HAT,
        "takes up a thing": lexicon.TAKES_UP,
        "puts it down": lexicon.PUTS_DOWN,
        "hands it on": lexicon.GIVES_THING,
        "gets it from": lexicon.GETS_THING,
        "swaps": lexicon.SWAPS + lexicon.SWAPS_WITH,
        "has": lexicon.WEARS + lexicon.HOLDS,
        "has none": lexicon.NO_HAT + lexicon.NO_THING,
        "beside a verb": tuple(phrase for words in lexicon.ADJUNCTS.values() for phrase in words),
    }


def _ways() -> dict[str, tuple[str, ...]]:
    return {
        "to a place": predicates.VERBS_OF_TRIPS,
        "back to one": predicates.VERBS_OF_RETURNS + predicates.BACK,
        "to the last": predicates.TO_LAST + predicates.AT_LAST,
        "to the first": predicates.TO_START + predicates.AT_START,
        "home": predicates.HOME + predicates.AT_HOME,
    }


def _idle() -> dict[str, tuple[str, ...]]:
    return {
        "about somebody": lexicon.IDLE,
        "openings": sentences.FIRST_OPENERS + sentences.OPENERS,
        "remarks": sentences.REMARKS,
        "sayings": sentences.SAYINGS + sentences.WISHES,
        "joints": sentences.JOINS + sentences.LEADING + sentences.LEADING_EVENTS,
    }


def _shown(phrases: tuple[str, ...]) -> tuple[str, ...]:
    """Phrases of the lexicon as they are read by people, each once."""
    found: dict[str, None] = {}
    for phrase in phrases:
        words = phrase.removeprefix("~").replace("+", "")
        for slot, shown in SLOTS.items():
            words = words.replace(slot, shown)
        words = words.strip(" ,;.!?").replace(" ,", ",")
        if words:
            found[words] = None
    return tuple(found)


@cache
def meanings() -> dict[str, tuple[str, ...]]:
    """For single words that mean one thing of this world: the words that name it, the likest form first.

    ``galloped`` is told by "ran" or "runs", ``meadow`` and ``lawn`` by "meadow", ``rabbit`` by "Lulu".
    """
    found: dict[str, set[tuple[str, ...]]] = {}

    def add(word: str, *told: str) -> None:
        found.setdefault(word, set()).add(told)

    for form, told in forms_of_actions().items():
        add(form, *told)
    for kind, phrases in lexicon.SPECIES_WORDS.items():
        for word in _single(phrases):
            add(word, NAMED[SPECIES.index(kind)])
    for table in (lexicon.THINGS, lexicon.HAT_COLORS, {"hat": lexicon.HAT_NOUNS}):
        for value, phrases in table.items():
            for word in _single(phrases):
                add(word, value)
    for setting, parts in whereabouts.PLACES.items():
        for *_, place in parts:
            add(place.split()[-1], setting)
    return {word: told.pop() for word, told in found.items() if len(told) == 1}


@cache
def forms_of_actions() -> dict[str, tuple[str, str]]:
    """The forms of verbs that are an action by themselves: the same form of its first verb, and the action."""
    found: dict[str, tuple[str, str]] = {}
    for action, phrases in lexicon.ACTION_WORDS.items():
        first, *others = (forms_of(verb) for verb in _single(phrases))
        for forms in (first, *others):
            for form, likest in zip(forms, first, strict=True):
                found.setdefault(form, (likest, action))
    return found


def _single(phrases: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(phrase for phrase in dict.fromkeys(phrases) if " " not in phrase)
