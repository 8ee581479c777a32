"""Where a drawing has lines, and smooth random fields: what several styles are made of."""

from __future__ import annotations

import cv2
import numpy as np

from miniworld.canvas import SIZE


def edge_strength(pixels: np.ndarray) -> np.ndarray:
    """Largest gradient over the colour channels, (192, 192) float32; 0.1 is faint, 1 and more is a hard edge."""
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.2).astype(np.float32) / 255
    strongest = np.zeros(pixels.shape[:2], np.float32)
    for channel in cv2.split(smooth):
        across, down = cv2.Sobel(channel, cv2.CV_32F, 1, 0), cv2.Sobel(channel, cv2.CV_32F, 0, 1)
        strongest = cv2.max(strongest, cv2.magnitude(across, down))
    return strongest


def normal_field(rng: np.random.Generator, scale: float) -> np.ndarray:
    """Smooth noise of unit standard deviation, (192, 192) float32; `scale` is the size of its clouds in pixels."""
    coarse = max(4, round(SIZE / scale * 1.5))
    field = cv2.resize(rng.standard_normal((coarse, coarse), np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return field / (field.std() + 1e-6)
