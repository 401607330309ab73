"""What holds in a story after each of its captions: events in, scenes out, with how each fact is known."""

from collections.abc import Sequence
from dataclasses import replace

from storydalle.stories.toonsv.facts import (
    KNOWN_CARRIED,
    KNOWN_SAID,
    RETURNED,
    SOURCE,
    UNSAID,
    Appearance,
    Event,
    Scene,
)

OBJECTS = ("hat", "prop")  # what a character can have one each of
GETS = {"puts_on": "hat", "wears": "hat", "takes_up": "prop", "holds": "prop"}
LOSES = {"takes_off": "hat", "puts_down": "prop"}
GIVES = {"gives_hat": "hat", "gives_prop": "prop"}
SWAPS = {"swaps_hats": "hat", "swaps_props": "prop"}
OBJECT_OF = GETS | LOSES | GIVES | SWAPS  # of an event
NAMES_PLACE = ("travels", "returns", "is_in", "is_home")
RETURNS_UNNAMED = ("returns_to_last", "returns_to_start", "returns_home")
PLACE_EVENTS = (*NAMES_PLACE, *RETURNS_UNNAMED)
LIGHT_EVENTS = ("turns", "is_time")


class Chronicle:
    """The state of a story: whoever is away keeps a hat and a thing, and the place is one for all."""

    def __init__(self, source: Scene) -> None:
        self.cast = source.cast
        self.has: dict[str, dict[int, int]] = {
            "hat": {one.who: one.hat for one in source.shown},
            "prop": {one.who: one.prop for one in source.shown},
        }
        self.known = {name: {who: SOURCE for who, value in has.items() if value} for name, has in self.has.items()}
        self.looks_known = dict.fromkeys(source.cast, SOURCE)
        self.actions = {one.who: one.action for one in source.shown}  # of the last frame
        self.places = [source.setting]  # one after another; the last one is the present one
        self.start: int | None = source.setting  # None once a caption has said that the source shows another place
        self.home: int | None = None
        self.light = source.light
        self.setting_known = self.light_known = SOURCE

    @property
    def setting(self) -> int:
        return self.places[-1]

    def have(self, name: str, who: int) -> int:
        """The hat or the prop of a character, shown or not; 0 for none."""
        return self.has[name].get(who, 0)

    def scene(self, parts: Sequence[Appearance], events: Sequence[Event], guests: Sequence[int]) -> Scene:
        """The next frame, of characters with their actions, and of the events that its caption tells."""
        said = {pair for event in events for pair in self._apply(event)}
        for name, who in said:  # also of one who gives something and leaves
            self.known.get(name, self.looks_known)[who] = KNOWN_CARRIED
        setting_known, light_known = self._scenery_known(events)
        shown = tuple(self._appearance(part, said, part.who in guests) for part in parts)
        self.cast = tuple(one.who for one in shown)
        self.actions = {one.who: one.action for one in shown}
        return Scene(shown, self.setting, self.light, setting_known, light_known, tuple(events))

    def _apply(self, event: Event) -> list[tuple[str, int]]:
        """Let an event happen; whose hat, prop or look it told."""
        kind, who, whom = event.kind, event.who, event.whom
        if kind in PLACE_EVENTS:
            self._go(event)
        elif kind in LIGHT_EVENTS:
            self.light = event.value
        elif kind == "looks":
            return [("look", who)]
        if kind not in OBJECT_OF:
            return []
        name = OBJECT_OF[kind]
        has = self.has[name]
        if kind in GETS:
            has[who] = event.value
            return [(name, who)]
        has[who] = self.have(name, whom) if kind in SWAPS else 0
        if kind in LOSES:
            return [(name, who)]
        has[whom] = event.value
        return [(name, who), (name, whom)]

    def _go(self, event: Event) -> None:
        if event.kind == "is_home":
            self.home = event.value
        if event.kind == "is_in" and event.value != self.setting:
            self.places, self.start = [event.value], None  # the picture was wrong, and nobody has been there
        elif event.value != self.setting:
            self.places.append(event.value)

    def _scenery_known(self, events: Sequence[Event]) -> tuple[int, int]:
        """How the setting and the light are known in this frame; from then on, what was told is carried."""
        kinds = {event.kind for event in events}
        setting = KNOWN_SAID if kinds & set(NAMES_PLACE) else RETURNED if kinds & set(RETURNS_UNNAMED) else None
        light = KNOWN_SAID if kinds & set(LIGHT_EVENTS) else None
        known = setting or self.setting_known, light or self.light_known
        self.setting_known = KNOWN_CARRIED if setting else self.setting_known
        self.light_known = KNOWN_CARRIED if light else self.light_known
        return known

    def _appearance(self, part: Appearance, said: set[tuple[str, int]], is_guest: bool) -> Appearance:
        who = part.who
        known = {name: self._known(name, who, said) for name in OBJECTS}
        look = KNOWN_SAID if ("look", who) in said else self.looks_known.get(who, UNSAID)
        return replace(
            part,
            hat=self.have("hat", who),
            prop=self.have("prop", who),
            hat_known=known["hat"],
            prop_known=known["prop"],
            look_known=look if is_guest else UNSAID,
        )

    def _known(self, name: str, who: int, said: set[tuple[str, int]]) -> int:
        known = self.known[name].get(who, UNSAID)
        if (name, who) in said:
            return KNOWN_SAID
        return RETURNED if known and who not in self.cast else known
