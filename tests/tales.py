"""A tale of ToonSV 2 by hand, in which everything happens that can happen, and how a reader starts to read a tale."""

from collections.abc import Sequence

from storydalle.stories.toon.world import ACTIONS, HATS, PROPS, SETTINGS, TINTS, Guest
from storydalle.stories.toonsv.facts import (
    KNOWN_CARRIED,
    KNOWN_PRONOUN,
    KNOWN_SAID,
    MARKS,
    UNSAID,
    Appearance,
    Event,
    Scene,
    Tale,
)
from tests.toon_mentions import Person
from tests.toon_reader import Frame, Reader

ROSTER = (0, 1, 2, Guest("Zub", 2, 6, 2), Guest("Mofa", 3, 5, 4), Guest("Kledi", 0, 2, 1))
PIP, LULU, BRUNO, ZUB, MOFA, KLEDI = range(len(ROSTER))
RED, BLUE = HATS.index("red"), HATS.index("blue")
BALL, FLOWER = PROPS.index("ball"), PROPS.index("flower")
BEACH, FOREST, CITY = map(SETTINGS.index, ("beach", "forest", "city"))
DAY, NIGHT = TINTS.index("day"), TINTS.index("night")
SAID, MEANT, SILENT = KNOWN_SAID, KNOWN_PRONOUN, KNOWN_CARRIED


OF_PROPS = ("takes_up", "puts_down", "gives_prop", "swaps_props", "holds")


class _Scenes:
    """Scenes one after another, with hats and things that last."""

    def __init__(self) -> None:
        self.hats, self.props = dict.fromkeys(range(len(ROSTER)), 0), dict.fromkeys(range(len(ROSTER)), 0)

    def scene(self, setting: int, light: int, doings: dict[int, tuple[int, str]], *events: Event) -> Scene:
        """``doings``: how each of the cast is known, and its action; "" if no words tell it."""
        for event in events:
            has = (
                self.props
                if event.kind in ("takes_up", "puts_down", "gives_prop", "swaps_props", "holds")
                else self.hats
            )
            if event.kind in ("puts_on", "wears", "takes_up", "holds"):
                has[event.who] = event.value
            elif event.kind in ("takes_off", "puts_down"):
                has[event.who] = 0
            elif event.whom >= 0:
                other = has[event.whom] if event.kind.startswith("swaps") else 0
                has[event.who], has[event.whom] = other, has[event.who]
        shown = tuple(
            Appearance(
                who,
                ACTIONS.index(action or "waves"),
                self.props[who],
                self.hats[who],
                known,
                KNOWN_SAID if action else UNSAID,
            )
            for who, (known, action) in sorted(doings.items())
        )
        return Scene(shown, setting, light, events=events)


def tale_of_everything(split: str, index: int) -> Tale:
    """Every kind of event, and everybody known in every way; ``index`` changes its words alone."""
    scenes = _Scenes()
    of = scenes.scene
    source = of(BEACH, DAY, {PIP: (UNSAID, "sits"), ZUB: (UNSAID, "waves"), MOFA: (UNSAID, "cries")})
    targets = (
        of(BEACH, DAY, {PIP: (SAID, "runs"), ZUB: (SAID, "sleeps"), MOFA: (SAID, "sleeps")},
           Event("is_the_one", ZUB, value=MARKS.index("shape")), Event("puts_on", PIP, value=RED)),
        of(BEACH, DAY, {PIP: (MEANT, "dances"), ZUB: (MEANT, "dances")}, Event("leaves", MOFA)),
        of(BEACH, DAY, {PIP: (MEANT, "jumps"), ZUB: (MEANT, "jumps"), LULU: (SAID, "cries")}, Event("arrives", LULU)),
        of(FOREST, DAY, {PIP: (SAID, "waves"), ZUB: (SAID, ""), LULU: (SAID, "cheers")},
           Event("travels", value=FOREST), Event("gives_hat", PIP, LULU, RED), Event("takes_up", PIP, value=BALL)),
        of(FOREST, NIGHT, {PIP: (SILENT, "dances"), ZUB: (SILENT, "dances"), LULU: (SILENT, "dances")},
           Event("turns", value=NIGHT)),
        of(FOREST, NIGHT, {PIP: (SAID, "runs"), LULU: (SAID, "runs"), BRUNO: (SAID, "runs")}, Event("leaves", ZUB),
           Event("arrives", BRUNO), Event("gives_prop", PIP, BRUNO, BALL), Event("puts_on", BRUNO, value=BLUE)),
        of(BEACH, NIGHT, {PIP: (SAID, "sits"), LULU: (SAID, "sits"), BRUNO: (SAID, "cries")},
           Event("returns", value=BEACH), Event("swaps_hats", LULU, BRUNO, RED), Event("takes_up", LULU, value=FLOWER)),
        of(BEACH, NIGHT, {PIP: (SAID, "sits"), LULU: (SAID, "cheers"), BRUNO: (SAID, "cheers")},
           Event("swaps_props", LULU, BRUNO, FLOWER), Event("is_away", ZUB)),
        of(FOREST, NIGHT, {LULU: (MEANT, "sleeps")}, Event("returns_to_last", value=FOREST),
           Event("takes_off", LULU, value=BLUE)),
        of(FOREST, NIGHT, {LULU: (SAID, "waves"), PIP: (SAID, "waves")}, Event("comes_back", PIP),
           Event("is_home", value=FOREST)),
        of(CITY, NIGHT, {LULU: (MEANT, "jumps"), PIP: (MEANT, "runs")}, Event("travels", value=CITY),
           Event("puts_down", LULU, value=BALL), Event("is_time", value=NIGHT)),
        of(FOREST, NIGHT, {LULU: (SAID, "runs"), PIP: (MEANT, "sits")}, Event("returns_home", value=FOREST),
           Event("wears", LULU, value=0), Event("holds", LULU, value=0)),
        of(FOREST, DAY, {LULU: (SAID, "dances"), PIP: (SAID, "dances"), KLEDI: (SAID, "sits")}, Event("arrives", KLEDI),
           Event("looks", KLEDI), Event("turns", value=DAY)),
        of(BEACH, DAY, {LULU: (MEANT, "cheers"), PIP: (MEANT, "cheers"), KLEDI: (MEANT, "cheers")},
           Event("returns_to_start", value=BEACH)),
        of(BEACH, DAY, {BRUNO: (SAID, "sleeps")}, Event("wears", BRUNO, value=RED), Event("holds", BRUNO, value=FLOWER),
           Event("is_in", value=BEACH)),
    )  # fmt: skip
    return Tale(split, index, ROSTER, source, targets)


def reader_of(tale: Tale) -> Reader:
    """A reader who has seen the source of a tale."""
    names = names_of(tale)
    hats, props = dict.fromkeys(names, "none"), dict.fromkeys(names, "none")
    for one in tale.source.shown:
        hats[tale.name(one.who)], props[tale.name(one.who)] = HATS[one.hat], PROPS[one.prop]
    people = [Person(name, tale.pronoun(who)) for who, name in enumerate(names)]
    source = tale.source
    return Reader(
        people, Frame(frozenset(shown_in(tale, source)), SETTINGS[source.setting], TINTS[source.light], hats, props)
    )


def names_of(tale: Tale) -> list[str]:
    return [tale.name(who) for who in range(len(tale.roster))]


def shown_in(tale: Tale, scene: Scene) -> Sequence[str]:
    return [tale.name(who) for who in scene.cast]
