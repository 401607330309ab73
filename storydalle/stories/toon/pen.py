"""A pen that draws outlined flat shapes in world units, and the layers that its drawings become.

A frame is 64 x 64 units. Shapes are drawn at four times the resolution without antialiasing and reduced by averaging;
fully transparent pixels are black, so the averages are colours premultiplied with alpha and edges have no fringe.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

UNITS = 64
CENTRE = 32.0  # x of a figure that stands alone
GROUND = 58.0  # y of its feet
PATCH = 8  # every position snaps to this grid, so that a picture's codes repeat wherever its content does
OVERSAMPLING = 4
OUTLINE = 1.05  # units

Length: TypeAlias = float | int  # a number of them; beartype tells the two apart
Color: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[Length, Length]

INK: Color = (46, 36, 60)
WHITE: Color = (255, 255, 255)
CREAM: Color = (255, 244, 220)
GOLD: Color = (255, 205, 60)


class Layer(NamedTuple):
    """A cut-out picture with premultiplied alpha, and the pixel of the frame that its upper left corner lies on."""

    pixels: UInt8[np.ndarray, "h w 4"]
    top: int
    left: int


class Pen:
    """Draws on a transparent 64 x 64 canvas. x counts from ``origin``, y from the top."""

    def __init__(self, resolution: int, origin: Length = 0.0) -> None:
        self.resolution = resolution
        self.origin = origin
        self.scale = OVERSAMPLING * resolution / UNITS
        self.image = Image.new("RGBA", (OVERSAMPLING * resolution, OVERSAMPLING * resolution))
        self.draw = ImageDraw.Draw(self.image)

    def ellipse(self, x: Length, y: Length, rx: Length, ry: Length, fill: Color, outline: Length = OUTLINE) -> None:
        if outline:
            self._ellipse(x, y, rx + outline, ry + outline, INK)
        self._ellipse(x, y, rx, ry, fill)

    def union(self, ellipses: Sequence[tuple[Length, Length, Length, Length]], fill: Color) -> None:
        """Several ellipses (x, y, rx, ry) with one common outline."""
        for x, y, rx, ry in ellipses:
            self._ellipse(x, y, rx + OUTLINE, ry + OUTLINE, INK)
        for x, y, rx, ry in ellipses:
            self._ellipse(x, y, rx, ry, fill)

    def polygon(self, points: Sequence[Point], fill: Color, outline: Length = OUTLINE, rounding: Length = 0.0) -> None:
        """A polygon, its corners rounded by a stroke of its own colour of radius ``rounding``."""
        closed = [*points, points[0]]
        if outline:
            self._polyline(closed, 2 * (outline + rounding), INK)
        self.draw.polygon([self._pixel(point) for point in points], fill=fill)
        if rounding:
            self._polyline(closed, 2 * rounding, fill)

    def box(
        self, left: Length, top: Length, right: Length, bottom: Length, fill: Color, outline: Length = OUTLINE
    ) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill, outline)

    def stroke(self, points: Sequence[Point], width: Length, fill: Color, outline: Length = OUTLINE) -> None:
        """A line with round ends and joints."""
        if outline:
            self._polyline(points, width + 2 * outline, INK)
        self._polyline(points, width, fill)

    def shade(self, x: Length, y: Length, rx: Length, ry: Length, alpha: int) -> None:
        """A see-through black ellipse; it replaces what is beneath, so draw it first."""
        self._ellipse(x, y, rx, ry, (0, 0, 0, alpha))

    def layer(self) -> Layer:
        """The drawing, at the frame's resolution, cut to its bounding box."""
        size, k = self.resolution, OVERSAMPLING
        bounds = self.image.getbbox()
        assert bounds, "an empty drawing has no layer"
        left, top = bounds[0] // k, bounds[1] // k
        right, bottom = -(-bounds[2] // k), -(-bounds[3] // k)
        pixels = np.asarray(self.image, dtype=np.uint16).reshape(size, k, size, k, 4)[top:bottom, :, left:right]
        return Layer(((pixels.sum(axis=(1, 3), dtype=np.uint16) + k * k // 2) // (k * k)).astype(np.uint8), top, left)

    def _pixel(self, point: Point) -> Point:
        return (point[0] + self.origin) * self.scale, point[1] * self.scale

    def _ellipse(self, x: Length, y: Length, rx: Length, ry: Length, fill: tuple[int, ...]) -> None:
        (left, top), (right, bottom) = self._pixel((x - rx, y - ry)), self._pixel((x + rx, y + ry))
        self.draw.ellipse((left, top, right - 1, bottom - 1), fill=fill)

    def _polyline(self, points: Sequence[Point], width: Length, fill: Color) -> None:
        self.draw.line([self._pixel(point) for point in points], fill=fill, width=max(1, round(width * self.scale)))
        for x, y in points:
            self._ellipse(x, y, width / 2, width / 2, fill)


def over(canvas: np.ndarray, layer: Layer, down: int = 0, right: int = 0) -> None:
    """Put ``layer``, moved by whole pixels, on ``canvas`` (h, w, 3 or 4; premultiplied) and cut it at the borders."""
    height, width, channels = canvas.shape
    top, left = layer.top + down, layer.left + right
    bottom, end = min(height, top + layer.pixels.shape[0]), min(width, left + layer.pixels.shape[1])
    clip_top, clip_left = max(0, top), max(0, left)
    if clip_top >= bottom or clip_left >= end:
        return
    source = layer.pixels[clip_top - top : bottom - top, clip_left - left : end - left]
    target = canvas[clip_top:bottom, clip_left:end]
    through = 255 - source[:, :, 3:].astype(np.uint16)
    behind = target * through + 128
    target[...] = source[:, :, :channels] + ((behind + (behind >> 8)) >> 8).astype(np.uint8)  # rounded behind / 255


def arc(x: Length, y: Length, rx: Length, ry: Length, start: Length, end: Length, steps: int = 12) -> list[Point]:
    """Points of an ellipse from ``start`` to ``end`` degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def star(x: Length, y: Length, outer: Length, inner: Length, points: int = 5) -> list[Point]:
    """Corners of a star that stands on two of its points."""
    radii = [outer, inner] * points
    angles = [math.pi * (corner / points - 0.5) for corner in range(2 * points)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """The half outline ``points`` from top to bottom, completed by its mirror image in x = 0."""
    return [*points, *((-x, y) for x, y in reversed(points))]
