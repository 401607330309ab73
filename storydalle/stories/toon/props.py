"""Props in a hand, and the signs around a figure that tell its action."""

from storydalle.stories.toon.faces import TEAR
from storydalle.stories.toon.pen import GOLD, GROUND, INK, WHITE, Color, Length, Pen, arc, star

NOTE: Color = (200, 40, 140)


def draw_prop(pen: Pen, name: str) -> None:
    """A prop in the right hand, which is at (12, 47.5)."""
    if name == "ball":
        pen.ellipse(10, 48, 4.9, 4.9, (60, 130, 230))
        pen.polygon([*arc(10, 48, 4.9, 4.9, 250, 330), *arc(10, 48, 4.9, 4.9, 70, 150)], WHITE, outline=0)
        pen.ellipse(10, 48, 1.6, 1.6, (235, 60, 60), outline=0)
    elif name == "balloon":
        pen.stroke([(12, 47.5), (10.4, 40), (10.2, 30)], 0.9, INK, outline=0)
        pen.polygon([(9, 31), (11.4, 31), (10.2, 28.6)], (235, 60, 70), outline=0.7)
        pen.ellipse(10.2, 23.2, 4.6, 5.6, (235, 60, 70))
        pen.ellipse(8.6, 21, 1.2, 1.6, (255, 200, 200), outline=0)
    elif name == "flower":
        pen.stroke([(12, 50), (10.4, 34)], 1.4, (60, 150, 60), outline=0.7)
        pen.polygon([(11.6, 43), (14.6, 39.4), (14.4, 43)], (90, 190, 80), outline=0.7)
        petals = [(x, y, 2.3, 2.3) for x, y in star(9.8, 30, 2.8, 2.8)[::2]]
        pen.union(petals, (255, 120, 190))
        pen.ellipse(9.8, 30, 1.9, 1.9, GOLD, outline=0.4)
    elif name == "flag":
        pen.stroke([(14.4, 51), (14.4, 17.6)], 1.1, (190, 150, 100), outline=0.7)
        pen.polygon([(14, 18.6), (5, 22.8), (14, 27)], (60, 180, 90), outline=0.9)
        pen.ellipse(11.4, 22.8, 1.5, 1.5, WHITE, outline=0)
    elif name == "umbrella":
        pen.stroke([(9.4, 24), (11.6, 50)], 1.1, (150, 100, 60), outline=0.6)
        canopy = arc(9.2, 25.6, 5.8, 9.2, 180, 360)
        pen.polygon([*canopy, (11.4, 24), (9.2, 25.6), (7, 24)], (150, 80, 200), outline=0.9)
        pen.polygon([(9.2, 16.8), (11.4, 24), (9.2, 25.6), (7, 24)], (230, 200, 250), outline=0)
    else:
        pen.stroke(arc(11.2, 47.4, 2.6, 2.8, 180, 360), 1.0, INK, outline=0)
        pen.box(8.0, 46.8, 14.4, 53.6, (255, 232, 110))
        pen.ellipse(11.2, 50.4, 1.5, 2.2, (255, 150, 40), outline=0)
        pen.box(7.5, 46.2, 14.9, 47.2, (90, 70, 80))
        pen.box(7.5, 53.4, 14.9, 54.2, (90, 70, 80))


def _note(pen: Pen, x: Length, y: Length) -> None:
    pen.stroke([(x + 1.4, y + 6), (x + 1.4, y)], 1.3, NOTE, outline=0.8)
    pen.ellipse(x, y + 6.2, 2.2, 1.8, NOTE, outline=0.8)
    pen.stroke([(x + 1.4, y), (x + 3.0, y + 1.6)], 1.5, NOTE, outline=0.8)
    pen.stroke([(x + 1.4, y + 6), (x + 1.4, y)], 1.3, NOTE, outline=0)


def draw_effects(pen: Pen, action: str, holding: bool) -> None:
    """The shadow and the signs of an action; the right side stays free for a prop."""
    sides = (-1,) if holding else (-1, 1)
    if action == "cries":
        pen.ellipse(0, 58.4, 13, 2.9, TEAR, outline=0.7)
        pen.ellipse(-4, 58, 3.4, 0.8, (205, 238, 255), outline=0)
        return
    if action == "jumps":
        pen.shade(0, GROUND + 0.4, 7, 1.8, 84)
        for side in (-1, 1):
            pen.stroke([(side * 9.4, 58.2), (side * 13, 55.4)], 1.2, WHITE, outline=0.7)
        return
    pen.shade(0, 60 if action == "sits" else GROUND + 0.2, 12.6 if action == "sits" else 10.5, 2.3, 84)
    if action == "waves":
        for y, radius in ((30.4, 2.2), (26.0, 2.8)):
            pen.stroke(arc(-11.9, y, radius, 1.6, 200, 340), 1.2, WHITE, outline=0.7)
    elif action == "sleeps":
        pillow = [(-13, 30), (0, 29), (13, 30), (12.4, 37), (13, 44), (0, 45), (-13, 44), (-12.4, 37)]
        pen.polygon(pillow, (236, 240, 255), rounding=0.8)
        for x, y, size in ((-13.4, 23.6, 3.2), (-9.8, 15, 5.0)):
            pen.stroke([(x, y), (x + size, y), (x, y + size), (x + size, y + size)], 1.3, WHITE, outline=0.8)
    elif action == "runs":
        for y in (29.6, 35.4, 41.2):
            pen.stroke([(-14.6, y), (-11, y)], 1.3, WHITE, outline=0.7)
        pen.union([(-12.4, 57, 2.4, 2.0), (-9.6, 57.6, 2.0, 1.6)], (236, 230, 224))
    elif action == "dances":
        for side in sides:
            _note(pen, side * 12.2 - 0.8, 16)
    elif action == "cheers":
        for side in sides:
            pen.polygon(star(side * 11.4, 20, 3.7, 1.8), GOLD, outline=0.9)
