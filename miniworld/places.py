"""Eight places: each draws a whole background and says at which height its ground begins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from miniworld.canvas import SIZE, Canvas
from miniworld.palette import Colour, jittered


class _Tint:
    """Every colour of a place varies a little from picture to picture."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __call__(self, *colour: float) -> Colour:
        red, green, blue = colour
        return jittered(self._rng, (red, green, blue), 8)


def _ground(canvas: Canvas, horizon: float, colour: Colour) -> None:
    canvas.rectangle(0, horizon, SIZE, SIZE, colour)


def _meadow(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(120, 190, 245), tint(215, 235, 250))
    _ground(canvas, horizon, tint(95, 175, 70))
    return canvas


def _beach(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(110, 195, 245), tint(200, 235, 250))
    canvas.rectangle(0, horizon - 26, SIZE, horizon, tint(35, 120, 190))
    _ground(canvas, horizon, tint(240, 215, 150))
    return canvas


def _desert(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(245, 200, 130), tint(252, 232, 190))
    _ground(canvas, horizon, tint(215, 150, 75))
    canvas.ellipse(SIZE * rng.uniform(0.1, 0.9), horizon + 4, 60, 22, tint(200, 130, 60))
    return canvas


def _snow(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(170, 190, 215), tint(220, 228, 240))
    _ground(canvas, horizon, tint(245, 248, 252))
    for _ in range(22):
        canvas.circle(rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(2, 3.5), (255, 255, 255))
    return canvas


def _night(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(12, 14, 45), tint(35, 40, 90))
    for _ in range(18):
        canvas.circle(rng.uniform(0, SIZE), rng.uniform(0, horizon), rng.uniform(1.5, 2.6), (250, 250, 220))
    canvas.circle(SIZE * rng.uniform(0.1, 0.9), SIZE * rng.uniform(0.1, 0.25), 13, (245, 240, 200))
    _ground(canvas, horizon, tint(22, 40, 35))
    return canvas


def _sunset(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(110, 60, 130), tint(250, 150, 70))
    canvas.circle(SIZE * rng.uniform(0.15, 0.85), horizon, 24, tint(255, 225, 110))
    _ground(canvas, horizon, tint(75, 45, 70))
    return canvas


def _city(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(180, 200, 220), tint(225, 230, 235))
    x = -5.0
    while x < SIZE:
        width, height = rng.uniform(22, 44), rng.uniform(35, 95)
        canvas.rectangle(x, horizon - height, x + width, horizon, tint(105, 112, 128))
        for window_y in np.arange(horizon - height + 7, horizon - 6, 13):
            for window_x in np.arange(x + 6, x + width - 8, 12):
                canvas.rectangle(window_x, window_y, window_x + 5, window_y + 6, (235, 225, 150))
        x += width + 2
    _ground(canvas, horizon, tint(88, 90, 96))
    return canvas


def _forest(rng: np.random.Generator, horizon: int, tint: _Tint) -> Canvas:
    canvas = Canvas(tint(60, 110, 75), tint(110, 150, 100))
    for k in range(6):
        x = SIZE * (k + 0.5) / 6 + rng.normal(0, 7)
        canvas.rectangle(x - 5, horizon - 75, x + 5, horizon, tint(70, 50, 35))
        canvas.polygon([(x - 26, horizon - 25), (x, horizon - 120), (x + 26, horizon - 25)], tint(28, 82, 48))
    _ground(canvas, horizon, tint(60, 95, 45))
    return canvas


PLACES: dict[str, Callable[[np.random.Generator, int, _Tint], Canvas]] = {
    "in a meadow": _meadow,
    "on the beach": _beach,
    "in the desert": _desert,
    "in the snow": _snow,
    "at night": _night,
    "at sunset": _sunset,
    "in the city": _city,
    "in the forest": _forest,
}


def draw_place(rng: np.random.Generator, name: str) -> tuple[Canvas, int]:
    """A new canvas with the place, and the row of its horizon."""
    horizon = int(SIZE * rng.uniform(0.58, 0.68))
    return PLACES[name](rng, horizon, _Tint(rng)), horizon
