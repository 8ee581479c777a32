"""References made of photos: whose face of several is taken, which faces are too small, cut, blurred or another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from library.image_files import BadImage, load
from library.metrics.networks.face_detector import DetectedFace, FaceDetector
from library.metrics.networks.identity import Reader, cut_face
from restoration.measuring.identity import LEAST_LIKENESS
from restoration.measuring.references import other_people, same_photos, thumbnail
from restoration.restoring.alignment import align, cut_out
from restoration.restoring.which_face import (
    KnownPerson,
    NoFaceChosen,
    choose_faces,
    describe_face,
    from_the_left,
)

LEAST_SHARE = 0.5  # of the references' side: a face that would be enlarged more than twice teaches blur
MOST_FACE_MISSING = 0.05  # of a face's oval: the edge of a photo may cut some hair or an ear
MOST_MISSING = 0.2  # of the whole picture, which is grey there: it would be learnt


class Rejected(Exception):
    """Why a photo is no reference."""


@dataclass(frozen=True)
class ReferenceRules:
    """What is asked of a photo. `network` knows people apart; `person` is the one who is meant, where they are known.

    `which_face` says whose face is taken where a photo has several.
    """

    side: int
    min_face: int = 64
    min_sharpness: float = 20.0
    which_face: str = "auto"
    network: Reader | None = None
    person: KnownPerson | None = None
    least_likeness: float = LEAST_LIKENESS


@dataclass
class References:
    """Aligned faces by photo, why the other photos are none, and what is worth knowing of those that are."""

    faces: dict[Path, np.ndarray] = field(default_factory=dict)
    rejected: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_references(sources: Sequence[Path], detector: FaceDetector, rules: ReferenceRules) -> References:
    """The person's aligned face of each photo. Photos of several people wait until those of one have told who it is."""
    result = References()
    directions: dict[Path, np.ndarray] = {}
    thumbnails: dict[Path, np.ndarray] = {}
    crowds: list[tuple[Path, np.ndarray, list[DetectedFace]]] = []

    def attempt(source: Path, take: Callable[[], None]) -> None:
        try:
            take()
        except (Rejected, BadImage, NoFaceChosen, ValueError) as reason:
            result.rejected[source] = str(reason)

    def keep(source: Path, photo: np.ndarray, face: DetectedFace) -> None:
        result.faces[source] = reference_of(photo, face, rules)
        thumbnails[source] = thumbnail(photo)
        if rules.network is not None:
            directions[source] = rules.network(cut_face(photo, face.landmarks))

    def look(source: Path) -> None:
        photo = load(source)
        faces = detector.find(photo, rules.min_face)
        if not faces:
            raise Rejected(f"no face of at least {rules.min_face} pixels")
        if len(faces) > 1:
            crowds.append((source, photo, faces))
        else:
            keep(source, photo, faces[0])

    def choose(source: Path, photo: np.ndarray, faces: list[DetectedFace], person: KnownPerson | None) -> None:
        if rules.which_face in ("auto", "identity") and person is None:
            places = ", ".join(describe_face(faces, index) for index in from_the_left(faces))
            raise Rejected(
                f"{len(faces)} people, and it is not known who is meant: give `which_face`, largest or a number, or "
                f"`identity_model`, or cut the person out; {places}"
            )
        chosen = choose_faces(photo, faces, rules.which_face, person)
        keep(source, photo, faces[chosen.mine[0]])
        result.notes.append(f"{source.name}: {describe_face(faces, chosen.mine[0])} is taken, by {chosen.by}")

    for source in sources:
        attempt(source, lambda source=source: look(source))
    _reject_strangers(result, directions, rules)
    person = rules.person
    if person is None and rules.network is not None and directions:
        person = KnownPerson(rules.network, np.stack(list(directions.values())), rules.least_likeness)
    for source, photo, faces in crowds:
        attempt(source, lambda s=source, p=photo, f=faces: choose(s, p, f, person))
    _reject_repeated(result, thumbnails)
    return result


def reference_of(photo: np.ndarray, face: DetectedFace, rules: ReferenceRules) -> np.ndarray:
    """The aligned face, uint8 (side, side, 3). Raises Rejected."""
    alignment = align(face.landmarks, rules.side)
    if alignment.scale > 1 / LEAST_SHARE:
        raise Rejected(f"the face would have to be enlarged {alignment.scale:.1f} times")
    missing = alignment.missing(photo)
    if missing.face > MOST_FACE_MISSING:
        raise Rejected(f"the photo's edge cuts off {missing.face:.0%} of the face")
    if missing.picture > MOST_MISSING:
        raise Rejected(f"{missing.picture:.0%} of the aligned picture lie beyond the photo's edge")
    aligned = cut_out(photo, alignment)
    if (found := sharpness(aligned)) < rules.min_sharpness:
        raise Rejected(f"blurred: sharpness {found:.1f}, below min_sharpness = {rules.min_sharpness:g}")
    return aligned


def sharpness(pixels: np.ndarray) -> float:
    """Variance of the Laplacian of the grey picture."""
    return float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def _reject_strangers(result: References, directions: dict[Path, np.ndarray], rules: ReferenceRules) -> None:
    """Take away the faces of other people; where nobody is known, the person is who most photos show."""
    sources = list(directions)
    if rules.person is not None:
        cosines = dict(enumerate(rules.person.likeness_of(list(directions.values()))))
        strangers = {number: cosine for number, cosine in cosines.items() if cosine < rules.least_likeness}
    else:
        strangers = other_people(list(directions.values()), rules.least_likeness)
    for number, cosine in strangers.items():
        source = sources[number]
        result.rejected[source] = f"another person than in the others: its likeness to them is {cosine:.2f}"
        del result.faces[source], directions[source]


def _reject_repeated(result: References, thumbnails: dict[Path, np.ndarray]) -> None:
    """Take away what is an earlier reference once more: the same face, cut anew, or the same photo, at another size."""
    sources = sorted(result.faces)
    pictures = ([table[source] for source in sources] for table in (thumbnails, result.faces))
    for again, first in {number: first for some in pictures for number, first in same_photos(some).items()}.items():
        result.rejected[sources[again]] = f"the same photo as {sources[first].name}"
        del result.faces[sources[again]]
