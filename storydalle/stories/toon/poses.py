"""Arms and legs in every action, and what covers the lower body in some.

A figure stands at x = 0 with its feet at y = 58; its head reaches from 26 to 46. Actions move limbs and change the
face, never the body, so a look can be copied from one action to another.
"""

from storydalle.stories.toon.pen import GOLD, WHITE, Color, Pen, Point

ARMS: dict[str, list[Point]] = {  # of the right side; the left one is mirrored
    "down": [(6, 47), (10, 48.5), (12.2, 51.5)],
    "up": [(6, 47), (11.4, 43.5), (12.6, 35)],
    "out": [(6, 47), (13, 43)],
    "bent": [(6, 47), (11.2, 49.5), (13, 45.5)],
    "hold": [(6, 47), (12, 47.5)],
    "hold_up": [(6, 47), (12, 39.5)],
}
ARM_POSES: dict[str, tuple[str, str]] = {
    "waves": ("up", "down"),
    "jumps": ("out", "out"),
    "sits": ("down", "down"),
    "sleeps": ("down", "down"),
    "runs": ("bent", "bent"),
    "dances": ("up", "out"),
    "cries": ("down", "down"),
    "cheers": ("up", "up"),
}


def limbs(pen: Pen, action: str, holding: bool, skin: Color, feet: Color) -> None:
    left, right = ARM_POSES[action]
    if holding:
        right = "hold_up" if action == "cheers" else "hold"
    pen.stroke([(-x, y) for x, y in ARMS[left]], 3.6, skin)
    pen.stroke(ARMS[right], 3.6, skin)
    for hip, ankle, (x, y) in _legs(action):
        pen.stroke([hip, ankle], 3.6, skin)
        pen.ellipse(x, y, 3.2, 1.9, feet)


def _legs(action: str) -> list[tuple[Point, Point, Point]]:
    """Hip, ankle and middle of the foot of both legs."""
    if action == "runs":
        return [((-3, 50), (-8, 54), (-10.3, 53.4)), ((3, 50), (8, 55), (10.4, 56))]
    if action == "dances":
        return [((-3.5, 50), (-3.5, 56), (-4.4, 56.8)), ((3.5, 50), (9.5, 53), (11.6, 52.2))]
    if action == "jumps":
        return [((-3.5, 50), (-7, 54.5), (-8.6, 54.8)), ((3.5, 50), (7, 54.5), (8.6, 54.8))]
    if action == "sits":
        return []
    return [((-3.8, 50), (-3.8, 56), (-4.6, 56.8)), ((3.8, 50), (3.8, 56), (4.6, 56.8))]


COVERED = ("sits", "sleeps")  # the actions that ``cover`` draws something for


def cover(pen: Pen, action: str, skin: Color, feet: Color) -> None:
    """The cover of the lower body: feet stretched forward, or a blanket."""
    if action == "sits":
        for side in (-1, 1):
            pen.stroke([(side * 3.8, 50), (side * 6, 51.2)], 4.0, skin)
            pen.ellipse(side * 7, 52, 2.8, 2.8, feet)
    if action == "sleeps":
        pen.polygon([(-11.6, 51), (11.6, 51), (13, 60), (-13, 60)], (112, 150, 226), rounding=1.2)
        for x, y in ((-10, 58), (-5, 56), (0, 58), (5, 56), (10, 58)):
            pen.ellipse(x, y, 1.2, 1.2, GOLD, outline=0)
        pen.stroke([(-11.8, 51.2), (0, 51.8), (11.8, 51.2)], 2.2, WHITE)
