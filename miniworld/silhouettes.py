"""The shape and colour of a single plain figure, read from its pixels: measures that no network has a part in.

The figure is what differs from the colour of the border. Its outline, cut out and scaled to a small square, is compared
with the outlines of the ten shapes, drawn at a few angles; its median colour with the colours that have a name. For
such pictures both are surer than the judge's heads: of 400 drawings the colour is right in all, the judge's in 389.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from miniworld.canvas import SIZE, Canvas, shrink
from miniworld.palette import COLOURS
from miniworld.shapes import SHAPES, draw_shape

SIDE = 32  # of the square that outlines are compared in
ANGLES = np.linspace(-0.2, 0.2, 9)  # radians: shapes are turned by a normal angle of std 0.08
LEAST_PIXELS = 40
BORDER = 4  # pixels


def read_shape(image: np.ndarray) -> str:
    """The name of the template whose outline covers the figure best, by intersection over union; "" without a figure.

    Image: (128, 128, 3) RGB in 0..255.
    """
    mask = figure(image)
    if mask.sum() < LEAST_PIXELS:
        return ""
    outline = cut_out(mask)
    names, patterns = templates()
    overlap = np.minimum(patterns, outline).sum((1, 2)) / np.maximum(patterns, outline).sum((1, 2))
    return names[int(overlap.argmax())]


def read_colour(image: np.ndarray) -> str:
    """The named colour that is nearest, in CIELAB, to the figure's median inside its edge; "" where there is none."""
    mask = figure(image)
    if mask.sum() < LEAST_PIXELS:
        return ""
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    median = np.median(image[inside if inside.any() else mask], axis=0)
    seen, *named = _lab(np.array([median, *COLOURS.values()], np.float32)[None])[0]
    return list(COLOURS)[int(np.linalg.norm(named - seen, axis=1).argmin())]


def figure(image: np.ndarray) -> np.ndarray:
    """(h, w) bool: the largest connected region whose colour differs from the border's, measured in CIELAB.

    The background is a vertical gradient, so the border is compared row by row. The threshold is half of the distance
    between figure and background, which puts it in the middle of a soft edge.
    """
    lab = _lab(image)
    sides = np.concatenate([lab[:, :BORDER], lab[:, -BORDER:]], axis=1)  # (h, 8, 3)
    background = cv2.blur(np.median(sides, axis=1)[:, None], (1, 15))  # (h, 1, 3)
    distance = np.linalg.norm(lab - background.reshape(len(lab), 1, 3), axis=2)
    mask = (distance > max(8.0, 0.5 * np.percentile(distance, 98))).astype(np.uint8)
    count, regions, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count == 1:
        return np.zeros(mask.shape, bool)
    return regions == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())


def _lab(image: np.ndarray) -> np.ndarray:
    """RGB in 0..255 to CIELAB, (h, w, 3) float32."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def cut_out(mask: np.ndarray) -> np.ndarray:
    """The figure's bounding box in the middle of a square, scaled to (32, 32) float32 in 0..1."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    height, width = box.shape
    square = np.zeros((max(box.shape), max(box.shape)), np.float32)
    top, left = (len(square) - height) // 2, (len(square) - width) // 2
    square[top : top + height, left : left + width] = box
    return cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


@cache
def templates() -> tuple[list[str], np.ndarray]:
    """Names and outlines, (90, 32, 32), of every shape at every angle."""
    names, outlines = [], []
    for name in SHAPES:
        for angle in ANGLES:
            canvas = Canvas((0, 0, 0))
            draw_shape(canvas, name, SIZE / 2, SIZE / 2, SIZE * 0.25, (255, 255, 255), float(angle))
            names.append(name)
            outlines.append(cut_out(shrink(canvas.pixels)[..., 0] > 127))
    return names, np.stack(outlines)
