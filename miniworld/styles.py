"""Ways to render a drawing: four that pretraining shows, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from miniworld import art_styles
from miniworld.canvas import SIZE
from miniworld.edges import edge_strength, normal_field

Style = Callable[[np.random.Generator, np.ndarray], np.ndarray]

_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE] / SIZE
_VIGNETTE = np.repeat(
    (1.04 - 0.56 * ((_COLUMNS - 0.5) ** 2 + (_ROWS - 0.5) ** 2)).astype(np.float32)[..., None], 3, 2
)  # (192, 192, 3)


def _photo(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    return cv2.multiply(pixels, _VIGNETTE, dtype=cv2.CV_8U)


def _sketch(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Pencil: the grey picture divided by its own blur keeps only lines; edges are drawn on top."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(gray, (0, 0), 7)
    pencil = cv2.divide(gray, np.maximum(blurred, 1), scale=256).astype(np.float32)
    pencil -= np.clip(edge_strength(pixels) - 0.1, 0, 1) * 230
    pencil = np.clip(pencil, 0, 255) * 0.86 + gray * 0.14
    return cv2.cvtColor(np.clip(pencil, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)


def _pixel_art(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """24 x 24 large pixels of few colours."""
    blocks = cv2.resize(pixels, (24, 24), interpolation=cv2.INTER_AREA).astype(np.int32)
    blocks = np.clip((blocks + 21) // 42 * 42, 0, 255).astype(np.uint8)
    return cv2.resize(blocks, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)


def _watercolor(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Thin, uneven paint on white paper, darker where a wash ends."""
    smooth = cv2.bilateralFilter(pixels, 7, 60, 7)
    paint = cv2.GaussianBlur(smooth, (0, 0), 1.6).astype(np.float32)
    paint += (255 - paint) * 0.32
    paint += normal_field(rng, 32)[..., None] * 11
    paint -= np.clip(edge_strength(pixels) - 0.08, 0, 0.35)[..., None] * 90
    return np.clip(paint, 0, 255).astype(np.uint8)


_PRETRAINED: dict[str, Style] = {
    "photo": _photo,
    "sketch": _sketch,
    "pixel art": _pixel_art,
    "watercolor": _watercolor,
}
PRETRAINING_STYLES: dict[str, float] = {"photo": 0.79, "sketch": 0.07, "pixel art": 0.07, "watercolor": 0.07}
"""Styles of the pretraining set and their share."""

_HELD_OUT: dict[str, Style] = {
    "pointillism": art_styles.pointillism,
    "stainedglass": art_styles.stained_glass,
    "comic": art_styles.comic,
    "blueprint": art_styles.blueprint,
    "lowpoly": art_styles.low_poly,
    "oil": art_styles.oil,
    "woodcut": art_styles.woodcut,
    "neon": art_styles.neon,
    "papercut": art_styles.paper_cut,
    "chalk": art_styles.chalk,
}
HELD_OUT_STYLES: tuple[str, ...] = tuple(_HELD_OUT)
"""Art styles that the pretrained U-Net and text encoder have never seen."""
STYLES: tuple[str, ...] = (*_PRETRAINED, *_HELD_OUT)


def apply_style(rng: np.random.Generator, pixels: np.ndarray, style: str) -> np.ndarray:
    """Render a drawing, (192, 192, 3) uint8 to the same, in one of `STYLES`."""
    return (_PRETRAINED.get(style) or _HELD_OUT[style])(rng, pixels)
