"""Whose face in a photo of several people is restored, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.metrics.networks import face_detector, identity
from library.metrics.networks.face_detector import DetectedFace
from restoration.restoring import which_face
from restoration.restoring.alignment import TEMPLATE
from restoration.restoring.which_face import KnownPerson, NoFaceChosen, choose_faces, describe_face
from tests.restoration.conftest import write_faces

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
PLACES = ((40, 20, 60), (150, 40, 90), (270, 30, 70))
"""Left, top and side of three faces: the middle one is the largest."""


def crowd() -> tuple[np.ndarray, list[DetectedFace]]:
    """A photo of three one-coloured faces, and where they are, the largest first."""
    photo = np.full((160, 380, 3), 90, np.uint8)
    faces = []
    for (left, top, side), colour in zip(PLACES, (RED, GREEN, BLUE), strict=True):
        photo[top : top + side, left : left + side] = colour
        landmarks = (TEMPLATE - 256) / 512 * side + (left + side / 2, top + side / 2)
        faces.append(DetectedFace((left, top, side, side), landmarks, 0.9))
    return photo, sorted(faces, key=lambda face: -face.box[2])


def mean_colour(face: np.ndarray) -> np.ndarray:
    return face.reshape(-1, 3).mean(0)


def chosen(which: str, person: KnownPerson | None = None, faces: list[DetectedFace] | None = None) -> list[float]:
    """Left edges of the chosen faces."""
    photo, all_faces = crowd()
    mine = faces or all_faces
    return [mine[index].box[0] for index in choose_faces(photo, mine, which, person).mine]


def known(colour: tuple[int, int, int]) -> KnownPerson:
    return KnownPerson(mean_colour, np.array([colour], float))


def test_the_largest_face_is_the_persons_where_nothing_else_is_known():
    assert chosen("auto") == chosen("largest") == [150]


def test_the_face_most_like_the_references_is_the_persons_however_small_it_is():
    assert chosen("auto", known(RED)) == chosen("identity", known(RED)) == [40]
    assert chosen("auto", known(BLUE)) == [270]
    assert chosen("largest", known(RED)) == [150]


def test_faces_are_chosen_by_numbers_from_the_left():
    assert chosen("1") == [40]
    assert chosen("3,1") == [270, 40]
    assert len(chosen("all")) == 3
    with pytest.raises(NoFaceChosen, match=r"there is no face 4, only face 1 of 3 \(60x60 pixels at 40, 20\)"):
        chosen("4")


def test_nobody_is_restored_as_the_person_in_a_photo_without_them():
    stranger = KnownPerson(mean_colour, np.array([(-1.0, -1.0, -1.0)]))
    photo, faces = crowd()
    with pytest.raises(NoFaceChosen, match="no face is like the person"):
        chosen("auto", stranger)
    with pytest.raises(NoFaceChosen, match="no face is like the person"):
        chosen("identity", stranger, faces[:1])
    assert "somebody else" in choose_faces(photo, faces[:1], "auto", stranger).by


def test_a_face_is_named_by_its_number_from_the_left_and_its_place():
    _, faces = crowd()
    assert describe_face(faces, 0) == "face 2 of 3 (90x90 pixels at 150, 40)"


# --- the command


@pytest.fixture
def crowd_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the photo, whose faces a detector finds and whose identities are colours."""
    photo, faces = crowd()
    (tmp_path / "in").mkdir()
    Image.fromarray(photo).save(tmp_path / "in" / "a.png")

    class Detector:
        def __init__(self, path: Path | None) -> None:
            pass

        def find(self, photo: np.ndarray, smallest: int = 0) -> list[DetectedFace]:
            return [face for face in faces if face.box[2] >= smallest]

    monkeypatch.setattr(face_detector, "FaceDetector", Detector)
    monkeypatch.setattr(which_face, "face_network", lambda path: mean_colour)
    monkeypatch.setattr(identity, "face_network", lambda path: mean_colour)
    (tmp_path / "sface.onnx").write_bytes(b"a network")
    return tmp_path / "in"


def touched(out: Path) -> list[bool]:
    """Which of the three faces, from the left, came out as something else."""
    before, after = crowd()[0].astype(int), np.asarray(Image.open(out / "a.png")).astype(int)
    changed = np.abs(after - before).max(axis=2)
    return [bool(changed[top : top + side, left : left + side].any()) for left, top, side in PLACES]


def test_one_person_of_a_photo_is_restored_and_the_others_are_kept_and_named(restored, crowd_folder, capfd):
    code, out = restored(crowd_folder, restore_mode="faces", min_face=32)
    assert code == 0
    assert touched(out) == [False, True, False]
    err = capfd.readouterr().err
    assert "a.png: face 2 of 3 (90x90 pixels at 150, 40) is restored as the person, by its size" in err
    assert "left as they are: face 1 of 3 (60x60 pixels at 40, 20), face 3 of 3" in err


def test_the_persons_face_is_found_by_their_references(restored, crowd_folder, tmp_path):
    blue = np.zeros((1, 64, 64, 3), np.float32) + np.array([0, 0, 1], np.float32)
    references = write_faces(tmp_path / "refs", blue)
    options = {"restore_mode": "faces", "min_face": 32, "identity_model": tmp_path / "sface.onnx"}
    code, out = restored(crowd_folder, identity_refs=references, **options)
    assert code == 0
    assert touched(out) == [False, False, True]


def test_a_photo_without_the_person_is_written_as_it_was_and_not_counted_as_restored(restored, crowd_folder, capfd):
    code, out = restored(crowd_folder, restore_mode="faces", which_face="4")
    assert code == 1
    assert touched(out) == [False, False, False]
    said = capfd.readouterr()
    assert "restored 0 of 1 pictures" in said.out
    assert "1 written as it was" in said.out
    assert "there is no face 4" in said.err


def test_the_other_people_are_restored_without_the_person_where_asked(restored, crowd_folder, capfd):
    _, blind = restored(crowd_folder, "blind", restore_mode="faces", min_face=32, blind=True)
    _, out = restored(crowd_folder, "both", restore_mode="faces", min_face=32, other_faces="blind")
    assert touched(blind) == touched(out) == [True, True, True]
    assert "restored blind: face 1 of 3" in capfd.readouterr().err
    alone, together = (np.asarray(Image.open(folder / "a.png")).astype(int) for folder in (blind, out))
    differs = np.abs(alone - together).max(axis=(0, 2))
    assert differs[:120].max() == differs[290:].max() == 0  # the others, as the restorer itself makes them
    assert differs[150:240].max() > 0  # the person, as themselves


def test_likeness_without_a_network_or_a_reference_is_refused_before_anything_is_loaded(restored, crowd_folder, capfd):
    assert restored(crowd_folder, restore_mode="faces", which_face="identity")[0] == 2
    err = capfd.readouterr().err
    assert "which_face" in err
    assert "needs `identity_model`" in err
    assert "give `reference_dir` or `identity_refs`" in err
    assert restored(crowd_folder, restore_mode="faces", which_face="0")[0] == 2
    assert "numbers from the left" in capfd.readouterr().err
