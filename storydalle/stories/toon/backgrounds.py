"""The eight settings.

Below y = 25 all columns of patches except the outermost are the same, so that figures stand on plain ground.
"""

from functools import lru_cache

import numpy as np

from storydalle.stories.toon.pen import INK, PATCH, UNITS, WHITE, Color, Length, Pen, arc, over
from storydalle.stories.toon.world import SETTINGS

THIN = 0.7  # outline of landmarks, lighter than that of figures


def _band(pen: Pen, top: Length, bottom: Length, color: Color) -> None:
    pen.box(-2, top, UNITS + 2, bottom, color, outline=0)


def _cloud(pen: Pen, x: Length, y: Length) -> None:
    for dx, dy, rx, ry in ((-4, 1, 3.6, 2.4), (0, -0.6, 4.2, 3.4), (4.2, 1, 3.4, 2.4)):
        pen.ellipse(x + dx, y + dy, rx, ry, WHITE, outline=0)


def _sun(pen: Pen, x: Length, y: Length, radius: Length, color: Color = (255, 226, 90)) -> None:
    pen.ellipse(x, y, radius, radius, color, outline=0)


def _pine(pen: Pen, x: Length, base: Length, height: Length, color: Color, tip: Color | None = None) -> None:
    for step in (0, 1):
        top, bottom = base - height + step * height * 0.3, base - (1 - step) * height * 0.35
        half = 3.4 + step * 1.4
        pen.polygon([(x, top), (x + half, bottom), (x - half, bottom)], color, outline=0, rounding=0.4)
        if tip:
            rise = (bottom - top) * 0.42
            pen.polygon([(x, top), (x + half * 0.42, top + rise), (x - half * 0.42, top + rise)], tip, 0, 0.4)


def _meadow(pen: Pen) -> None:
    _band(pen, 0, 40, (150, 214, 250))
    _sun(pen, 54, 8, 5)
    _cloud(pen, 12, 8)
    _cloud(pen, 36, 5.4)
    for x, height in ((2, 6), (26, 7), (46, 5.6), (66, 6.4)):
        pen.ellipse(x, 25, 16, height, (132, 206, 128), outline=0)
    _band(pen, 24, 40, (132, 206, 128))
    _band(pen, 40, 64, (104, 188, 84))
    for x in range(4, UNITS, PATCH):
        for dx in (-1.6, 0, 1.6):
            pen.stroke([(x, 63.4), (x + dx, 60.6)], 0.8, (70, 150, 62), outline=0)
        pen.ellipse(x + 3, 44.4, 0.8, 0.8, (255, 244, 150), outline=0)


def _beach(pen: Pen) -> None:
    _band(pen, 0, 24, (176, 228, 252))
    _sun(pen, 9, 8, 5)
    _cloud(pen, 36, 6)
    _band(pen, 24, 40, (60, 160, 214))
    for x in range(4, UNITS, PATCH):
        pen.stroke(arc(x, 30, 2.6, 1.2, 20, 160), 0.8, (150, 214, 240), outline=0)
    _band(pen, 39, 41, (226, 246, 250))
    _band(pen, 41, 64, (246, 220, 156))
    pen.polygon([(49, 20.6), (61, 20.6), (58.6, 24), (51.4, 24)], (200, 80, 60), outline=THIN)
    pen.polygon([(54.6, 8.6), (54.6, 19), (47.8, 19)], WHITE, outline=THIN)
    pen.polygon([(56.6, 11), (56.6, 19), (61.6, 19)], (255, 150, 120), outline=THIN)
    for x in range(4, UNITS, PATCH):
        pen.ellipse(x, 61.6, 0.9, 0.6, (214, 180, 112), outline=0)


def _forest(pen: Pen) -> None:
    _band(pen, 0, 40, (170, 214, 176))
    for x in range(4, UNITS + 8, 16):
        _pine(pen, x - 4, 30, 26, (74, 142, 92))
    for x in range(12, UNITS + 8, 16):
        _pine(pen, x - 4, 30, 20, (48, 112, 74))
    _band(pen, 24, 40, (48, 112, 74))
    _band(pen, 40, 64, (134, 112, 70))
    for x in range(4, UNITS, PATCH):
        pen.ellipse(x, 40, 4.4, 1.6, (62, 128, 70), outline=0)
        pen.polygon([(x - 2, 62), (x, 60.8), (x + 2, 62), (x, 63.2)], (196, 130, 60), outline=0)


def _snow(pen: Pen) -> None:
    _band(pen, 0, 32, (182, 206, 236))
    pen.polygon([(-6, 26), (12, 5), (30, 26)], (120, 142, 186), outline=0)
    pen.polygon([(6.9, 11), (12, 5), (17.1, 11), (14.4, 13.4), (12, 11), (9.4, 13.6)], WHITE, outline=0)
    _pine(pen, 40, 25, 16, (54, 116, 110), WHITE)
    _pine(pen, 56, 25, 20, (54, 116, 110), WHITE)
    for x, y in ((24, 5), (34, 12), (48, 4), (28, 16), (3, 6), (47.6, 13)):
        pen.ellipse(x, y, 1.0, 1.0, WHITE, outline=0)
    _band(pen, 24, 40, (214, 228, 246))
    _band(pen, 40, 64, (244, 249, 255))
    for x in range(4, UNITS, PATCH):
        pen.ellipse(x, 61.8, 2.2, 0.7, (208, 224, 244), outline=0)


def _desert(pen: Pen) -> None:
    _band(pen, 0, 32, (255, 210, 150))
    _sun(pen, 33, 10, 6, (255, 244, 180))
    pen.polygon([(34, 25), (49, 8), (64, 25)], (214, 150, 84), outline=0)
    pen.polygon([(49, 8), (64, 25), (52, 25)], (184, 122, 68), outline=0)
    for outline in (THIN, 0):
        for line in ([(10, 25), (10, 6)], [(10, 18), (4.4, 18), (4.4, 12)], [(10, 15), (15.6, 15), (15.6, 9)]):
            pen.stroke(line, 3.0, (70, 150, 90), outline)
    _band(pen, 24, 40, (240, 178, 98))
    _band(pen, 40, 64, (228, 152, 76))
    for x in range(4, UNITS, PATCH):
        pen.stroke(arc(x, 62.4, 2.8, 1.2, 200, 340), 0.9, (196, 120, 56), outline=0)


def _city(pen: Pen) -> None:
    _band(pen, 0, 32, (198, 214, 232))
    blocks = ((0, 10, 11, (120, 132, 170)), (11, 4, 12, (96, 106, 148)), (23, 12, 10, (150, 110, 120)))
    more = ((33, 6, 11, (110, 124, 164)), (44, 13, 9, (160, 122, 124)), (53, 3, 11, (92, 102, 146)))
    for left, top, width, color in (*blocks, *more):
        pen.box(left, top, left + width, 26, color, outline=0)
        for column in range(2):
            for y in range(top + 2, 22, 4):
                middle = left + width * (0.3 + 0.4 * column)
                pen.box(middle - 1.2, y, middle + 1.2, y + 2, (255, 232, 150), outline=0)
    _band(pen, 24, 40, (186, 160, 146))
    for row, joint in enumerate((27.2, 30.4, 33.6, 36.8)):
        _band(pen, joint, joint + 0.5, (164, 136, 124))
        for x in range(-PATCH // 2, UNITS + PATCH // 2, PATCH):
            seam = x + 4 * (row % 2)
            pen.box(seam, joint, seam + 0.5, joint + 3.2, (164, 136, 124), outline=0)
    _band(pen, 38, 44, (206, 206, 208))
    _band(pen, 44, 64, (112, 114, 124))
    for x in range(0, UNITS, PATCH):
        pen.box(x + 1.6, 61, x + 6.4, 62.4, (240, 240, 236), outline=0)


def _kitchen(pen: Pen) -> None:
    _band(pen, 0, 40, (255, 236, 200))
    pen.box(24, 2.4, 40, 15.4, (176, 224, 250), outline=THIN)
    pen.box(31.4, 2.4, 32.6, 15.4, WHITE, outline=0)
    pen.box(24, 8.4, 40, 9.4, WHITE, outline=0)
    for left in (2, 45):
        pen.box(left, 12.6, left + 17, 14.4, (176, 116, 70), outline=THIN)
    pen.ellipse(6.4, 8.6, 2.8, 3.2, (230, 90, 80), outline=THIN)
    pen.box(11.4, 6.2, 16.6, 11.8, (90, 170, 200), outline=THIN)
    pen.box(48, 5.4, 51.6, 11.8, (120, 180, 100), outline=THIN)
    pen.ellipse(57, 8.8, 3.2, 3.0, (250, 190, 70), outline=THIN)
    for x in (5, 10, 54, 59):
        pen.stroke([(x, 15.6), (x, 19)], 0.8, INK, outline=0)
        pen.ellipse(x, 20.4, 1.9, 1.6, (130, 136, 150), outline=0)
    _band(pen, 24, 40, (164, 214, 200))
    _band(pen, 23.4, 25.4, (240, 250, 246))
    for x in range(0, UNITS, PATCH):
        pen.box(x - 0.25, 25.4, x + 0.25, 40, (140, 194, 180), outline=0)
    _band(pen, 32.6, 33.2, (140, 194, 180))
    _band(pen, 40, 64, (244, 226, 206))
    for x in range(0, UNITS, PATCH):
        for row, y in enumerate(range(40, 64, 4)):
            left = x + 4 * (row % 2)
            pen.box(left, y, left + 4, y + 4, (222, 150, 124), outline=0)


def _moon(pen: Pen) -> None:
    _band(pen, 0, 40, (34, 30, 74))
    for star_x, star_y in ((6, 5), (15, 14), (24, 4), (31, 17), (38, 8), (3, 19), (61, 19)):
        size = {6: 0.9, 15: 0.7, 38: 1.0}.get(star_x, 0.8)
        pen.ellipse(star_x, star_y, size, size, (255, 246, 200), outline=0)
    pen.ellipse(51, 10, 7, 7, (70, 140, 230), outline=0)
    for middle, height, rx, ry in ((48.6, 7.4, 3.2, 2.2), (53.6, 12.0, 2.8, 2.6), (49.0, 13.0, 1.4, 1.2)):
        pen.ellipse(middle, height, rx, ry, (110, 196, 110), outline=0)
    _band(pen, 24, 40, (52, 46, 102))
    _band(pen, 40, 64, (172, 170, 190))
    for x in range(4, UNITS, PATCH):
        pen.ellipse(x, 40.4, 5, 1.8, (172, 170, 190), outline=0)
        pen.ellipse(x, 61.8, 2.6, 0.9, (138, 136, 160), outline=0)


_PAINTERS = (_meadow, _beach, _forest, _snow, _desert, _city, _kitchen, _moon)
assert [painter.__name__[1:] for painter in _PAINTERS] == list(SETTINGS)


@lru_cache(maxsize=16)
def background(resolution: int, setting: int) -> np.ndarray:
    """The empty setting, uint8 (h, w, 3); it is cached, so copy it before drawing on it."""
    pen = Pen(resolution)
    _PAINTERS[setting](pen)
    canvas = np.zeros((resolution, resolution, 3), dtype=np.uint8)
    over(canvas, pen.layer())
    canvas.setflags(write=False)
    return canvas
