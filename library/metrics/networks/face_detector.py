"""Finding faces with OpenCV's YuNet, whose weights are a file that people bring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from library.errors import UserError

NAME = "face_detection_yunet_2023mar.onnx"
WHERE = f"get `{NAME}` (github.com/opencv/opencv_zoo, models/face_detection_yunet) and give its path as `face_detector`"
# Its importer's own warnings are of no use to who gave the wrong file: what is wrong comes as an exception.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

CONFIDENCE = 0.7
LARGEST_SIDE = 1280  # pixels: photos are looked at no larger than this; faces are found at any smaller size


@dataclass(frozen=True)
class DetectedFace:
    """A face in a photo: box (left, top, width, height), landmarks (5, 2), confidence."""

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    confidence: float


class FaceDetector:
    """Finds the faces of uint8 RGB photos, the largest first."""

    def __init__(self, path: Path | None) -> None:
        if path is None:
            raise UserError(f"faces are found by a detector, and none is given; {WHERE}")
        if not path.is_file():
            raise UserError(f"`face_detector = {path}` does not exist; {WHERE}")
        try:
            self._network: Any = cv2.FaceDetectorYN.create(str(path), "", (320, 320), CONFIDENCE)
        except cv2.error as error:
            raise UserError(
                f"`face_detector = {path}` cannot be read by OpenCV ({first_line(error)}); {WHERE}"
            ) from None

    def find(self, photo: np.ndarray, smallest: int = 0) -> list[DetectedFace]:
        """Faces whose box is at least `smallest` pixels wide."""
        share = min(1.0, LARGEST_SIDE / max(photo.shape[:2]))
        seen = photo if share == 1.0 else cv2.resize(photo, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        self._network.setInputSize(seen.shape[1::-1])
        _, rows = self._network.detect(np.ascontiguousarray(seen[..., ::-1]))
        found = [found_face(row, share) for row in (rows if rows is not None else [])]
        large = [face for face in found if face.box[2] >= smallest]
        return sorted(large, key=lambda face: face.box[2] * face.box[3], reverse=True)


def first_line(error: cv2.error) -> str:
    """OpenCV's reason without its quotation marks and its trace."""
    return str(error.err).strip("> \n").splitlines()[0]


def found_face(row: np.ndarray, share: float) -> DetectedFace:
    """A row of YuNet's answer: box, right eye, left eye, nose, right and left corner of the mouth, confidence.

    Its right and left are the person's, so the first of each is on the left of the picture, as in the template.
    """
    values = np.asarray(row, np.float64)
    left, top, width, height = values[:4] / share
    return DetectedFace((left, top, width, height), values[4:14].reshape(5, 2) / share, float(values[14]))
