"""How much a picture looks like a person: the cosine between what a face network makes of it and of the references.

The network is a file that people bring: OpenCV's SFace, or any ArcFace .onnx. Both are run by OpenCV. Their numbers are
not comparable with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from library.errors import UserError
from restoration.alignment import TEMPLATE, TEMPLATE_SIDE
from restoration.pictures import at_size

Embedder = Callable[[np.ndarray], np.ndarray]
"""A face, uint8 RGB aligned as in `alignment`, to a vector."""

SIDE = 112
# Where ArcFace's training had the five landmarks of `alignment.TEMPLATE`, in 112 pixels.
ARCFACE = np.array([(38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)], np.float64)


def face_network(path: Path) -> Embedder:
    """The network of a file. Raises `UserError` where there is none or OpenCV cannot run it."""
    if not path.is_file():
        raise UserError(f"`identity_model = {path}` does not exist; give an ArcFace .onnx, or OpenCV's SFace .onnx")
    try:
        network: Any = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise UserError(f"`identity_model = {path}` cannot be read by OpenCV ({error.err})") from None
    # SFace takes colours as they are, ArcFace around 0.
    mean, scale = (0.0, 1.0) if "sface" in path.name.lower() else (127.5, 1 / 127.5)

    def embed(face: np.ndarray) -> np.ndarray:
        network.setInput(cv2.dnn.blobFromImage(for_arcface(face), scale, (SIDE, SIDE), (mean,) * 3))
        return np.asarray(network.forward(), np.float64).reshape(-1)

    return embed


def for_arcface(face: np.ndarray) -> np.ndarray:
    """A face that is aligned as FFHQ's, cut as ArcFace wants it: uint8 (112, 112, 3)."""
    face = at_size(face, (TEMPLATE_SIDE, TEMPLATE_SIDE))
    matrix, _ = cv2.estimateAffinePartial2D(TEMPLATE, ARCFACE, method=cv2.LMEDS)
    return cv2.warpAffine(face, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA)


def likeness(embed: Embedder, faces: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> list[float]:
    """Each face's cosine with the mean direction of the references, in [-1, 1]."""
    mean = np.mean([_direction(embed(reference)) for reference in references], axis=0)
    return [float(_direction(embed(face)) @ _direction(mean)) for face in faces]


def _direction(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
