"""Guests: six geometric bodies in eight colours with six accessories; captions never describe them."""

from storydalle.stories.toon.faces import eyes, mouth, tears
from storydalle.stories.toon.pen import CREAM, GOLD, INK, WHITE, Color, Pen, arc, mirrored, star

COLOR_VALUES: dict[str, Color] = {
    "red": (226, 58, 58),
    "orange": (250, 140, 40),
    "yellow": (252, 215, 62),
    "green": (96, 186, 72),
    "teal": (32, 172, 168),
    "blue": (66, 112, 222),
    "purple": (146, 88, 200),
    "pink": (250, 138, 188),
}
SCARF: Color = (226, 48, 56)


def body(pen: Pen, shape: str, color: Color) -> None:
    if shape == "square":
        pen.polygon([(-9, 28.4), (9, 28.4), (9, 49.4), (-9, 49.4)], color, rounding=1.2)
    elif shape == "triangle":
        pen.polygon([(0, 26.6), (11.6, 49.4), (-11.6, 49.4)], color, rounding=1.4)
    elif shape == "star":
        pen.polygon(star(0, 39.6, 13.2, 7.4), color, rounding=1.2)
    elif shape == "heart":
        pen.polygon(mirrored([(0, 32), *arc(5.6, 32.4, 6.0, 5.6, 190, 380), (9.6, 40), (0, 50)]), color, rounding=0.8)
    elif shape == "diamond":
        pen.polygon([(0, 25.8), (11.4, 38.6), (0, 51.4), (-11.4, 38.6)], color, rounding=1.2)
    else:
        puffs = [(-6.6, 44, 6.2, 5.8), (6.6, 44, 6.2, 5.8), (0, 45.2, 7, 5.6)]
        pen.union([*puffs, (-6.2, 36.2, 6.2, 6), (6.2, 36.2, 6.2, 6), (0, 33.4, 6.8, 6.4), (0, 40, 8, 8)], color)


def accessory_behind(pen: Pen, accessory: str) -> None:
    """Accessories that grow out of the top: rooted deep, so that they touch every shape."""
    if accessory == "antennae":
        for side in (-1, 1):
            pen.stroke([(side * 2.6, 38), (side * 5, 27), (side * 8.2, 21.4)], 0.9, INK, outline=0.5)
            pen.ellipse(side * 8.4, 20.4, 2.9, 2.9, GOLD)
    elif accessory == "horns":
        for side in (-1, 1):
            horn = [(4, 36), (4.4, 28.6), (7.4, 25), (8.4, 18.4), (11.4, 24.6), (9.6, 30.4), (9, 36)]
            pen.polygon([(side * x, y) for x, y in horn], CREAM, rounding=0.3)
    elif accessory == "sprout":
        pen.stroke([(0, 38), (0, 23)], 1.2, (60, 140, 50), outline=0.8)
        for side in (-1, 1):
            leaf = [(0, 24.6), (2.4, 20.2), (7.6, 18.8), (6.6, 23.2), (3, 25.2)]
            pen.polygon([(side * x, y) for x, y in leaf], (110, 210, 80), rounding=0.4)


def accessory_in_front(pen: Pen, accessory: str) -> None:
    if accessory == "scarf":
        pen.polygon([(-8.6, 44.2), (0, 45.6), (8.6, 44.2), (8.6, 47.4), (0, 48.8), (-8.6, 47.4)], SCARF, rounding=0.6)
        for x in (-6.2, -1, 4.2):
            pen.box(x - 0.2, 44.8, x + 1.8, 48.2, WHITE, outline=0)
        pen.polygon([(-8.4, 47), (-4.6, 47.6), (-5, 55.4), (-9, 55)], SCARF, rounding=0.4)
        pen.polygon([(-8.8, 50.2), (-4.8, 50.6), (-4.9, 52.8), (-8.9, 52.4)], WHITE, outline=0)
    elif accessory == "bow":
        for side in (-1, 1):
            pen.polygon([(0, 26.6), (side * 8, 21.8), (side * 8, 31.2)], (84, 190, 255), rounding=0.7)
        pen.ellipse(0, 26.6, 2.3, 2.6, WHITE)


def _glasses(pen: Pen) -> None:
    for side in (-1, 1):
        ring = arc(side * 4.5, 37.8, 3.7, 3.9, 0, 360, 24)
        pen.stroke(ring, 1.5, INK, outline=0)
        pen.stroke([(side * 8.2, 37.4), (side * 10.6, 36)], 1.4, INK, outline=0)
    pen.stroke([(-1, 37.2), (1, 37.2)], 1.3, INK, outline=0)


def face(pen: Pen, expression: str, has_glasses: bool) -> None:
    if has_glasses:
        for side in (-1, 1):
            pen.ellipse(side * 4.5, 37.8, 3.7, 3.9, (232, 246, 255), outline=0)
    eyes(pen, expression, 37.8, 4.5 if has_glasses else 3.9)
    mouth(pen, expression, 42.4)
    if has_glasses:
        _glasses(pen)
    tears(pen, expression, 38.8 if has_glasses else 37.4, 5.2)


def darker(color: Color) -> Color:
    red, green, blue = color
    return red * 3 // 4, green * 3 // 4, blue * 3 // 4
