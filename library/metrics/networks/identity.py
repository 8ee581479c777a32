"""How much a picture looks like a person: what a face network makes of the face in it.

The network is a file that people bring: OpenCV's SFace, or any ArcFace .onnx. Both are run by OpenCV. Their numbers are
not comparable with each other; SFace takes two faces for one person from a cosine of 0.363 on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from library.errors import UserError
from library.metrics.networks.face_detector import FaceDetector, first_line

SIDE = 112
# Where ArcFace's training had the eyes, the nose and the corners of the mouth, in 112 pixels.
ARCFACE = np.array([(38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)], np.float64)
Reader = Callable[[np.ndarray], np.ndarray]
"""A face that `cut_face` has cut, to a vector."""


def similarity_transform(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that bring points (n, 2) nearest to their places, as a matrix (2, 3).

    Least squares in complex numbers: place = a point + b.
    """
    z, w = points @ (1, 1j), places @ (1, 1j)
    around = z - z.mean()
    a = (around.conj() @ (w - w.mean())) / (around.conj() @ around).real
    b = w.mean() - a * z.mean()
    return np.array([(a.real, -a.imag, b.real), (a.imag, a.real, b.imag)])


def cut_face(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face with these five landmarks (5, 2), where ArcFace and SFace want it: uint8 (112, 112, 3)."""
    return cv2.warpAffine(photo, similarity_transform(np.asarray(landmarks, np.float64), ARCFACE), (SIDE, SIDE))


def face_network(path: Path) -> Reader:
    """The network of a file. Raises `UserError` where there is none or OpenCV cannot run it."""
    if not path.is_file():
        raise UserError(f"the face network '{path}' does not exist; give an ArcFace .onnx, or OpenCV's SFace .onnx")
    try:
        network: Any = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise UserError(f"the face network '{path}' cannot be read by OpenCV ({first_line(error)})") from None
    # SFace takes colours as they are, ArcFace around 0.
    mean, scale = (0.0, 1.0) if "sface" in path.name.lower() else (127.5, 1 / 127.5)

    def read(face: np.ndarray) -> np.ndarray:
        network.setInput(cv2.dnn.blobFromImage(face, scale, (SIDE, SIDE), (mean,) * 3))
        return np.asarray(network.forward(), np.float64).reshape(-1)

    try:
        read(np.zeros((SIDE, SIDE, 3), np.uint8))
    except cv2.error as error:
        raise UserError(f"'{path}' is no face network: it cannot read a face ({first_line(error)})") from None
    return read


@dataclass(frozen=True)
class FaceReader:
    """Finds the largest face of a picture and reads it."""

    detector: FaceDetector
    network: Reader
    preprocessing: str = "largest face of YuNet, five landmarks to ArcFace's 112 x 112"

    def read(self, picture: Image.Image) -> np.ndarray | None:
        """The vector of the largest face, None where there is none."""
        photo = np.array(picture)
        found = self.detector.find(photo)
        return self.network(cut_face(photo, found[0].landmarks)) if found else None


def load_faces(detector: Path, network: Path) -> FaceReader:
    """Raises `UserError` where one of the files cannot be used."""
    return FaceReader(FaceDetector(detector), face_network(network))
