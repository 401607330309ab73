"""Frames of ToonSV 2: up to four figures in front of a setting, each with its own action, hat and thing in its hand.

Figures are those of version 1. One or two have its full size; three and four are smaller, and every second one stands
further back, so that nobody covers another's face or hat. Things are in front of everybody.
"""

from itertools import groupby
from typing import NamedTuple

import numpy as np

from storydalle.stories.toon.backgrounds import background
from storydalle.stories.toon.cartoons import Figure, draw_body, draw_effects, draw_held, tinted
from storydalle.stories.toon.pen import PATCH, UNITS, Layer, over
from storydalle.stories.toon.world import GUEST
from storydalle.stories.toonsv.facts import Appearance, Scene, Tale

EIGHTHS = {1: 8, 2: 8, 3: 5, 4: 5}  # of the full size, by the number of figures: whole pixels at every resolution
# Where the upper left corner of each figure's own picture lies, in units (right, down), from left to right.
CORNERS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    2: ((-16, 0), (16, 0)),
    3: ((-9, 23), (12, 13), (33, 23)),
    4: ((-9, 24), (5, -1), (19, 24), (33, -1)),
}


class Parts(NamedTuple):
    """A figure, in a picture of its own size; a hand without a thing has None."""

    signs: Layer  # the shadow, and what tells the action around the figure
    body: Layer
    thing: Layer | None


def draw_scene(tale: Tale, scene: Scene, resolution: int) -> np.ndarray:
    """The picture of a frame, uint8 (h, w, 3)."""
    canvas = background(resolution, scene.setting).copy()
    for layer, (right, down) in placed_layers(tale, scene, resolution):
        over(canvas, layer, down * resolution // UNITS, right * resolution // UNITS)
    return tinted(canvas, scene.light)


def placed_layers(tale: Tale, scene: Scene, resolution: int) -> list[tuple[Layer, tuple[int, int]]]:
    """All layers in front of the setting, the last one on top, each with the corner of its figure."""
    corners = CORNERS[len(scene.shown)]
    size = resolution * EIGHTHS[len(corners)] // PATCH
    figures = [(parts_of(tale, one, size), corner) for one, corner in zip(scene.shown, corners, strict=True)]
    figures.sort(key=lambda figure: figure[1][1])  # the back row first
    layers: list[tuple[Layer, tuple[int, int]]] = []
    for _, row in groupby(figures, key=lambda figure: figure[1][1]):
        standing = list(row)
        layers += [(parts.signs, corner) for parts, corner in standing]
        layers += [(parts.body, corner) for parts, corner in standing]
    return layers + [(parts.thing, corner) for parts, corner in figures if parts.thing]


def parts_of(tale: Tale, one: Appearance, size: int) -> Parts:
    """A character as a frame shows it, in a picture of ``size`` pixels."""
    character, is_holding = tale.roster[one.who], one.prop > 0
    figure = Figure(character) if isinstance(character, int) else Figure(GUEST, *character.look)
    return Parts(
        signs=draw_effects(size, one.action, is_holding),
        body=draw_body(size, figure, one.action, one.hat, is_holding),
        thing=draw_held(size, one.action, one.prop) if is_holding else None,
    )
