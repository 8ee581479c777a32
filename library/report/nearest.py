"""Which training picture a sample is most like: a first sign of copying, by a measure that anyone can picture.

Two pictures are compared as 24 x 24 pixels, each without its mean colour and brought to length 1: their cosine is 1 for
the same picture, also a lighter or darker one, and about 0 for two that have nothing in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from library.image_files import open_image

PIXELS = 24
MOST_COMPARED = 200
"""Training pictures that are looked at; of more they are taken evenly."""
LIKENESS_OF_A_COPY = 0.95
"""What only the same picture reaches, also saved again, scaled or in another tone: different pictures of one style or
one person stay below 0.9."""
LIKE_SHAPES = 1.6
"""Pictures whose sides differ more than so in their ratio are not compared: a sheet of two faces is like no face."""


@dataclass(frozen=True)
class Signature:
    """`pixels` (24, 24, 3), mean 0 in each colour and length 1; `shape` is width over height."""

    pixels: np.ndarray
    shape: float


@dataclass(frozen=True)
class Nearest:
    """The training picture `index` with its cosine; `mirrored` where it is nearest as its mirror image."""

    index: int
    cosine: float
    mirrored: bool


def nearest(sample: Path, pictures: Sequence[Path]) -> Nearest | None:
    """The one of `pictures` that `sample` is most like; None where nothing can be read."""
    looked_at = signature(sample)
    if looked_at is None:
        return None
    best: Nearest | None = None
    for index, picture in enumerate(pictures):
        theirs = signature(picture)
        if theirs is None or not 1 / LIKE_SHAPES < looked_at.shape / theirs.shape < LIKE_SHAPES:
            continue
        for mirrored, other in ((False, theirs.pixels), (True, theirs.pixels[:, ::-1])):
            cosine = float((looked_at.pixels * other).sum())
            if best is None or cosine > best.cosine:
                best = Nearest(index, cosine, mirrored)
    return best


def signature(picture: Path) -> Signature | None:
    """None where the file is gone or no picture."""
    try:
        stamp = picture.stat()
        return _signature(picture, stamp.st_mtime_ns, stamp.st_size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@lru_cache(maxsize=1024)
def _signature(picture: Path, mtime: int, size: int) -> Signature:
    with open_image(picture) as image:
        image.draft("RGB", (4 * PIXELS, 4 * PIXELS))
        upright = ImageOps.exif_transpose(image).convert("RGB")
        small = upright.resize((PIXELS, PIXELS), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)
    centred = pixels - pixels.mean(axis=(0, 1))
    return Signature(centred / max(float(np.linalg.norm(centred)), 1e-6), upright.width / upright.height)
