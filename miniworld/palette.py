"""The colours of the world, all RGB in 0..255: what a word such as "red" looks like, and how a shade is made of it."""

from __future__ import annotations

import numpy as np

Colour = tuple[float, float, float]

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 220, 50),
    "green": (50, 160, 60),
    "blue": (45, 85, 210),
    "purple": (130, 60, 170),
    "pink": (245, 140, 180),
    "brown": (125, 80, 45),
    "black": (28, 28, 32),
    "white": (245, 245, 245),
    "gray": (135, 138, 142),
    "cyan": (70, 200, 215),
}
SKINS: dict[str, Colour] = {
    "pale": (250, 222, 200),
    "fair": (240, 196, 165),
    "tan": (212, 158, 112),
    "brown": (158, 104, 68),
    "dark": (98, 62, 44),
}
HAIR_COLOURS: dict[str, Colour] = {
    "black": (32, 28, 30),
    "brown": (104, 64, 36),
    "blond": (235, 200, 105),
    "red": (190, 72, 32),
    "gray": (158, 158, 162),
    "white": (238, 238, 240),
    "blue": (60, 100, 220),
    "pink": (240, 120, 175),
}
EYE_COLOURS: dict[str, Colour] = {
    "blue": (40, 115, 240),
    "green": (30, 170, 75),
    "brown": (115, 62, 25),
    "gray": (140, 150, 160),
    "purple": (150, 55, 190),
}
CLOTHES: tuple[Colour, ...] = ((60, 80, 130), (150, 60, 60), (60, 120, 90), (200, 180, 120), (90, 90, 95))


def jittered(rng: np.random.Generator, colour: Colour, std: float) -> Colour:
    """A nearby colour: independent normal noise of `std` on each channel."""
    red, green, blue = np.clip(np.asarray(colour) + rng.normal(0, std, 3), 0, 255)
    return float(red), float(green), float(blue)


def darker(colour: Colour, factor: float = 0.7) -> Colour:
    """The colour times `factor`."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def lighter(colour: Colour, share: float) -> Colour:
    """The colour moved towards white by `share` of the way."""
    return mixed(colour, (255, 255, 255), share)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """`first` moved towards `second` by `share` of the way."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue
