"""The facts of a story of ToonSV 2, how a reader can know each, and what its captions have to tell.

A ``Tale`` is a source ``Scene`` and target scenes. Values are indices of the tuples of names in
``storydalle.stories.toon.world`` (``ACTIONS``, ``PROPS``, ``HATS``, ``SETTINGS``, ``TINTS``); 0 is "none" of hats and
props. A character is an index of the tale's ``roster``. What is true of a frame given its captions is told by
``storydalle/stories/toon/people/README.md``; ``known`` says by which way, and ``Scene.events`` what the caption tells
besides who is shown and what they do.
"""

from dataclasses import dataclass
from typing import TypeAlias

from storydalle.stories.toon.assertions import Fact
from storydalle.stories.toon.names import NAMED
from storydalle.stories.toon.world import (
    ACCESSORIES,
    ACTIONS,
    COLORS,
    HATS,
    PRONOUNS,
    PROPS,
    SETTINGS,
    SHAPES,
    TINTS,
    Guest,
)

KNOWN = ("unsaid", "source", "said", "pronoun", "carried", "returned")
"""How a fact of a frame is known.

- unsaid: nothing tells it. An action that no caption says; the hat or thing of one who never had any. All of a source.
- source: the source frame shows it, and it is still so.
- said: the caption of this frame says it. Of a cast: names the character (or its kind: "the bunny").
- pronoun: only of a cast: the caption means the character by "he", "she", "it", "they", "both", "all three",
  "the others", "everybody" and the like, and does not name it.
- carried: it follows from frames before. Of a cast: the caption does not mention the character (see ``Scene``). Of an
  action: the caption says that the character goes on, but not with what. Of a hat, a thing, a setting, a light: a
  caption told it before, and nothing has changed it. Of a look: a caption described it before.
- returned: carried, and the character was not shown in the frame before. Of a setting: the caption goes back to an
  earlier place without its name.
"""
UNSAID, SOURCE, KNOWN_SAID, KNOWN_PRONOUN, KNOWN_CARRIED, RETURNED = range(len(KNOWN))

EVENTS = (
    # Who comes and goes: the caption tells it beside or within what they do.
    "arrives",  # who was not in the frame before and never shown, and comes
    "comes_back",  # who was shown earlier, was not in the frame before, and comes
    "leaves",  # who was in the frame before and is not in this one
    "is_away",  # who is shown neither now nor in the frame before; the caption says so ("without Lulu")
    # Hats and things: value is the hat or the prop that changes its place.
    "puts_on",  # who wears the hat now, instead of none or of another
    "takes_off",  # who wore the hat and wears none now (takes off, loses, ...)
    "gives_hat",  # who wore it, whom wears it now (gives, passes on; whom takes or gets it from who)
    "swaps_hats",  # who and whom wore a hat each and wear the other's now; value is the one that whom wears now
    "takes_up",  # who holds the prop now, instead of none or of another
    "puts_down",  # who held the prop and holds none now
    "gives_prop",
    "swaps_props",
    # Place and light: who is -1.
    "travels",  # to the setting, which is new in the story
    "returns",  # to an earlier setting, which the caption names
    "returns_to_last",  # to the setting before the present one, without its name ("back where they came from")
    "returns_to_start",  # to the source's setting, without its name ("back where it all began")
    "returns_home",  # to the setting of an earlier ``is_home``, without its name ("they go home")
    "turns",  # the light of day changes
    # States that the caption says, though nothing changes (or though the source shows something else).
    "wears",  # who wears the hat (0: no hat)
    "holds",  # who holds the prop (0: nothing)
    "is_in",  # they are in the setting
    "is_home",  # they are at home in the setting, which the caption names and calls their home
    "is_time",  # it is this light
    "looks",  # the guest is of its whole look: colour, shape and accessory
    "is_the_one",  # of two guests in the source this is the one with the mark (value of MARKS): see ``mark_words``
)
MARKS = ("color", "shape", "accessory", "left", "right")

Character: TypeAlias = int | Guest  # an index of NAMED, or a guest


@dataclass(frozen=True)
class Appearance:
    """One character in a frame. The four ``known`` are indices of ``KNOWN``; ``look_known`` is unsaid of named ones."""

    who: int
    action: int
    prop: int = 0
    hat: int = 0
    cast_known: int = UNSAID
    action_known: int = UNSAID
    prop_known: int = UNSAID
    hat_known: int = UNSAID
    look_known: int = UNSAID


@dataclass(frozen=True)
class Event:
    """Something that the caption of a frame tells: one of ``EVENTS``. Values are indices, by the kind of event."""

    kind: str
    who: int = -1
    whom: int = -1
    value: int = 0


@dataclass(frozen=True)
class Scene:
    """A frame. ``shown`` goes from left to right.

    The caption tells exactly:

    - of each shown whose ``cast_known`` is said: its name or kind;
    - of all whose ``cast_known`` is pronoun: that they are there, without a name. If all of them do the same, a word
      for all of them together will do ("they" are the cast of the frame before with those whom the caption has named
      until then; so tell the pronouns first where those named do something else). If not, each is the only one of the
      frame before that fits its own pronoun, and nobody whom the caption names has that pronoun;
    - carried is only said of the whole cast at once: the caption has no subject ("Now dancing.", "Night falls.");
    - of each shown whose ``action_known`` is said: the action; carried: that it goes on, without the verb;
    - each of ``events``, in any order. Who an event is about (``who``, ``whom``) is named or meant by its own pronoun,
      never only within a group.

    It tells nothing else: no other hat, thing, place, light or look, and no name of anybody who is not shown, but for
    those of whom an event says that they leave or are away, or who give something while they leave.
    """

    shown: tuple[Appearance, ...]
    setting: int
    light: int
    setting_known: int = UNSAID
    light_known: int = UNSAID
    events: tuple[Event, ...] = ()

    @property
    def cast(self) -> tuple[int, ...]:
        return tuple(one.who for one in self.shown)

    def known_by(self, known: int) -> tuple[Appearance, ...]:
        """Those who are known to be there by this way (``cast_known``)."""
        return tuple(one for one in self.shown if one.cast_known == known)

    def of(self, who: int) -> Appearance | None:
        """How the frame shows a character; None if it does not."""
        return next((one for one in self.shown if one.who == who), None)

    def told(self, *kinds: str) -> tuple[Event, ...]:
        """The events of these kinds."""
        return tuple(event for event in self.events if event.kind in kinds)


@dataclass(frozen=True)
class Tale:
    """A story. ``roster`` has all of its characters, in the order in which frames show them from left to right."""

    split: str
    index: int
    roster: tuple[Character, ...]
    source: Scene
    targets: tuple[Scene, ...]

    @property
    def frames(self) -> tuple[Scene, ...]:
        return self.source, *self.targets

    def name(self, who: int) -> str:
        """The name of a character: Pip."""
        character = self.roster[who]
        return character.name if isinstance(character, Guest) else NAMED[character].capitalize()

    def pronoun(self, who: int) -> str:
        """He, she or it."""
        character = self.roster[who]
        return PRONOUNS[-1] if isinstance(character, Guest) else PRONOUNS[character]

    def guest(self, who: int) -> Guest | None:
        """The guest that a character is, or None."""
        character = self.roster[who]
        return character if isinstance(character, Guest) else None


def look_words(guest: Guest) -> tuple[str, str, str]:
    """Colour, shape and accessory of a guest in the world's words."""
    return COLORS[guest.color], SHAPES[guest.shape], ACCESSORIES[guest.accessory]


def mark_words(guest: Guest, mark: int) -> str:
    """The word of a mark: purple, star, glasses; left and right are places among the two guests of the source."""
    looks = dict(zip(MARKS, look_words(guest), strict=False))
    return looks.get(MARKS[mark], MARKS[mark])


def as_facts(tale: Tale, scene: Scene) -> tuple[Fact, ...]:
    """All that is true of a frame, and can be known, in the language of assertions."""
    facts = [Fact("cast", tuple(tale.name(one.who) for one in scene.shown))]
    for one in scene.shown:
        names, guest = (tale.name(one.who),), tale.guest(one.who)
        if one.action_known or scene is tale.source:
            facts.append(Fact("action", names, ACTIONS[one.action]))
        facts.append(Fact("prop", names, PROPS[one.prop]))
        facts.append(Fact("hat", names, HATS[one.hat]))
        if guest:
            facts += [
                Fact(k, names, v) for k, v in zip(("color", "shape", "accessory"), look_words(guest), strict=True)
            ]
    return *facts, Fact("setting", value=SETTINGS[scene.setting]), Fact("light", value=TINTS[scene.light])
