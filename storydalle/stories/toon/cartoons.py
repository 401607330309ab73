"""Frames of ToonSV: a background with the sprites of the cast at their places."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from storydalle.stories.toon import guests, named, poses, props
from storydalle.stories.toon.backgrounds import background
from storydalle.stories.toon.faces import EXPRESSIONS
from storydalle.stories.toon.pen import CENTRE, PATCH, UNITS, Color, Layer, Pen, over
from storydalle.stories.toon.world import (
    ACCESSORIES,
    ACTIONS,
    COLORS,
    GUEST,
    HATS,
    PROPS,
    SHAPES,
    TINTS,
    FrameFacts,
    StoryFacts,
)

# Offset of every slot from the frame's centre in units (right, down), in the order of the cast.
SLOTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    2: ((-16, 0), (16, 0)),
    3: ((-16, 0), (0, -PATCH), (16, 0)),
}
DROPS = {"jumps": -PATCH, "sits": PATCH}  # how far an action moves the whole figure down
# Colour maps (scale, shift) of red, green and blue. They are affine, so they act on the finished frame.
TINT_MAPS: dict[str, tuple[tuple[float, float], ...]] = {
    "day": ((1.0, 0.0), (1.0, 0.0), (1.0, 0.0)),
    "dusk": ((0.92, 20.0), (0.76, 12.0), (0.72, 24.0)),
    "night": ((0.66, 2.0), (0.70, 8.0), (0.76, 40.0)),
}


class Sprite(NamedTuple):
    """A figure without background; ``effects`` are drawn behind all figures of a frame."""

    effects: Layer
    figure: Layer


class Figure(NamedTuple):
    """The figure to draw: a named character, or a guest by shape, colour and accessory."""

    character: int
    shape: int = -1
    color: int = -1
    accessory: int = -1


def check_resolution(resolution: int) -> None:
    if not 64 <= resolution <= 256 or resolution % PATCH:
        raise ValueError(f"resolution={resolution}: ToonSV draws 64 to 256 pixels, in multiples of {PATCH}")


def draw_frame(facts: StoryFacts, frame: FrameFacts, resolution: int) -> np.ndarray:
    """The picture of ``frame``, uint8 (h, w, 3)."""
    canvas = background(resolution, frame.setting).copy()
    placed = []
    for place, (character, (right, down)) in enumerate(zip(frame.cast, SLOTS[len(frame.cast)], strict=True)):
        look = Figure(GUEST, *facts.guest.look) if facts.guest and character == GUEST else Figure(character)
        sprite = draw_sprite(resolution, look, frame.action, frame.hats[character], frame.prop if place == 0 else 0)
        placed.append((sprite, down * resolution // UNITS, right * resolution // UNITS))
    for sprite, down, right in placed:
        over(canvas, sprite.effects, down, right)
    for sprite, down, right in sorted(placed, key=lambda item: item[1]):  # the back row first
        over(canvas, sprite.figure, down, right)
    return tinted(canvas, facts.tint)


@lru_cache(maxsize=2048)
def draw_sprite(resolution: int, look: Figure, action: int, hat: int, prop: int) -> Sprite:
    """A figure in the middle of the front row."""
    body = draw_body(resolution, look, action, hat, prop > 0)
    if not prop:
        return Sprite(draw_effects(resolution, action, False), body)
    canvas = np.zeros((resolution, resolution, 4), dtype=np.uint8)
    over(canvas, body)
    over(canvas, draw_held(resolution, action, prop))
    return Sprite(draw_effects(resolution, action, True), _cut_out(canvas))


@lru_cache(maxsize=3072)
def draw_body(resolution: int, look: Figure, action: int, hat: int, is_holding: bool) -> Layer:
    """A figure with its hat, and its hand as if it held something."""
    canvas = np.zeros((resolution, resolution, 4), dtype=np.uint8)
    drop = _drop(resolution, action)
    over(canvas, _limbs(resolution, _limb_colors(look), action, is_holding), drop)
    if look.character == GUEST:
        over(canvas, _guest(resolution, look), drop)
        over(canvas, _guest_face(resolution, look.accessory, action), drop)
    else:
        over(canvas, _named(resolution, look.character), drop)
        if hat:
            over(canvas, _hat(resolution, hat), drop)
        over(canvas, _named_face(resolution, look.character, action), drop)
    if ACTIONS[action] in poses.COVERED:
        over(canvas, _cover(resolution, _limb_colors(look), action), drop)
    return _cut_out(canvas)


def _drop(resolution: int, action: int) -> int:
    return DROPS.get(ACTIONS[action], 0) * resolution // UNITS


def draw_held(resolution: int, action: int, prop: int) -> Layer:
    """A prop in the hand of a figure in the middle of the front row."""
    pixels, top, left = _prop(resolution, prop)
    raised = PATCH * resolution // UNITS if ACTIONS[action] == "cheers" else 0
    return Layer(pixels, top + _drop(resolution, action) - raised, left)


def _limb_colors(look: Figure) -> tuple[Color, Color]:
    """Colour of arms and legs, and of feet."""
    if look.character == GUEST:
        skin = guests.COLOR_VALUES[COLORS[look.color]]
        return skin, guests.darker(skin)
    return named.LOOKS[look.character].fur, named.LOOKS[look.character].feet


@lru_cache(maxsize=1024)
def _limbs(resolution: int, colors: tuple[Color, Color], action: int, is_holding: bool) -> Layer:
    pen = Pen(resolution, CENTRE)
    poses.limbs(pen, ACTIONS[action], is_holding, *colors)
    return pen.layer()


@lru_cache(maxsize=128)
def _cover(resolution: int, colors: tuple[Color, Color], action: int) -> Layer:
    pen = Pen(resolution, CENTRE)
    poses.cover(pen, ACTIONS[action], *colors)
    return pen.layer()


@lru_cache(maxsize=64)
def _named(resolution: int, character: int) -> Layer:
    pen = Pen(resolution, CENTRE)
    named.trunk_and_head(pen, named.LOOKS[character])
    return pen.layer()


@lru_cache(maxsize=256)
def _named_face(resolution: int, character: int, action: int) -> Layer:
    pen = Pen(resolution, CENTRE)
    named.LOOKS[character].face(pen, EXPRESSIONS[ACTIONS[action]])
    return pen.layer()


@lru_cache(maxsize=512)
def _guest(resolution: int, look: Figure) -> Layer:
    pen = Pen(resolution, CENTRE)
    guests.accessory_behind(pen, ACCESSORIES[look.accessory])
    guests.body(pen, SHAPES[look.shape], guests.COLOR_VALUES[COLORS[look.color]])
    return pen.layer()


@lru_cache(maxsize=128)
def _guest_face(resolution: int, accessory: int, action: int) -> Layer:
    pen = Pen(resolution, CENTRE)
    guests.face(pen, EXPRESSIONS[ACTIONS[action]], has_glasses=ACCESSORIES[accessory] == "glasses")
    guests.accessory_in_front(pen, ACCESSORIES[accessory])
    return pen.layer()


@lru_cache(maxsize=32)
def _hat(resolution: int, hat: int) -> Layer:
    pen = Pen(resolution, CENTRE)
    named.hat(pen, named.HAT_COLORS[HATS[hat]])
    return pen.layer()


@lru_cache(maxsize=32)
def _prop(resolution: int, prop: int) -> Layer:
    pen = Pen(resolution, CENTRE)
    props.draw_prop(pen, PROPS[prop])
    return pen.layer()


@lru_cache(maxsize=64)
def draw_effects(resolution: int, action: int, is_holding: bool) -> Layer:
    """The shadow and the signs of an action."""
    pen = Pen(resolution, CENTRE)
    props.draw_effects(pen, ACTIONS[action], is_holding)
    return pen.layer()


def _cut_out(canvas: np.ndarray) -> Layer:
    rows, columns = np.flatnonzero(canvas[:, :, 3].any(axis=1)), np.flatnonzero(canvas[:, :, 3].any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return Layer(canvas[top : rows[-1] + 1, left : columns[-1] + 1].copy(), top, left)


@lru_cache(maxsize=len(TINTS))
def _tint_table(tint: int) -> list[int]:
    """The tinted values of 0 to 255 of red, then of green, then of blue."""
    values = np.arange(256)
    scaled = [scale * values + shift for scale, shift in TINT_MAPS[TINTS[tint]]]
    table: list[int] = np.clip(np.round(scaled), 0, 255).astype(int).ravel().tolist()
    return table


def tinted(canvas: np.ndarray, tint: int) -> np.ndarray:
    """A frame by day, in another light."""
    if TINTS[tint] == "day":
        return canvas
    return np.array(Image.fromarray(canvas).point(_tint_table(tint)))
