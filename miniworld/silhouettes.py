"""The shape of a single plain figure, read from its outline: a measure that no network has a part in.

The figure is what differs from the colour of the border. Its outline, cut out and scaled to a small square, is compared
with the outlines of the ten shapes, drawn at a few angles. On outlines this is surer than the judge's head.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import cv2
import numpy as np

from miniworld.canvas import SIZE, Canvas, shrink
from miniworld.shapes import SHAPES, draw_shape

SIDE = 32  # of the square that outlines are compared in
ANGLES = np.linspace(-0.2, 0.2, 9)  # radians: shapes are turned by a normal angle of std 0.08
LEAST_PIXELS = 40
BORDER = 4  # pixels


def read_shapes(images: Iterable) -> list[str]:
    """The shape of each picture's largest figure; "" where there is none. Images: 128 x 128 RGB, arrays or PIL."""
    return [read_shape(np.asarray(image)) for image in images]


def read_shape(image: np.ndarray) -> str:
    """The name of the template whose outline covers the figure best, by intersection over union."""
    mask = figure(image)
    if mask.sum() < LEAST_PIXELS:
        return ""
    outline = cut_out(mask)
    names, patterns = templates()
    overlap = np.minimum(patterns, outline).sum((1, 2)) / np.maximum(patterns, outline).sum((1, 2))
    return names[int(overlap.argmax())]


def figure(image: np.ndarray) -> np.ndarray:
    """(h, w) bool: the largest connected region whose colour differs from the border's, measured in CIELAB.

    The background is a vertical gradient, so the border is compared row by row. The threshold is half of the distance
    between figure and background, which puts it in the middle of a soft edge.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    sides = np.concatenate([lab[:, :BORDER], lab[:, -BORDER:]], axis=1)  # (h, 8, 3)
    background = cv2.blur(np.median(sides, axis=1)[:, None], (1, 15))  # (h, 1, 3)
    distance = np.linalg.norm(lab - background.reshape(len(lab), 1, 3), axis=2)
    mask = (distance > max(8.0, 0.5 * np.percentile(distance, 98))).astype(np.uint8)
    count, regions, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count == 1:
        return np.zeros(mask.shape, bool)
    return regions == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())


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
