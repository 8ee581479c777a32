"""The pictures that the pivots learn from: aligned faces, brought to one square size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from library.config.image_folders import about_passed_over, what_else_is_there
from library.errors import Problem, UserError, raise_all
from library.image_files import BadImage, discover, load, measure

logger = logging.getLogger(__name__)

USUAL_NUMBER = 10  # reference pictures of a person, as in the paper


@dataclass(frozen=True)
class ReferenceFace:
    """One picture. `prompt` is what G reads for it; `person` tells whose G it belongs to, "" where there is one G.

    `sample_id` names the picture's random draws: folder and file, so that it stays the same when the folder moves.
    """

    path: Path
    prompt: str
    person: str = ""

    @property
    def sample_id(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


def find_faces(folder: Path, option: str, prompt: str, side: int, person: str = "") -> list[ReferenceFace]:
    """The pictures of a folder, sorted by name. Raises `UserError` that lists all that cannot be used.

    Pictures smaller than `side` are refused: enlarged ones would teach G to draw blurred faces.
    """
    if not folder.is_dir():
        raise UserError(f"`{option} = {folder}` is not a folder; give one with pictures of faces")
    paths = discover(folder)
    if not paths:
        raise UserError(f"`{option}` holds no pictures; put about ten into it: {what_else_is_there(folder)}")
    if line := about_passed_over(folder):
        logger.info(line)
    problems = [problem for path in paths if (problem := _problem(path, side))]
    raise_all(problems)
    return [ReferenceFace(path, prompt, person) for path in paths]


def about_number(faces: Sequence[ReferenceFace]) -> list[str]:
    """A line where there are few references."""
    if len(faces) >= USUAL_NUMBER // 2:
        return []
    return [
        f"{len(faces)} reference picture{'s are' if len(faces) > 1 else ' is'} few: with about {USUAL_NUMBER}, of "
        "several expressions and lights, faces become more like the person and less like one picture"
    ]


def read_face(path: Path, side: int) -> np.ndarray:
    """The middle square of a picture at `side` pixels: float32 RGB (side, side, 3) in [0, 1]. Raises BadImage."""
    return square(load(path), side).astype(np.float32) / np.float32(255)


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """The middle square of uint8 pixels, by area where it shrinks and bicubic where it grows."""
    height, width = pixels.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    middle = np.ascontiguousarray(pixels[top : top + edge, left : left + edge])
    if edge == side:
        return middle
    return cv2.resize(middle, (side, side), interpolation=cv2.INTER_AREA if edge > side else cv2.INTER_CUBIC)


def _problem(path: Path, side: int) -> Problem | None:
    where = f"image '{path}'"
    try:
        width, height = measure(path).size
    except BadImage as error:
        return Problem(str(error), where)
    if min(width, height) < side:
        return Problem(
            f"is {width}x{height}, smaller than {side} pixels; remove it, or train with a smaller `resolution`", where
        )
    return None
