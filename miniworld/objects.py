"""Fourteen objects, each a function of the point where it stands, its height and its one free colour."""

from __future__ import annotations

import math
from collections.abc import Callable

from miniworld.canvas import Canvas
from miniworld.palette import Colour, darker, lighter

INK: Colour = (35, 30, 30)
SIDES = (-1, 1)


def _house(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    half = s * 0.4
    canvas.rectangle(x - half, y - s * 0.6, x + half, y, colour)
    canvas.polygon([(x - half * 1.24, y - s * 0.6), (x, y - s), (x + half * 1.24, y - s * 0.6)], (110, 60, 45))
    canvas.rectangle(x - s * 0.1, y - s * 0.32, x + s * 0.1, y, (90, 55, 35))
    for side in SIDES:
        centre = x + side * s * 0.256
        canvas.rectangle(centre - s * 0.08, y - s * 0.5, centre + s * 0.08, y - s * 0.3, (250, 240, 170))


def _tree(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    canvas.rectangle(x - s * 0.07, y - s * 0.4, x + s * 0.07, y, (105, 70, 40))
    for side in SIDES:
        canvas.circle(x + side * s * 0.18, y - s * 0.52, s * 0.22, darker(colour))
    canvas.circle(x, y - s * 0.72, s * 0.28, colour)
    canvas.circle(x - s * 0.08, y - s * 0.8, s * 0.1, lighter(colour, 0.35))


def _flower(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    canvas.line([(x, y), (x, y - s * 0.6)], (40, 120, 50), s * 0.06)
    canvas.ellipse(x + s * 0.14, y - s * 0.22, s * 0.14, s * 0.06, (50, 140, 60), -30)
    for petal in range(6):
        turn = petal * math.pi / 3
        canvas.circle(x + s * 0.2 * math.cos(turn), y - s * 0.72 + s * 0.2 * math.sin(turn), s * 0.14, colour)
    yellowish = colour[2] <= 90 and colour[0] >= 200 and colour[1] >= 180
    canvas.circle(x, y - s * 0.72, s * 0.12, (140, 80, 30) if yellowish else (250, 215, 70))


def _car(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    w = s * 1.5
    roof = [(x - w * 0.25, y - s * 0.75), (x + w * 0.15, y - s * 0.75)]
    canvas.polygon([*roof, (x + w * 0.3, y - s * 0.42), (x - w * 0.35, y - s * 0.42)], darker(colour))
    glass = [(x - w * 0.21, y - s * 0.69), (x + w * 0.12, y - s * 0.69)]
    canvas.polygon([*glass, (x + w * 0.22, y - s * 0.45), (x - w * 0.28, y - s * 0.45)], (200, 225, 240))
    canvas.rectangle(x - w * 0.5, y - s * 0.45, x + w * 0.5, y - s * 0.12, colour)
    for side in SIDES:
        canvas.circle(x + side * w * 0.28, y - s * 0.12, s * 0.15, INK)
        canvas.circle(x + side * w * 0.28, y - s * 0.12, s * 0.06, (190, 190, 190))


def _boat(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    deck = [(x - s * 0.5, y - s * 0.25), (x + s * 0.5, y - s * 0.25)]
    canvas.polygon([*deck, (x + s * 0.32, y), (x - s * 0.32, y)], colour)
    canvas.rectangle(x - s * 0.03, y - s, x + s * 0.03, y - s * 0.25, (90, 60, 40))
    canvas.polygon(
        [(x + s * 0.06, y - s * 0.95), (x + s * 0.42, y - s * 0.35), (x + s * 0.06, y - s * 0.35)], (250, 250, 245)
    )
    canvas.polygon(
        [(x - s * 0.06, y - s * 0.85), (x - s * 0.32, y - s * 0.35), (x - s * 0.06, y - s * 0.35)], (225, 225, 220)
    )


def _fish(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    middle = y - s * 0.5
    canvas.polygon(
        [(x + s * 0.3, middle), (x + s * 0.64, middle - s * 0.3), (x + s * 0.64, middle + s * 0.3)], darker(colour)
    )
    canvas.ellipse(x, middle, s * 0.47, s * 0.28, colour)
    fin = [(x - s * 0.12, middle - s * 0.23), (x + s * 0.18, middle - s * 0.48), (x + s * 0.22, middle - s * 0.2)]
    canvas.polygon(fin, darker(colour))
    canvas.circle(x - s * 0.26, middle - s * 0.06, s * 0.08, (255, 255, 255))
    canvas.circle(x - s * 0.27, middle - s * 0.06, s * 0.04, INK)
    canvas.ellipse(x - s * 0.08, middle, s * 0.06, s * 0.18, lighter(colour, 0.35), 0, (-90, 90), s * 0.05)


def _bird(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    middle = y - s * 0.45
    tail = [(x + s * 0.3, middle), (x + s * 0.62, middle - s * 0.1), (x + s * 0.6, middle + s * 0.14)]
    canvas.polygon(tail, darker(colour))
    canvas.ellipse(x, middle, s * 0.38, s * 0.27, colour)
    canvas.circle(x - s * 0.28, middle - s * 0.25, s * 0.19, colour)
    beak = [(x - s * 0.43, middle - s * 0.33), (x - s * 0.68, middle - s * 0.22), (x - s * 0.43, middle - s * 0.13)]
    canvas.polygon(beak, (245, 160, 40))
    canvas.ellipse(x + s * 0.06, middle - s * 0.02, s * 0.22, s * 0.13, darker(colour), 15)
    canvas.circle(x - s * 0.31, middle - s * 0.3, s * 0.06, (255, 255, 255))
    canvas.circle(x - s * 0.32, middle - s * 0.3, s * 0.035, INK)
    for leg in (-0.06, 0.08):
        canvas.line([(x + s * leg, middle + s * 0.24), (x + s * leg, y)], (200, 130, 40), s * 0.05)


def _cat(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    tail = [(x + s * 0.26, y - s * 0.08), (x + s * 0.5, y - s * 0.2), (x + s * 0.45, y - s * 0.5)]
    canvas.line(tail, darker(colour), s * 0.09)
    canvas.ellipse(x, y - s * 0.27, s * 0.3, s * 0.28, colour)
    head = y - s * 0.65
    for side in SIDES:
        ear = [(x + side * s * 0.26, head - s * 0.08), (x + side * s * 0.23, head - s * 0.36)]
        canvas.polygon([*ear, (x + side * s * 0.04, head - s * 0.2)], darker(colour))
    canvas.ellipse(x, y - s * 0.2, s * 0.14, s * 0.18, lighter(colour, 0.35))
    canvas.ellipse(x, head, s * 0.29, s * 0.24, colour)
    for side in SIDES:
        canvas.ellipse(x + side * s * 0.12, head - s * 0.03, s * 0.06, s * 0.075, (235, 240, 120))
        canvas.ellipse(x + side * s * 0.12, head - s * 0.03, s * 0.024, s * 0.07, INK)
    nose = [(x - s * 0.045, head + s * 0.06), (x + s * 0.045, head + s * 0.06), (x, head + s * 0.12)]
    canvas.polygon(nose, (240, 130, 140))


def _mushroom(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    top = [(x - s * 0.13, y - s * 0.5), (x + s * 0.13, y - s * 0.5)]
    canvas.polygon([*top, (x + s * 0.18, y), (x - s * 0.18, y)], (240, 228, 205))
    canvas.ellipse(x, y - s * 0.48, s * 0.46, s * 0.46, colour, 0, (180, 360))
    dots: Colour = (252, 248, 240) if sum(colour) < 690 else (200, 60, 50)  # a white cap has red dots
    for across, up, radius in ((-0.2, 0.62, 0.07), (0.05, 0.78, 0.08), (0.24, 0.6, 0.06)):
        canvas.circle(x + s * across, y - s * up, s * radius, dots)


def _cup(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    canvas.ellipse(x + s * 0.36, y - s * 0.42, s * 0.18, s * 0.2, darker(colour), width=s * 0.08)
    rim = [(x - s * 0.38, y - s * 0.8), (x + s * 0.38, y - s * 0.8)]
    canvas.polygon([*rim, (x + s * 0.28, y), (x - s * 0.28, y)], colour)
    canvas.ellipse(x, y - s * 0.8, s * 0.38, s * 0.09, darker(colour))
    canvas.line([(x - s * 0.2, y - s * 0.65), (x - s * 0.15, y - s * 0.15)], lighter(colour, 0.35), s * 0.07)


def _balloon(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    canvas.line([(x, y - s * 0.42), (x + s * 0.05, y - s * 0.2), (x - s * 0.02, y)], (90, 90, 90), 2.5)
    canvas.ellipse(x, y - s * 0.7, s * 0.27, s * 0.33, colour)
    canvas.polygon([(x - s * 0.05, y - s * 0.36), (x + s * 0.05, y - s * 0.36), (x, y - s * 0.43)], darker(colour))
    canvas.ellipse(x - s * 0.1, y - s * 0.82, s * 0.05, s * 0.09, lighter(colour, 0.45), 20)


def _rocket(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    canvas.polygon([(x - s * 0.12, y - s * 0.15), (x + s * 0.12, y - s * 0.15), (x, y + s * 0.08)], (250, 160, 40))
    for side in SIDES:
        fin = [(x + side * s * 0.14, y - s * 0.42), (x + side * s * 0.34, y - s * 0.1)]
        canvas.polygon([*fin, (x + side * s * 0.14, y - s * 0.15)], darker(colour))
    left, right = x - s * 0.18, x + s * 0.18
    hull = [(left, y - s * 0.15), (left, y - s * 0.65), (x, y - s), (right, y - s * 0.65), (right, y - s * 0.15)]
    canvas.polygon(hull, colour)
    canvas.circle(x, y - s * 0.58, s * 0.1, (190, 230, 250))
    canvas.circle(x, y - s * 0.58, s * 0.1, darker(colour), s * 0.04)


def _butterfly(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    middle = y - s * 0.5
    for side in SIDES:
        canvas.ellipse(x + side * s * 0.27, middle - s * 0.18, s * 0.27, s * 0.23, colour, side * -25)
        canvas.ellipse(x + side * s * 0.21, middle + s * 0.2, s * 0.19, s * 0.18, darker(colour))
        canvas.circle(x + side * s * 0.28, middle - s * 0.2, s * 0.08, lighter(colour, 0.45))
    canvas.ellipse(x, middle, s * 0.05, s * 0.32, INK)
    for side in SIDES:
        canvas.line([(x, middle - s * 0.28), (x + side * s * 0.14, middle - s * 0.48)], INK, s * 0.03)


def _umbrella(canvas: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    canvas.ellipse(x, y - s * 0.5, s * 0.5, s * 0.48, colour, 0, (180, 360))
    for across in (-0.33, 0, 0.33):
        canvas.ellipse(x + across * s, y - s * 0.5, s * 0.165, s * 0.08, darker(colour), 0, (180, 360))
    handle = [(x, y - s * 0.52), (x, y - s * 0.08), (x - s * 0.06, y - s * 0.02), (x - s * 0.13, y - s * 0.06)]
    canvas.line(handle, (80, 60, 50), s * 0.05)


OBJECTS: dict[str, Callable[[Canvas, float, float, float, Colour], None]] = {
    "house": _house,
    "tree": _tree,
    "flower": _flower,
    "car": _car,
    "boat": _boat,
    "fish": _fish,
    "bird": _bird,
    "cat": _cat,
    "mushroom": _mushroom,
    "cup": _cup,
    "balloon": _balloon,
    "rocket": _rocket,
    "butterfly": _butterfly,
    "umbrella": _umbrella,
}


def draw_object(canvas: Canvas, name: str, x: float, y: float, height: float, colour: Colour) -> None:
    """Draw one object standing at (x, y); a car is drawn smaller, because it is wider than high."""
    OBJECTS[name](canvas, x, y, height * 0.75 if name == "car" else height, colour)
