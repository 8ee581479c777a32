"""The sheet on which the world is drawn: anti-aliased OpenCV shapes at 192 px, shrunk to 128 px when finished."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from miniworld.palette import Colour

cv2.setNumThreads(1)  # a picture is too small to share, and drawing runs in several processes already

SIZE = 192
OUTPUT_SIZE = 128
_SUBPIXEL_BITS = 4
_SUBPIXEL = 1 << _SUBPIXEL_BITS

Point = tuple[float, float]


def fixed_point(points: Sequence[Point] | np.ndarray) -> np.ndarray:
    """Points (n, 2) as OpenCV wants them with 4 fractional bits: (n, 1, 2) int32."""
    return np.round(np.asarray(points, float) * _SUBPIXEL).astype(np.int32).reshape(-1, 1, 2)


def regular_polygon(corners: int, x: float, y: float, radius: float, angle: float) -> list[Point]:
    """Corners on a circle, the first at `angle` (radians, clockwise from the right)."""
    turns = [angle + 2 * math.pi * i / corners for i in range(corners)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in turns]


def star_polygon(tips: int, x: float, y: float, outer: float, inner: float, angle: float) -> list[Point]:
    """Alternating corners on an outer and an inner circle, the first tip at `angle`."""
    points = []
    for i in range(2 * tips):
        radius, turn = (inner if i % 2 else outer), angle + math.pi * i / tips
        points.append((x + radius * math.cos(turn), y + radius * math.sin(turn)))
    return points


class Canvas:
    """A square RGB picture, `pixels` (192, 192, 3) uint8, with the few strokes that the world is made of."""

    def __init__(self, top: Colour, bottom: Colour | None = None) -> None:
        """A vertical gradient from `top` to `bottom`; a flat sheet without `bottom`."""
        down = np.linspace(0, 1, SIZE)[:, None, None]
        rows = np.asarray(top) * (1 - down) + np.asarray(bottom if bottom else top) * down  # (192, 1, 3)
        self.pixels: np.ndarray = np.ascontiguousarray(np.broadcast_to(rows.astype(np.uint8), (SIZE, SIZE, 3)))

    def polygon(self, points: Sequence[Point] | np.ndarray, colour: Colour) -> None:
        cv2.fillPoly(self.pixels, [fixed_point(points)], colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float, closed: bool = False) -> None:
        thickness = max(1, round(width))
        cv2.polylines(self.pixels, [fixed_point(points)], closed, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def circle(self, x: float, y: float, radius: float, colour: Colour, width: float | None = None) -> None:
        """A disc, or a ring of `width` around the radius."""
        thickness = -1 if width is None else max(1, round(width))
        centre = int(x * _SUBPIXEL), int(y * _SUBPIXEL)
        fixed_radius = max(1, int(radius * _SUBPIXEL))
        cv2.circle(self.pixels, centre, fixed_radius, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def ellipse(
        self,
        x: float,
        y: float,
        half_width: float,
        half_height: float,
        colour: Colour,
        angle: float = 0.0,
        arc: tuple[float, float] = (0, 360),
        width: float | None = None,
    ) -> None:
        """An ellipse turned by `angle`, or its part between the angles `arc` (degrees, clockwise from the right)."""
        cv2.ellipse(
            self.pixels,
            (int(x * _SUBPIXEL), int(y * _SUBPIXEL)),
            (max(1, int(half_width * _SUBPIXEL)), max(1, int(half_height * _SUBPIXEL))),
            angle,
            arc[0],
            arc[1],
            colour,
            -1 if width is None else max(1, round(width)),
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )


def shrink(pixels: np.ndarray) -> np.ndarray:
    """The finished picture: (192, 192, 3) to (128, 128, 3), each pixel the mean of the area that it covers."""
    return cv2.resize(pixels, (OUTPUT_SIZE, OUTPUT_SIZE), interpolation=cv2.INTER_AREA)
