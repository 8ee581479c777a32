"""Pictures as part of a page."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from library.image_files import open_image

SIDE = 256
"""Pixels of the longer side of a picture on a page."""
QUALITY = 80


def data_uri(picture: Path, largest_side: int = SIDE) -> str | None:
    """The picture file as a small WebP inside a URI for `src`; None where it is gone or cannot be read.

    A picture is never enlarged. One that has been asked for before is not made again unless its file has changed.
    """
    try:
        stamp = picture.stat()
        return _encoded(picture, largest_side, stamp.st_mtime_ns, stamp.st_size)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None  # a report is also made of a run whose pictures were tidied away


@lru_cache(maxsize=512)
def _encoded(picture: Path, largest_side: int, mtime: int, size: int) -> str:
    with open_image(picture) as image:
        image.draft("RGB", (largest_side, largest_side))  # a JPEG is decoded at a fraction of its size
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((largest_side, largest_side), Image.Resampling.LANCZOS)
        return encoded(upright)


def encoded(image: Image.Image) -> str:
    """A picture in memory as a URI, in its own size; transparent parts stay transparent."""
    buffer = io.BytesIO()
    mode = "RGBA" if image.has_transparency_data else "RGB"
    image.convert(mode).save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
