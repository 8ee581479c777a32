"""Whose face is the person's in a photo of several people: the most like them, the largest, or those that are numbered.

Faces are numbered from the left, in what is printed and in `which_face`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from library.errors import UserError
from library.image_files import discover, load
from library.metrics.distances import likeness_to_mean
from library.metrics.networks.face_detector import DetectedFace
from library.metrics.networks.identity import Reader, cut_face, face_network
from restoration.measuring.identity import LEAST_LIKENESS, for_arcface


@dataclass(frozen=True)
class KnownPerson:
    """What a face network makes of the person's references: `directions` (references, dimensions)."""

    network: Reader
    directions: np.ndarray
    least_likeness: float = LEAST_LIKENESS
    """Cosine below which a face is not taken for theirs; it depends on the network."""

    def likeness(self, photo: np.ndarray, faces: Sequence[DetectedFace]) -> list[float]:
        """Each face's cosine with the mean direction of the references."""
        return self.likeness_of([self.network(cut_face(photo, face.landmarks)) for face in faces])

    def likeness_of(self, directions: Sequence[np.ndarray]) -> list[float]:
        """The same of what the network has made of faces already."""
        return likeness_to_mean(directions, self.directions).tolist() if len(directions) else []


def know_person(identity_model: Path | None, folder: Path | None, least_likeness: float) -> KnownPerson | None:
    """The person by `identity_model` and a folder of their references; None where one of them is not given."""
    if identity_model is None or folder is None:
        return None
    references = [load(path) for path in discover(folder)] if folder.is_dir() else []
    if not references:
        raise UserError(
            f"'{folder}' holds no pictures of the person; `identity_refs` is the folder of their references"
        )
    network = face_network(identity_model)
    directions = np.stack([network(for_arcface(picture)) for picture in references])
    return KnownPerson(network, directions, least_likeness)


@dataclass(frozen=True)
class ChosenFaces:
    """Indices of the person's faces, and by what they were chosen."""

    mine: tuple[int, ...]
    by: str = ""


class NoFaceChosen(ValueError):
    """Why no face of a photo is taken for the person's."""


def choose_faces(
    photo: np.ndarray, faces: Sequence[DetectedFace], which: str, person: KnownPerson | None = None
) -> ChosenFaces:
    """The faces that `which_face` means. Raises NoFaceChosen where it means none."""
    if which == "all":
        return ChosenFaces(tuple(range(len(faces))))
    if which[0].isdigit():
        return ChosenFaces(tuple(_numbered(faces, which)), "its number")
    if which == "largest" or (which == "auto" and person is None):
        sizes = [face.box[2] * face.box[3] for face in faces]
        return ChosenFaces((int(np.argmax(sizes)),), "its size" if len(faces) > 1 else "")
    if person is None:
        raise ValueError("a face is chosen by likeness, and nobody is known")
    cosines = person.likeness(photo, faces)
    best = int(np.argmax(cosines))
    by = f"likeness {cosines[best]:.2f}"
    if cosines[best] >= person.least_likeness:
        return ChosenFaces((best,), by)
    if which == "auto" and len(faces) == 1:  # who gives a photo of one face means it
        return ChosenFaces((best,), f"{by}: this may be somebody else")
    named = ", ".join(f"{describe_face(faces, index)}: {cosine:.2f}" for index, cosine in sorted(enumerate(cosines)))
    raise NoFaceChosen(f"no face is like the person ({named}); choose with `which_face`: largest, or a number")


def describe_face(faces: Sequence[DetectedFace], index: int) -> str:
    """Number and place of a face: "face 2 of 3 (120x150 pixels at 340, 80)"."""
    left, top, width, height = faces[index].box
    number = from_the_left(faces).index(index) + 1
    return f"face {number} of {len(faces)} ({width:.0f}x{height:.0f} pixels at {left:.0f}, {top:.0f})"


def from_the_left(faces: Sequence[DetectedFace]) -> list[int]:
    """Indices of the faces in the order of their middles."""
    return sorted(range(len(faces)), key=lambda index: faces[index].box[0] + faces[index].box[2] / 2)


def _numbered(faces: Sequence[DetectedFace], which: str) -> list[int]:
    order = from_the_left(faces)
    numbers = [int(word) for word in which.split(",")]
    if beyond := [number for number in numbers if number > len(faces)]:
        places = ", ".join(describe_face(faces, index) for index in order)
        raise NoFaceChosen(f"`which_face = {which}`: there is no face {beyond[0]}, only {places}")
    return [order[number - 1] for number in numbers]
