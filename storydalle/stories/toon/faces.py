"""Eyes, mouths and tears of each action."""

from storydalle.stories.toon.pen import INK, WHITE, Color, Length, Pen, arc

BLUSH: Color = (255, 140, 140)
BEAK: Color = (255, 150, 40)
TEAR: Color = (120, 205, 255)
TONGUE: Color = (170, 40, 60)
EXPRESSIONS: dict[str, str] = {
    "waves": "smile",
    "jumps": "open",
    "sits": "smile",
    "sleeps": "asleep",
    "runs": "smile",
    "dances": "smile",
    "cries": "crying",
    "cheers": "open",
}


def eyes(pen: Pen, expression: str, y: Length, x: Length = 3.9, color: Color = INK) -> None:
    for side in (-1, 1):
        if expression in ("asleep", "crying"):
            bend = 180 if expression == "crying" else 0
            pen.stroke(arc(side * x, y, 2.2, 1.5, bend, bend + 180), 1.1, color, outline=0)
        else:
            pen.ellipse(side * x, y, 1.6, 2.2, color, outline=0)
            pen.ellipse(side * x + 0.6, y - 0.8, 0.65, 0.75, WHITE, outline=0)


def tears(pen: Pen, expression: str, y: Length, x: Length = 4.6) -> None:
    if expression == "crying":
        for side in (-1, 1):
            pen.stroke([(side * x, y + 2.4), (side * (x + 0.8), y + 8)], 2.0, TEAR, outline=0.7)


def mouth(pen: Pen, expression: str, y: Length) -> None:
    if expression == "open":
        pen.polygon(arc(0, y - 0.9, 2.7, 3.2, 0, 180), TONGUE, outline=0.6)
    elif expression == "crying":
        pen.stroke(arc(0, y + 1.8, 2.0, 1.8, 200, 340), 1.1, INK, outline=0)
    elif expression == "asleep":
        pen.ellipse(0, y + 0.4, 1.1, 1.0, INK, outline=0)
    else:
        pen.stroke(arc(0, y - 0.6, 2.5, 2.0, 15, 165), 1.1, INK, outline=0)


def cheeks(pen: Pen, y: Length, x: Length = 6.4, color: Color = BLUSH) -> None:
    for side in (-1, 1):
        pen.ellipse(side * x, y, 1.6, 1.2, color, outline=0)


def beak(pen: Pen, expression: str, y: Length) -> None:
    if expression == "open":
        pen.polygon([(-2.8, y), (2.8, y), (0, y + 4.6)], TONGUE, outline=0.8)
    drop = 0.6 if expression == "crying" else 0
    pen.polygon([(-3.2, y + drop), (0, y - 1.8), (3.2, y + drop), (0, y + 2.0)], BEAK, outline=0.8)
