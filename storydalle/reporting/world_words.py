"""A drawn world and its words, for people who write captions."""

import textwrap

from storydalle.stories.drawn_worlds import World
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
    SPECIES,
    TINTS,
)

LEAST, MOST = 80, 120  # columns
INDENT = 20


def words_of_world(world: World, columns: int) -> str:
    """The world and its vocabulary, on lines of ``columns`` characters, but of 80 at least and 120 at most."""
    width = min(max(columns, LEAST), MOST)
    lines = [f"{world.title} (data={world.name})", "", *textwrap.wrap(_limits(world), width), ""]
    for heading, words in _facts().items():
        lines += _row(heading, words, width)
    lines += [
        "",
        *textwrap.wrap("Words, by what they tell. A verb stands for all of its forms that captions use.", width),
    ]
    for heading, rows in world.vocabulary().items():
        lines += ["", heading]
        for told, phrases in rows.items():
            lines += _row(told, phrases, width)
    return "\n".join(lines)


def _limits(world: World) -> str:
    guests = "1 guest" if world.most_guests == 1 else f"{world.most_guests} guests"
    return (
        f"A frame shows at most {world.most_shown} characters. A story has at most {guests}; their names are invented. "
        f"{world.shares}"
    )


def _facts() -> dict[str, tuple[str, ...]]:
    """All that frames can show, by the world's own words."""
    characters = zip(NAMED, SPECIES, PRONOUNS, strict=False)  # the last pronoun is a guest's
    named = [f"{name.capitalize()} ({kind}, {pronoun})" for name, kind, pronoun in characters]
    return {
        "characters": (*named, f"guests ({PRONOUNS[-1]})"),
        "actions": ACTIONS,
        "things": PROPS[1:],
        "hats": HATS[1:],
        "settings": SETTINGS,
        "lights": TINTS,
        "guests are a": SHAPES,
        "in": COLORS,
        "with": ACCESSORIES,
    }


def _row(heading: str, words: tuple[str, ...], width: int) -> list[str]:
    first = f"  {heading}".ljust(INDENT)
    return textwrap.wrap(
        ", ".join(words), width, initial_indent=first, subsequent_indent=" " * INDENT, break_on_hyphens=False
    )
