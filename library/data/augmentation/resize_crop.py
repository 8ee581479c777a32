"""Pixels resized and cut to their bucket."""

from __future__ import annotations

import cv2
import numpy as np

from library.data.buckets import BucketChoice

INTERPOLATIONS = {
    "lanczos": cv2.INTER_LANCZOS4,
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "linear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def fitted(pixels: np.ndarray, choice: BucketChoice, interpolation: str | None = None) -> np.ndarray:
    """Resize and cut pixels (height, width, ...) to their bucket.

    By the interpolation of this name; without one area averaging where nothing grows, else Lanczos.
    """
    height, width = pixels.shape[:2]
    if (width, height) != choice.resized:
        shrinks = width >= choice.resized[0] and height >= choice.resized[1]
        usual = "area" if shrinks else "lanczos"
        pixels = cv2.resize(pixels, choice.resized, interpolation=INTERPOLATIONS[interpolation or usual])
    (x, y), (width, height) = choice.crop, choice.bucket
    return pixels[y : y + height, x : x + width]
