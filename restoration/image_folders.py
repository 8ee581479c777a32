"""Folders of pictures as people have them: what can be read, what each is called when it is written."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from library.atomic import atomic
from library.config.image_folders import about_passed_over, what_else_is_there
from library.errors import UserError
from library.image_files import decode_alpha, discover, open_image

logger = logging.getLogger(__name__)

MAKER = "made by"
"""The text of a PNG that says which weights made it."""

LONGEST = 8
"""How often a picture may be as long as wide: its shorter side is brought to the model's size, whatever the other."""


def find_pictures(source: Path | None, option: str) -> list[Path]:
    """The pictures of a folder, sorted, or the one that is given. Raises `UserError` where there are none."""
    if source is None:
        raise UserError(f"`{option}` is not set: a folder of pictures, or one picture")
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"`{option} = {source}` does not exist; give a folder of pictures, or one picture")
    found = discover(source)
    if not found:
        raise UserError(f"`{option}` holds no pictures: {what_else_is_there(source)}")
    if line := about_passed_over(source):
        logger.info(line)
    return found


def output_names(sources: list[Path], folder: Path) -> dict[Path, Path]:
    """Each picture's file in the output folder: its name as .png, or name and ending where two would be one.

    Raises `UserError` where even so two would be one.
    """
    stems = Counter(source.stem for source in sources)
    names = {source: f"{source.name if stems[source.stem] > 1 else source.stem}.png" for source in sources}
    for name, times in Counter(names.values()).items():
        if times > 1:
            raise UserError(f"two pictures would both be written as '{name}'; rename one of them")
    return {source: folder / name for source, name in names.items()}


def read_alpha(path: Path) -> np.ndarray | None:
    """How opaque a picture is, uint8 (height, width); None where it is so everywhere. Raises BadImage."""
    alpha = decode_alpha(path, path.read_bytes())
    return None if alpha.min() == 255 else alpha


def write_png(
    path: Path, picture: np.ndarray | Image.Image, maker: str | None = None, alpha: np.ndarray | None = None
) -> None:
    """Write uint8 RGB (height, width, 3), whole or not at all; the file tells by what it was made."""
    if alpha is not None:
        picture = np.dstack([np.asarray(picture), alpha])
    note = PngInfo()
    if maker is not None:
        note.add_text(MAKER, maker)
    with atomic(path) as temporary:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(temporary, pnginfo=note)


def maker_of(path: Path) -> str | None:
    """What a picture says that it was made by; None where it does not, or cannot be read."""
    try:
        with open_image(path) as image:
            return image.info.get(MAKER)
    except (OSError, SyntaxError, ValueError):
        return None


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 (height, width, 3) to (3, height, width) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255.0


def to_pixels(picture: Tensor) -> np.ndarray:
    """(3, height, width) in [0, 1] to uint8 (height, width, 3)."""
    return np.round(picture.clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255.0).astype(np.uint8)


def at_size(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resized to (width, height): by area where it shrinks, bicubic where it grows."""
    if size == pixels.shape[1::-1]:
        return pixels
    shrinks = size[0] <= pixels.shape[1] and size[1] <= pixels.shape[0]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def working_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) at which a picture is restored: its shorter side becomes `side`.

    Raises `ValueError` for a strip, which would become a picture of any size at all.
    """
    width, height = size
    if max(size) > LONGEST * min(size):
        raise ValueError(f"{width}x{height} pixels are more than {LONGEST} times as long as wide; crop it")
    factor = side / min(width, height)
    return max(side, round(width * factor)), max(side, round(height * factor))
