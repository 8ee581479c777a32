"""Ten plain shapes, each a function of its centre, radius and rotation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from miniworld.canvas import Canvas, regular_polygon, star_polygon
from miniworld.palette import Colour

UP = -math.pi / 2


def _circle(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    canvas.circle(x, y, r, colour)


def _square(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    canvas.polygon(regular_polygon(4, x, y, r * 1.25, math.pi / 4 + rotation), colour)


def _diamond(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    # never turned: a turned diamond would be a square
    canvas.polygon([(x, y - 1.25 * r), (x + 0.75 * r, y), (x, y + 1.25 * r), (x - 0.75 * r, y)], colour)


def _triangle(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    canvas.polygon(regular_polygon(3, x, y + 0.12 * r, r * 1.25, UP + rotation), colour)


def _star(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    canvas.polygon(star_polygon(5, x, y, r * 1.3, r * 0.54, UP + rotation), colour)


def _hexagon(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    canvas.polygon(regular_polygon(6, x, y, r * 1.15, rotation), colour)


def _heart(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    t = np.linspace(0, 2 * math.pi, 60)
    across = 16 * np.sin(t) ** 3
    down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    canvas.polygon(np.stack([x + across * r / 15, y + down * r / 15], 1), colour)


def _ring(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    canvas.circle(x, y, r * 0.85, colour, r * 0.38)


def _cross(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    a, b = 0.38 * r, 1.1 * r
    corners = [
        (-a, -b),
        (a, -b),
        (a, -a),
        (b, -a),
        (b, a),
        (a, a),
        (a, b),
        (-a, b),
        (-a, a),
        (-b, a),
        (-b, -a),
        (-a, -a),
    ]
    cos, sin = math.cos(rotation), math.sin(rotation)
    canvas.polygon([(x + p * cos - q * sin, y + p * sin + q * cos) for p, q in corners], colour)


def _crescent(canvas: Canvas, x: float, y: float, r: float, colour: Colour, rotation: float) -> None:
    horn = math.radians(50)  # the horns lie this far above and below the right
    outer = np.linspace(horn, 2 * math.pi - horn, 40)
    horn_x, horn_y = 1.15 * r * math.cos(horn), 1.15 * r * math.sin(horn)
    bite_x = 0.66 * r  # centre of the disc that is bitten out, through the same two horns
    bite_radius, bite_horn = math.hypot(horn_x - bite_x, horn_y), math.atan2(horn_y, horn_x - bite_x)
    inner = np.linspace(2 * math.pi - bite_horn, bite_horn, 30)
    points = [(x + 1.15 * r * math.cos(a), y + 1.15 * r * math.sin(a)) for a in outer]
    points += [(x + bite_x + bite_radius * math.cos(a), y + bite_radius * math.sin(a)) for a in inner]
    canvas.polygon(points, colour)


SHAPES: dict[str, Callable[[Canvas, float, float, float, Colour, float], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "diamond": _diamond,
    "cross": _cross,
    "crescent": _crescent,
    "hexagon": _hexagon,
}


def draw_shape(canvas: Canvas, name: str, x: float, y: float, radius: float, colour: Colour, rotation: float) -> None:
    """Draw one shape; `radius` is about half its height, `rotation` is in radians (some shapes do not turn)."""
    SHAPES[name](canvas, x, y, radius, colour, rotation)
