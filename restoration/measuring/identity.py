"""How much a restored face looks like a person: the cosine of what a face network makes of it and of references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from library.metrics import distances
from library.metrics.networks import identity
from restoration.image_folders import at_size
from restoration.restoring.alignment import TEMPLATE, TEMPLATE_SIDE

LEAST_LIKENESS = 0.25
"""Cosine below which a face is not taken for the person's: SFace's own limit for good photos is 0.363, and damage takes
some of it."""

Embedder = Callable[[np.ndarray], np.ndarray]
"""A face, uint8 RGB aligned as in `alignment`, to a vector."""


def face_network(path: Path) -> Embedder:
    """The network of a file, for aligned faces. Raises `UserError` where there is none or OpenCV cannot run it."""
    network = identity.face_network(path)
    return lambda face: network(for_arcface(face))


def for_arcface(face: np.ndarray) -> np.ndarray:
    """A face that is aligned as FFHQ's, cut as ArcFace wants it: uint8 (112, 112, 3)."""
    return identity.cut_face(at_size(face, (TEMPLATE_SIDE, TEMPLATE_SIDE)), TEMPLATE)


def likeness(embed: Embedder, faces: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> list[float]:
    """Each face's cosine with the mean direction of the references, in [-1, 1]."""
    person = [embed(reference) for reference in references]
    return distances.likeness_to_mean([embed(face) for face in faces], person).tolist()


def cosine(face: np.ndarray, other: np.ndarray) -> float:
    """Of two vectors, in [-1, 1]."""
    return float(distances.unit(face) @ distances.unit(other))
