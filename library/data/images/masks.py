"""Which parts of a picture count in the loss: its alpha channel, or a mask image of its own.

A mask is resized, cut and mirrored with its picture, then averaged over the 8 x 8 pixels of each latent. White (or
opaque) counts fully, black (or transparent) not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from library.data.augmentation.resize_crop import fitted
from library.data.buckets import BucketChoice
from library.data.images.image_folder import Stamp
from library.image_files import BadImage, decode_alpha, load

LATENT = 8  # pixels to a latent, on each axis


@dataclass(frozen=True, slots=True)
class MaskSource:
    """Where a picture's mask comes from: the red channel of a file of its own, or without one its alpha channel."""

    file: Path | None = None
    stamp: Stamp | None = None

    @property
    def mark(self) -> str:
        """What a cached mask is known by, besides its picture's content."""
        return f"{self.stamp.size}-{self.stamp.mtime_ns}" if self.stamp else "alpha"


def whole_mask(source: MaskSource, path: Path, content: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask of a picture of `size` (width, height), uint8 (height, width). Raises BadImage.

    `path` and `content` are the picture's.
    """
    if source.file is None:
        return decode_alpha(path, content)
    try:
        mask = load(source.file)[..., 0]
    except BadImage as error:
        raise BadImage(f"has a mask '{source.file}' that {error}") from error
    height, width = mask.shape
    pixel = max(size[0] / width, size[1] / height)  # of the mask, in pixels of the picture
    if abs(size[0] * height / width - size[1]) > pixel:
        shapes = f"{width}x{height}, is of another shape than the image, {size[0]}x{size[1]}"
        raise BadImage(f"has a mask '{source.file}' that, with {shapes}; make it as large as the image")
    return mask if (width, height) == size else cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)


def latent_mask(mask: np.ndarray, choice: BucketChoice, flipped: bool) -> Tensor:
    """uint8 (height, width) of a whole picture -> float32 (1, h/8, w/8) of its bucket, in [0, 1]."""
    shrinks = choice.resized[0] <= mask.shape[1] and choice.resized[1] <= mask.shape[0]
    cut = fitted(mask, choice, "area" if shrinks else "linear")
    pixels = torch.from_numpy(np.ascontiguousarray(cut[:, ::-1] if flipped else cut)).float().div_(255)
    size = (cut.shape[0] // LATENT, cut.shape[1] // LATENT)
    return torch.nn.functional.interpolate(pixels[None, None], size=size, mode="area")[0]


def stacked(masks: list[Tensor | None]) -> Tensor | None:
    """The masks of a batch, (batch, 1, h/8, w/8), with ones for pictures that have none; None if none has one."""
    some = next((mask for mask in masks if mask is not None), None)
    if some is None:
        return None
    return torch.stack([torch.ones_like(some) if mask is None else mask for mask in masks])
