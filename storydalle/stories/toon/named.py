"""The nine named characters: each has its own outline and colours; face, hat and hands have the same places."""

from collections.abc import Callable
from dataclasses import dataclass

from storydalle.stories.toon.faces import BEAK, TONGUE, beak, cheeks, eyes, mouth, tears
from storydalle.stories.toon.pen import CREAM, GOLD, INK, WHITE, Color, Length, Pen, arc, mirrored

PINK: Color = (250, 160, 180)
YELLOW: Color = (255, 221, 74)
BROWN: Color = (160, 106, 62)
TAN: Color = (240, 210, 165)
GREEN: Color = (98, 190, 70)
SLATE: Color = (88, 80, 110)
ORANGE: Color = (240, 122, 44)
NAVY: Color = (46, 62, 110)
GREY: Color = (168, 168, 178)
SKY: Color = (140, 196, 240)
HAT_COLORS: dict[str, Color] = {
    "red": (228, 48, 52),
    "blue": (48, 108, 226),
    "green": (56, 168, 76),
    "yellow": (255, 212, 40),
}


@dataclass(frozen=True)
class Looks:
    """A named character: colours, drawings around and on its head, and its face."""

    fur: Color
    feet: Color
    clothes: Color
    pattern: Callable[[Pen], None]
    behind: Callable[[Pen, Color], None]
    head: Callable[[Pen], None]
    face: Callable[[Pen, str], None]


def _plain(pen: Pen) -> None:
    """No pattern on the clothes, nothing on the head."""


def _tuft(pen: Pen, fur: Color) -> None:
    for tip in ((-4.5, 21.5), (4.5, 21.5), (0, 19.5)):
        pen.polygon([(-2.2, 28), tip, (2.2, 28)], fur, rounding=0.5)


def _round_ears(x: Length, y: Length, radius: Length, inner: Color) -> Callable[[Pen, Color], None]:
    def draw(pen: Pen, fur: Color) -> None:
        for side in (-1, 1):
            pen.ellipse(side * x, y, radius, radius, fur)
            pen.ellipse(side * x, y, radius * 0.58, radius * 0.58, inner, outline=0)

    return draw


def _long_ears(pen: Pen, fur: Color) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 5.2, 24.7, 2.9, 7.5, fur)
        pen.ellipse(side * 5.2, 24.2, 1.4, 5.6, PINK, outline=0)


def _pointed_ears(tip: Color | None) -> Callable[[Pen, Color], None]:
    def draw(pen: Pen, fur: Color) -> None:
        for side in (-1, 1):
            pen.polygon([(side * 1.6, 28), (side * 8.2, 19), (side * 9.2, 33)], fur, rounding=0.4)
            inner = tip or PINK
            pen.polygon([(side * 4.4, 26.6), (side * 7.4, 21.8), (side * 8.1, 29)], inner, outline=0)

    return draw


def _fox_back(pen: Pen, fur: Color) -> None:
    tail = [(-3, 51), (-9, 54.5), (-13.6, 51), (-14, 44), (-12.3, 41), (-9.6, 46), (-4, 47)]
    pen.polygon(tail, fur, rounding=0.8)
    pen.polygon([(-14.1, 45.8), (-14, 43.6), (-12.3, 41), (-10.6, 44.6)], CREAM, outline=0, rounding=0.6)
    _pointed_ears(INK)(pen, fur)


def _wide_ears(pen: Pen, fur: Color) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 9.4, 35.4, 4.5, 7.0, fur)
        pen.ellipse(side * 10.0, 35.6, 2.5, 4.8, PINK, outline=0)


def _bald(pen: Pen, fur: Color) -> None:
    """No ears at all."""


def _chick_face(pen: Pen, expression: str) -> None:
    eyes(pen, expression, 35.5)
    cheeks(pen, 39.6, 6.6, (255, 160, 90))
    beak(pen, expression, 39.2)
    tears(pen, expression, 35.5)


def _soft_face(pen: Pen, expression: str) -> None:
    eyes(pen, expression, 35.5)
    cheeks(pen, 39.6)
    pen.ellipse(0, 38.4, 1.3, 0.9, (240, 100, 130), outline=0)
    mouth(pen, expression, 41.2)
    tears(pen, expression, 35.5)


def _bear_face(pen: Pen, expression: str) -> None:
    eyes(pen, expression, 34.4)
    pen.ellipse(0, 40.2, 4.6, 3.7, TAN, outline=0)
    pen.ellipse(0, 38.0, 1.9, 1.3, INK, outline=0)
    mouth(pen, expression, 41.4)
    tears(pen, expression, 34.8, 6.0)


def _frog_face(pen: Pen, expression: str) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 7.2, 27.8, 3.8, 3.9, GREEN)
        if expression in ("asleep", "crying"):
            pen.stroke(arc(side * 7.2, 27.8, 2.2, 1.5, 0, 180), 1.1, INK, outline=0)
        else:
            pen.ellipse(side * 7.2, 27.6, 2.7, 2.8, WHITE, outline=0)
            pen.ellipse(side * 7.0, 27.8, 1.5, 1.9, INK, outline=0)
    cheeks(pen, 38.4, 7.2)
    if expression == "open":
        pen.polygon(arc(0, 37, 5.4, 5.2, 0, 180), TONGUE, outline=0.7)
    elif expression == "crying":
        pen.stroke(arc(0, 43, 4.6, 3.6, 205, 335), 1.2, INK, outline=0)
    else:
        pen.stroke(arc(0, 36.6, 5.6, 4.4, 10, 170), 1.2, INK, outline=0)
    tears(pen, expression, 30.4, 6.4)


def _cat_face(pen: Pen, expression: str) -> None:
    if expression in ("asleep", "crying"):
        eyes(pen, expression, 35.5, color=WHITE)
    else:
        for side in (-1, 1):
            pen.ellipse(side * 3.9, 35.4, 2.6, 2.9, (196, 240, 110), outline=0)
            pen.ellipse(side * 3.9, 35.6, 1.2, 2.3, INK, outline=0)
    pen.ellipse(0, 40.6, 3.9, 2.9, (232, 226, 240), outline=0)
    pen.ellipse(0, 38.8, 1.4, 0.95, (245, 120, 150), outline=0)
    mouth(pen, expression, 41.2)
    for side in (-1, 1):
        for y, slope in ((39.4, -0.8), (41.4, 0.6)):
            pen.stroke([(side * 5.4, y), (side * 9, y + slope)], 0.6, WHITE, outline=0)
    tears(pen, expression, 35.5)


def _fox_head(pen: Pen) -> None:
    for side in (-1, 1):
        pen.polygon([(side * 0.3, 45.2), (side * 8.8, 38.2), (side * 5, 37.4), (side * 0.3, 40)], CREAM, outline=0)
        pen.ellipse(side * 4.6, 41.2, 4.0, 3.2, CREAM, outline=0)


def _fox_face(pen: Pen, expression: str) -> None:
    eyes(pen, expression, 34.8)
    pen.ellipse(0, 38.8, 1.8, 1.3, INK, outline=0)
    mouth(pen, expression, 41.6)
    tears(pen, expression, 34.8, 5.2)


def _penguin_head(pen: Pen) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 3.8, 36.2, 4.5, 5.0, WHITE, outline=0)
    pen.ellipse(0, 40.4, 6.8, 4.2, WHITE, outline=0)


def _penguin_face(pen: Pen, expression: str) -> None:
    eyes(pen, expression, 35.5, 3.9)
    cheeks(pen, 40.2, 5.4)
    beak(pen, expression, 39.2)
    tears(pen, expression, 35.5)


def _elephant_face(pen: Pen, expression: str) -> None:
    eyes(pen, expression, 34.6, 4.2)
    cheeks(pen, 38.8, 6.6)
    if expression == "open":
        pen.polygon(arc(-2.6, 41.2, 2.4, 3.0, 0, 180), TONGUE, outline=0.6)
    pen.stroke([(0, 38.2), (0, 43), (1.2, 46), (4.2, 46.6)], 3.2, SKY, outline=0.8)
    pen.ellipse(0, 37.6, 2.2, 1.6, SKY, outline=0)
    tears(pen, expression, 34.6, 5.6)


def _belly(color: Color) -> Callable[[Pen], None]:
    def draw(pen: Pen) -> None:
        pen.ellipse(0, 49, 4.8, 4.0, color, outline=0)

    return draw


def _dots(pen: Pen) -> None:
    for x, y in ((-4.4, 50), (0, 48), (4.4, 50)):
        pen.ellipse(x, y, 1.1, 1.1, WHITE, outline=0)


def _stripe(pen: Pen) -> None:
    pen.box(-7.2, 48.4, 7.2, 50.4, WHITE, outline=0)


def _bib(pen: Pen) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 3.4, 48.4, 0.9, 0.9, GOLD, outline=0)


LOOKS: tuple[Looks, ...] = (
    Looks(YELLOW, BEAK, YELLOW, _belly(CREAM), _tuft, _plain, _chick_face),
    Looks(WHITE, WHITE, (250, 130, 170), _dots, _long_ears, _plain, _soft_face),
    Looks(BROWN, BROWN, (60, 110, 200), _bib, _round_ears(7.4, 28.4, 3.8, TAN), _plain, _bear_face),
    Looks(GREEN, GREEN, (220, 60, 60), _stripe, _bald, _plain, _frog_face),
    Looks(SLATE, SLATE, (40, 190, 190), _dots, _pointed_ears(None), _plain, _cat_face),
    Looks(ORANGE, INK, (50, 140, 80), _plain, _fox_back, _fox_head, _fox_face),
    Looks(NAVY, BEAK, NAVY, _belly(WHITE), _bald, _penguin_head, _penguin_face),
    Looks(GREY, PINK, (220, 54, 84), _dots, _round_ears(7.1, 25.6, 5.2, PINK), _plain, _soft_face),
    Looks(SKY, SKY, (255, 200, 50), _plain, _wide_ears, _plain, _elephant_face),
)


def trunk_and_head(pen: Pen, looks: Looks) -> None:
    looks.behind(pen, looks.fur)
    pen.polygon(mirrored([(4.2, 43), (6.6, 50.6), (4.4, 52.2)]), looks.clothes, rounding=0.9)
    looks.pattern(pen)
    pen.ellipse(0, 36, 9.4, 9.5, looks.fur)
    looks.head(pen)


def hat(pen: Pen, color: Color) -> None:
    """A cone with a pompon: it sits at the same place on every head."""
    pen.polygon([(-6.2, 28.2), (0, 19.2), (6.2, 28.2), (0, 29.4)], color, rounding=0.5)
    pen.stroke([(-6.0, 28.2), (0, 29.5), (6.0, 28.2)], 1.7, WHITE, outline=0.7)
    pen.ellipse(0, 19.2, 1.9, 1.9, WHITE, outline=0.9)
