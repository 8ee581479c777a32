"""Faces cut out of photos to where a restorer expects them, and put back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Where FFHQ-512, which DiffBIR's face weights know, has left eye, right eye, nose, left and right corner of the mouth.
TEMPLATE = np.array(
    [(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)], np.float64
)
TEMPLATE_SIDE = 512
# The oval of a face in it, hair and chin included: middle (x, y), half its width and its height.
OVAL = ((256.0, 280.0), (140.0, 185.0))
GREY = (128, 128, 128)  # what lies beyond a photo: a face is not made up by mirroring its other half
FEATHER = 0.06  # of the side: the width of the soft edge of what is pasted back
LOWEST_SHARE = 1 / 1024  # mask values below this count as nothing


@dataclass(frozen=True)
class Alignment:
    """A photo's coordinates to those of its aligned face: `matrix` (2, 3), a turn, a scale and a shift."""

    matrix: np.ndarray
    side: int

    @property
    def scale(self) -> float:
        """How many times larger the face is when aligned."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def missing(self, photo: np.ndarray) -> Missing:
        """What the photo's edges cut off."""
        size = (self.side, self.side)
        beyond = cv2.warpAffine(np.ones(photo.shape[:2], np.uint8), self.matrix, size, flags=cv2.INTER_NEAREST) == 0
        return Missing(float(beyond[face_oval(self.side)].mean()), float(beyond.mean()))


@dataclass(frozen=True)
class Missing:
    """The share of a face, and of the aligned picture around it, that lies beyond its photo."""

    face: float
    picture: float


def align(landmarks: np.ndarray, side: int = TEMPLATE_SIDE) -> Alignment:
    """From five landmarks (5, 2) in the photo: eyes, nose, corners of the mouth. Raises ValueError if none fits."""
    template = TEMPLATE * (side / TEMPLATE_SIDE)
    matrix, _ = cv2.estimateAffinePartial2D(np.asarray(landmarks, np.float64), template, method=cv2.LMEDS)
    if matrix is None:
        raise ValueError("the landmarks lie on one point")
    return Alignment(matrix, side)


def cut_out(photo: np.ndarray, alignment: Alignment) -> np.ndarray:
    """The aligned face, uint8 (side, side, 3); what lies beyond the photo is grey."""
    size = (alignment.side, alignment.side)
    flags = cv2.INTER_CUBIC if alignment.scale >= 1 else cv2.INTER_AREA
    return cv2.warpAffine(photo, alignment.matrix, size, flags=flags, borderValue=GREY)


def paste_back(photo: np.ndarray, face: np.ndarray, alignment: Alignment) -> np.ndarray:
    """The photo with its aligned face replaced, with a soft edge; not a byte outside of it changes."""
    height, width = photo.shape[:2]
    back = cv2.invertAffineTransform(alignment.matrix)
    # A face that shrinks would be sampled too coarsely: blur away what the photo cannot hold.
    if alignment.scale > 1:
        face = cv2.GaussianBlur(face, (0, 0), 0.35 * alignment.scale)
    placed = cv2.warpAffine(face, back, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(soft_mask(alignment.side), back, (width, height), flags=cv2.INTER_LINEAR)
    mask = np.where(mask < LOWEST_SHARE, 0.0, mask)[..., None]
    mixed = photo * (1.0 - mask) + placed * mask
    return np.where(mask > 0, np.clip(np.round(mixed), 0, 255), photo).astype(np.uint8)


def face_oval(side: int) -> np.ndarray:
    """Where the face is in an aligned picture: (side, side) bool."""
    share = side / TEMPLATE_SIDE
    (x, y), (half_width, half_height) = OVAL
    rows, columns = np.mgrid[0:side, 0:side] + 0.5
    return ((columns / share - x) / half_width) ** 2 + ((rows / share - y) / half_height) ** 2 <= 1


def soft_mask(side: int) -> np.ndarray:
    """1 in the middle, falling to 0 at the edges: (side, side) float64."""
    edge = max(1, round(FEATHER * side))
    ramp = np.minimum(np.arange(side), np.arange(side)[::-1]) / edge
    line = 0.5 - 0.5 * np.cos(np.pi * np.clip(ramp, 0, 1))
    return line[:, None] * line
