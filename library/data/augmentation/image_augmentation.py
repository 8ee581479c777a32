"""Image augmentation: flip, random crop, a crop around a face, slightly other colours.

Each of these is drawn for itself, so that switching one on leaves the others as they were. What a cache holds was seen
upright or mirrored, cut from the middle: the other ways need the picture itself at every visit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch

from library.data.augmentation.caption_augmentation import Draw
from library.data.buckets import BucketChoice, Size
from library.data.images.image import DatasetImage

COLOURED = 0.33  # how often a picture gets other colours, how far hues move (of 180), and the range of gammas:
HUE_SHIFT = 8.0  # those of sd-scripts
GAMMAS = (0.95, 1.05)
FACE_SWAY = 1 / 20  # of the face: how far its centre may lie from the middle without random_crop


@dataclass(frozen=True, slots=True)
class Colour:
    """A change of all pixels: `hue` is added to hues of 0 to 180, and values of 0 to 1 are raised to `gamma`."""

    hue: float = 0.0
    gamma: float = 1.0


@dataclass(frozen=True, slots=True)
class View:
    """A picture is resized and cut as `choice` says, then coloured, then mirrored."""

    choice: BucketChoice
    flipped: bool = False
    colour: Colour | None = None

    @property
    def crop(self) -> tuple[int, int]:
        """(top, left) of the bucket in the resized image, mirrored with it."""
        left, top = self.choice.crop
        return top, (self.choice.resized[0] - self.choice.bucket[0] - left if self.flipped else left)


class FaceBox(NamedTuple):
    """A face's centre and size in pixels, as face-cropping tools write them at the end of a file's name."""

    x: int
    y: int
    width: int
    height: int


def view_of(picture: DatasetImage, draw: Draw) -> View:
    """How a visit sees a picture; `draw` makes the generators of the visit."""
    subset, choice = picture.subset, picture.choice
    face = face_in_name(picture.path.stem, picture.size) if subset.face_crop_aug_range else None
    if face and subset.face_crop_aug_range:
        choice = around_face(picture, face, subset.face_crop_aug_range, draw("crop"))
    elif subset.random_crop:
        choice = cut_anywhere(choice, draw("crop"))
    return View(
        choice,
        flipped=subset.flip_aug and bool(torch.rand((), generator=draw("flip")) < 0.5),
        colour=drawn_colour(draw("colour")) if subset.color_aug else None,
    )


def cut_anywhere(choice: BucketChoice, generator: torch.Generator) -> BucketChoice:
    """The bucket cut from anywhere in the resized image."""
    room = [resized - bucket for resized, bucket in zip(choice.resized, choice.bucket, strict=True)]
    x, y = (int(torch.randint(length + 1, (), generator=generator)) for length in room)
    return replace(choice, crop=(x, y))


def face_in_name(stem: str, size: Size) -> FaceBox | None:
    """The face that a name like `photo_320_200_90_110` tells of; None without one inside the image."""
    parts = stem.split("_")
    if len(parts) < 5 or not all(part.isdecimal() for part in parts[-4:]):
        return None
    face = FaceBox(*map(int, parts[-4:]))
    inside = face.x < size[0] and face.y < size[1]
    return face if inside and face.width > 0 and face.height > 0 else None


def around_face(
    picture: DatasetImage, face: FaceBox, factors: tuple[float, float], generator: torch.Generator
) -> BucketChoice:
    """The bucket around a face: its short side is between `factors` times the face's long side.

    The picture is never enlarged for it beyond what fills the bucket. The face is in the middle, or near it with
    `random_crop`, as far as the picture reaches.
    """
    (width, height), bucket = picture.size, picture.choice.bucket
    length, short = max(face.width, face.height), min(bucket)
    fills = max(bucket[0] / width, bucket[1] / height)
    smallest, largest = (max(fills, min(1.0, short / (length * factor))) for factor in (max(factors), min(factors)))
    along, *sway = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    scale = smallest + (largest - smallest) * along
    resized = max(bucket[0], int(width * scale + 0.5)), max(bucket[1], int(height * scale + 0.5))
    x, y = (
        _start(centre * scale, resized[axis], bucket[axis], length * scale, sway[2 * axis : 2 * axis + 2], picture)
        for axis, centre in enumerate((face.x, face.y))
    )
    return BucketChoice(bucket, resized, (x, y))


def drawn_colour(generator: torch.Generator) -> Colour | None:
    """Now and then a shift of the hues or another gamma."""
    changes, which, amount = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    if changes > COLOURED:
        return None
    if which > 0.5:
        return Colour(hue=HUE_SHIFT * (2 * amount - 1))
    return Colour(gamma=GAMMAS[0] + (GAMMAS[1] - GAMMAS[0]) * amount)


def coloured(pixels: np.ndarray, colour: Colour) -> np.ndarray:
    """uint8 (height, width, 3) in other colours."""
    if colour.hue:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = np.round(hsv[..., 0] + colour.hue).astype(np.int64) % 180
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if colour.gamma != 1:
        levels = np.round(255 * np.linspace(0, 1, 256) ** colour.gamma).astype(np.uint8)
        pixels = levels[pixels]
    return pixels


def _start(centre: float, length: int, bucket: int, face: float, sway: list[float], picture: DatasetImage) -> int:
    """Where the bucket begins on one axis, with the face's centre in its middle but for a sway."""
    if picture.subset.random_crop:  # the sum of two even draws is mostly near 0
        reach = max(length - centre, centre)
        away = (sway[0] + sway[1] - 1) * reach
    else:
        low, high = picture.subset.face_crop_aug_range or (1.0, 1.0)
        away = (2 * sway[0] - 1) * face * FACE_SWAY if low != high else 0.0
    return max(0, min(int(centre - bucket / 2 + away), length - bucket))
