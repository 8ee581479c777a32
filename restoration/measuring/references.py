"""What is wrong among the references of a person: another person, and the same photo twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from library.image_files import load
from library.metrics.distances import unit
from restoration.image_folders import at_size
from restoration.measuring.identity import LEAST_LIKENESS, face_network

SMALL = 32  # pixels: at this size two files of one photo are alike, whatever was done to them on the way
SAME_PHOTO = 0.985
"""Correlation of two small grey pictures from which on they are one photo."""


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """What `same_photos` looks at: uint8 (32, 32, 3)."""
    return at_size(picture, (SMALL, SMALL))


def same_photos(pictures: Sequence[np.ndarray]) -> dict[int, int]:
    """Each picture that is an earlier one again, and the earlier one; uint8 pictures, whole ones or aligned alike."""
    small = [cv2.cvtColor(thumbnail(picture), cv2.COLOR_RGB2GRAY) for picture in pictures]
    rows = np.array([grey.reshape(-1) - grey.mean() for grey in small])
    again: dict[int, int] = {}
    for number, row in enumerate(rows):
        earlier = [i for i in range(number) if i not in again]
        alike = unit(rows[earlier]) @ unit(row) if earlier else np.zeros(0)
        if alike.size and alike.max() >= SAME_PHOTO:
            again[number] = earlier[int(alike.argmax())]
    return again


def other_people(directions: Sequence[np.ndarray], least_likeness: float = LEAST_LIKENESS) -> dict[int, float]:
    """Each face that is not the person of most of them, and its median cosine with the others.

    Of fewer than three nobody can say who is meant.
    """
    if len(directions) < 3:
        return {}
    cosines = unit(np.stack(directions)) @ unit(np.stack(directions)).T
    others = ~np.eye(len(cosines), dtype=bool)
    medians = {number: float(np.median(row[others[number]])) for number, row in enumerate(cosines)}
    strangers = {number: median for number, median in medians.items() if median < least_likeness}
    return strangers if 2 * len(strangers) < len(cosines) else {}


def describe_references(
    paths: Sequence[Path], identity_model: Path | None, least_likeness: float = LEAST_LIKENESS
) -> list[str]:
    """A line for each reference that should not be there; who is in them is seen where there is an `identity_model`."""
    pictures = [load(path) for path in paths]
    lines = [
        f"the references '{paths[first].name}' and '{paths[again].name}' are the same photo, which counts twice"
        for again, first in same_photos(pictures).items()
    ]
    if identity_model is not None:
        network = face_network(identity_model)
        lines += [
            f"the reference '{paths[number].name}' seems to show another person: its likeness to the others is "
            f"{median:.2f}; remove it, or it is learnt too"
            for number, median in other_people([network(picture) for picture in pictures], least_likeness).items()
        ]
    return lines
