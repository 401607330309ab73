"""Facts of a frame in words that people read and type: ``only Pip Lulu, Lulu wears blue hat, Pip runs, kitchen``.

Facts are separated by commas, and each has one of the forms in ``FORMS``. A line need not tell all of a frame: what it
does not tell is left open. Names begin with a capital letter; all other words are the world's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storydalle.stories.toon.world import ACCESSORIES, ACTIONS, COLORS, HATS, PROPS, SETTINGS, SHAPES, TINTS

FORMS = (
    "only NAME NAME ...",
    "NAME",
    "no NAME",
    "NAME ACTION",
    "NAME holds PROP",
    "NAME holds nothing",
    "NAME wears COLOUR hat",
    "NAME wears no hat",
    "NAME is COLOUR SHAPE with ACCESSORY",
    "SETTING",
    "LIGHT",
)
VALUES: dict[str, tuple[str, ...]] = {  # what each kind of fact that has a value can say
    "action": ACTIONS,
    "prop": PROPS,
    "hat": HATS,
    "color": COLORS,
    "shape": SHAPES,
    "accessory": ACCESSORIES,
    "setting": SETTINGS,
    "light": TINTS,
}
KINDS = ("cast", "shown", "absent", *VALUES)  # cast: these and nobody else; shown: these, perhaps among others


@dataclass(frozen=True)
class Fact:
    """One thing that is right or wrong in a frame: of ``kind`` (see ``KINDS``), about ``names``, in the world's word.

    Only a cast has several names; a setting and a light have none. A prop or a hat of "none" is a hand or head without.
    """

    kind: str
    names: tuple[str, ...] = ()
    value: str = ""

    def __str__(self) -> str:
        names, none = " ".join(self.names), self.value == "none"
        return {
            "cast": f"only {names}",
            "shown": names,
            "absent": f"no {names}",
            "action": f"{names} {self.value}",
            "prop": f"{names} holds {'nothing' if none else self.value}",
            "hat": f"{names} wears {'no' if none else self.value} hat",
            "accessory": f"{names} is with {self.value}",
        }.get(self.kind, f"{names} is {self.value}" if names else self.value)


def read_facts(line: str, where: str) -> tuple[Fact, ...]:
    """The facts of a line. ValueError, beginning with ``where`` and naming the word, for what is no fact of the world,
    and for facts that cannot be true together."""
    facts: list[Fact] = []
    for clause in line.split(","):
        words = clause.split()
        try:
            if not words:
                raise ValueError(f"a fact is missing at a comma; facts are {', '.join(map(repr, FORMS))}")
            for fact in _facts_of(words):
                _check_agreement(fact, facts)
                facts.append(fact)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return tuple(facts)


def cast_of(facts: Sequence[Fact]) -> tuple[str, ...]:
    """Whom the frame shows, and nobody else; ValueError where the facts leave that open."""
    for fact in facts:
        if fact.kind == "cast":
            return fact.names
    raise ValueError("no 'only NAME NAME ...' says whom the frame shows")


def completed(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """The facts, and that all others of the cast wear no hat and hold nothing."""
    told = {(fact.kind, fact.names) for fact in facts}
    pairs = [(kind, (name,)) for name in cast_of(facts) for kind in ("hat", "prop")]
    return *facts, *(Fact(kind, names, "none") for kind, names in pairs if (kind, names) not in told)


def _facts_of(words: list[str]) -> Iterator[Fact]:
    first, *rest = words
    if first == "only":
        yield Fact("cast", tuple(map(_name, rest)))
        if not rest or len(set(rest)) < len(rest):
            raise ValueError(f"{' '.join(words)!r}: name each of the cast once after 'only'")
    elif first == "no" and len(rest) == 1:
        yield Fact("absent", (_name(rest[0]),))
    elif not rest:
        yield _alone(first)
    else:
        yield from _of_name((_name(first),), rest, " ".join(words))


def _alone(word: str) -> Fact:
    """A word that is a whole fact."""
    for kind in ("setting", "light"):
        if word in VALUES[kind]:
            return Fact(kind, value=word)
    if not word[0].isupper():
        raise ValueError(
            f"{word!r} is no setting ({', '.join(SETTINGS)}), no light ({', '.join(TINTS)}) and no name, "
            "which begins with a capital letter"
        )
    return Fact("shown", (_name(word),))


def _of_name(names: tuple[str, ...], words: list[str], clause: str) -> Iterator[Fact]:
    match words:
        case ["holds", prop]:
            yield Fact("prop", names, _value("prop", prop, nothing="nothing"))
        case ["wears", color, "hat"]:
            yield Fact("hat", names, _value("hat", color, nothing="no"))
        case ["is", *look] if look:
            yield from _look(names, look)
        case [action] if action not in ("holds", "wears", "is"):
            yield Fact("action", names, _value("action", action))
        case _:
            raise ValueError(f"{clause!r} has none of the forms {', '.join(map(repr, FORMS))}")


def _look(names: tuple[str, ...], words: list[str]) -> Iterator[Fact]:
    """Any of colour, shape and accessory, in this order."""
    if words[-2:-1] == ["with"]:
        *words, _, accessory = words
        last = [Fact("accessory", names, _value("accessory", accessory))]
    else:
        last = []
    if words and words[0] in COLORS:
        yield Fact("color", names, words.pop(0))
    if words:
        yield Fact("shape", names, _value("shape", words.pop(0)))
    if words:
        raise ValueError(f"{words[0]!r} follows a shape, where only 'with ACCESSORY' can")
    yield from last


def _value(kind: str, word: str, nothing: str = "none") -> str:
    """The world's word for a value; ``nothing`` is written for none."""
    values = [nothing if value == "none" else value for value in VALUES[kind]]
    if word not in values:
        raise ValueError(f"{word!r} is no {kind}: ToonSV has {', '.join(values)}")
    return VALUES[kind][values.index(word)]


def _name(word: str) -> str:
    if not (word.isalpha() and word.istitle()):
        raise ValueError(f"{word!r} is no name: names are written like Pip")
    return word


def _check_agreement(fact: Fact, others: Sequence[Fact]) -> None:
    """ValueError if ``fact`` repeats or denies one of the others."""
    for other in others:
        if (fact.kind, fact.names) == (other.kind, other.names) or fact.kind == other.kind == "cast":
            raise ValueError(f"{str(fact)!r} beside {str(other)!r}: say one of the two")
        for whole, part in ((fact, other), (other, fact)):
            inside = set(part.names) <= set(whole.names)
            if whole.kind == "cast" and (inside if part.kind == "absent" else not inside):
                raise ValueError(f"{str(part)!r} beside {str(whole)!r}: both cannot be")
            if whole.kind == "absent" and part.kind not in ("absent", "cast") and whole.names == part.names:
                raise ValueError(f"{str(part)!r} beside {str(whole)!r}: both cannot be")
