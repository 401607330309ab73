"""The tables and families in which scores are shown, as the classes of metrics declare them, read without torch.

``declared`` imports every metric, and with them torch. A report of records needs only words of the declarations, which
stand as literals in the files of this room, so it reads these.
"""

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import cast

CHARACTERS, PICTURES, CONTINUATION = "Characters", "Pictures", "Continuation"
CAST, THINGS, PLACES, LOOKS = "Cast, actions, all facts", "Hats and things", "Settings and light", "Looks of guests"
"""Tables of an evaluation, each with its legend; the last four are of ToonSV 2."""
FAMILIES = (
    *(CHARACTERS, "Characters by number and by source", "All facts", "Setting and action", "Guests and hats"),
    *(PICTURES, CONTINUATION),
)
"""Families of a report, in order; other families follow."""
NAMES = {"CHARACTERS": CHARACTERS, "PICTURES": PICTURES, "CONTINUATION": CONTINUATION}
ROOM = Path(__file__).parent


def family_patterns() -> dict[str, str]:
    """A report's families in order, each with a regular expression for its scores' names."""
    patterns: dict[str, list[str]] = {title: [] for title in FAMILIES}
    for title, pattern in texts_of("families"):
        patterns.setdefault(title, []).append(pattern)
    return {title: "|".join(dict.fromkeys(each)) for title, each in patterns.items() if each}


def details() -> list[str]:
    """Regular expressions for scores that a report shows only on request."""
    return sorted({cast(str, each) for each in declarations(ROOM).get("details", []) if each})


def bars() -> dict[str, str]:
    """Titles of bar plots, by the beginning of the scores' names."""
    return dict(texts_of("bars"))


def texts_of(attribute: str) -> Iterator[tuple[str, str]]:
    for each in declarations(ROOM).get(attribute, []):
        yield from cast(Mapping[str, str], each).items()


@cache
def declarations(room: Path) -> Mapping[str, list[object]]:
    """The literals that the classes in the files of a folder assign to their attributes, by attribute."""
    found: dict[str, list[object]] = {}
    for path in sorted(room.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for made in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            for name, value in assigned(made):
                found.setdefault(name, []).append(value)
    return found


def assigned(made: ast.ClassDef) -> Iterator[tuple[str, object]]:
    """The attributes of a class that are literals, or made of literals and the names of tables."""
    for line in made.body:
        match line:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                with suppress(ValueError):
                    yield name, ast.literal_eval(Named().visit(value))


class Named(ast.NodeTransformer):
    """Replaces the name of a table by the table's title."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(NAMES[node.id]) if node.id in NAMES else node
