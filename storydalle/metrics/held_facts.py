"""Which assertions hold in pictures of ToonSV's world, as the label reader reads them.

A picture tells no guest's name. A guest that is read gets the name whose look, as the assertions tell it, it resembles
most; where looks do not decide, the name with which most assertions of its frame hold; and then guests have their names
from left to right, in the order in which the assertions name them.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.mistakes import told_in_one_line
from storydalle.models.zoo import zoo_folder
from storydalle.stories.toon.asserted import Assertions
from storydalle.stories.toon.assertions import VALUES, Fact
from storydalle.stories.toon.names import NAMED

FACT_READER = "label_reader2"  # of the shipped weights
OF_GUESTS = ("shape", "color", "accessory")  # labels guest_...
NOTHING = {"prop": "nothing", "hat": "no hat"}
CHUNK = 64  # pictures that are read at once

FrameLabels = Mapping[str, Sequence[int] | int]


class SeenFrame(NamedTuple):
    """The labels of one frame, and the column of each character by its name."""

    labels: FrameLabels
    columns: Mapping[str, int]

    def of(self, kind: str, column: int = 0) -> int:
        values = self.labels[kind]
        return values if isinstance(values, int) else values[column]

    def is_shown(self, name: str) -> bool:
        return name in self.columns and self.of("characters", self.columns[name]) > 0

    @property
    def cast(self) -> list[str]:
        """Who is shown; a guest without a name is "a guest"."""
        names = {column: name for name, column in self.columns.items()}
        shown = [column for column in range(len(NAMED) + 2) if self.of("characters", column) > 0]
        return [names.get(column, "a guest") for column in shown]

    def value(self, fact: Fact) -> str:
        """The value that is read where the fact has its own; "not shown" of one who is not there."""
        if not fact.names:
            return VALUES[fact.kind][self.of(fact.kind)]
        if not self.is_shown(fact.names[0]):
            return "not shown"
        column = self.columns[fact.names[0]]
        if fact.kind in OF_GUESTS:
            return VALUES[fact.kind][self.of(f"guest_{fact.kind}", column - len(NAMED))]
        return VALUES[fact.kind][self.of(fact.kind, column)]

    def holds(self, fact: Fact) -> bool:
        if fact.kind == "cast":
            return sorted(self.cast) == sorted(fact.names)
        if fact.kind in ("shown", "absent"):
            return self.is_shown(fact.names[0]) == (fact.kind == "shown")
        return self.value(fact) == fact.value

    def instead(self, fact: Fact) -> str:
        """The reading in place of a fact that does not hold."""
        if fact.kind == "cast":
            return f"only {' '.join(self.cast)}" if self.cast else "nobody"
        if fact.kind in ("shown", "absent"):
            return "shown" if fact.kind == "absent" else "not shown"
        value = self.value(fact)
        return NOTHING.get(fact.kind, value) if value == "none" else value


def open_fact_reader() -> LabelReader:
    """The shipped reader of ToonSV 2's labels."""
    with told_in_one_line(f"the label reader {FACT_READER} cannot be opened", ValueError, OSError):
        return LabelReader.from_pretrained(zoo_folder() / FACT_READER)


def read_labels(reader: LabelReader, images: Float[Tensor, "n c h w"]) -> list[dict[str, Sequence[int] | int]]:
    """The labels of each image in [-1, 1]."""
    read = [reader.read(chunk) for chunk in images.split(CHUNK)]
    columns = {name: torch.cat([labels[name] for labels in read]).tolist() for name in read[0]}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(images))]


def named_frame(labels: FrameLabels, assertions: Assertions, facts: Sequence[Fact]) -> SeenFrame:
    """A frame whose guests have their names; ``facts`` are those that it should show."""
    frames = list(namings(labels, assertions.guests))
    told = [Fact(kind, (name,), value) for name, look in assertions.looks.items() for kind, value in look.items()]
    return max(frames, key=lambda frame: (number_held(frame, told), number_held(frame, facts)))


def namings(labels: FrameLabels, guests: Sequence[str]) -> Iterator[SeenFrame]:
    """The frame with its guests called by each choice of names, those from left to right first."""
    first = len(NAMED)
    columns = {name.capitalize(): column for column, name in enumerate(NAMED)}
    frame = SeenFrame(labels, columns)
    places = [column for column in (first, first + 1) if frame.of("characters", column) > 0]
    number = min(len(places), len(guests))
    for names in permutations(guests, number):
        for chosen in permutations(places, number) if len(guests) < len(places) else [places]:
            yield SeenFrame(labels, columns | dict(zip(names, chosen, strict=False)))


def number_held(frame: SeenFrame, facts: Sequence[Fact]) -> int:
    return sum(map(frame.holds, facts))
