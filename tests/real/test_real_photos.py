"""Restoration on real photographs with real networks: faces found and aligned, people told apart, damage, tones."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from library.metrics.distances import kernel_distance, unit
from library.metrics.networks.face_detector import DetectedFace
from library.metrics.networks.identity import cut_face
from restoration.damage.degradation import PRESETS, degrade, generator
from restoration.image_folders import to_tensor
from restoration.restoring.alignment import TEMPLATE, align, cut_out, paste_back
from restoration.restoring.colour import has_one_tone
from restoration.restoring.reference_photos import ReferenceRules, choose_references
from restoration.restoring.which_face import KnownPerson, choose_faces
from tests.real import packages
from tests.real.networks import SAME_PERSON, DlibNetwork, MobileNet, Mtcnn

pytestmark = pytest.mark.real
SAME_MAN, OTHER_MAN = ("obama", "obama2", "obama3"), "biden"
DLIB = 0.5
"""For dlib's network around the mean: cosines of one man are 0.69 and more, those to the other 0.36 at most."""
CUT = ("obama_partial_face", "obama_partial_face2")


@dataclass(frozen=True)
class Photo:
    pixels: np.ndarray
    faces: list[DetectedFace]


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn()


@pytest.fixture(scope="module")
def people(detector: Mtcnn) -> dict[str, Photo]:
    return {name: Photo(pixels, detector.find(pixels)) for name, pixels in packages.people().items()}


@pytest.fixture(scope="module")
def groups(detector: Mtcnn) -> dict[str, Photo]:
    return {name: Photo(pixels, detector.find(pixels)) for name, pixels in packages.groups().items()}


@pytest.fixture(scope="module")
def aligned(people: dict[str, Photo], groups: dict[str, Photo]) -> list[np.ndarray]:
    """All whole faces of at least 60 pixels, aligned to 512."""
    faces = []
    for photo in (*people.values(), *groups.values()):
        for face in photo.faces:
            alignment = align(face.landmarks)
            if face.box[2] >= 60 and alignment.missing(photo.pixels).face < 0.05:
                faces.append(cut_out(photo.pixels, alignment))
    return faces


@pytest.fixture(scope="module")
def network() -> DlibNetwork:
    return DlibNetwork()


@pytest.fixture(scope="module")
def around_all(people, groups, network):
    """dlib's network around the mean of all these faces: without that all its cosines are above 0.8."""
    every = [
        network(cut_face(photo.pixels, face.landmarks))
        for photo in (*people.values(), *groups.values())
        for face in photo.faces
    ]
    middle = np.mean(every, axis=0)
    return lambda face: network(face) - middle


def largest(photo: Photo, network) -> np.ndarray:
    return network(cut_face(photo.pixels, photo.faces[0].landmarks))


def test_everybody_in_front_is_found(people, groups):
    assert {name: len(people[name].faces) >= 1 for name in (*SAME_MAN, OTHER_MAN)} == dict.fromkeys(
        (*SAME_MAN, OTHER_MAN), True
    )
    found = sorted(len(photo.faces) for photo in groups.values())
    assert found[0] >= 1  # MTCNN finds one face of three in one of these photographs
    assert found[1] >= 3


def test_every_whole_face_is_aligned_to_the_places_of_the_template(aligned, detector):
    assert len(aligned) >= 15
    off = []
    for face in aligned:
        if again := detector.find(face):
            off.append(np.linalg.norm(again[0].landmarks - TEMPLATE, axis=1).mean())
    assert len(off) >= 0.8 * len(aligned)  # MTCNN itself does not find every enlarged face again
    assert np.median(off) < 12  # of 512 pixels
    assert max(off) < 45  # a face in three quarter view has its nose and mouth aside


def test_aligned_faces_go_back_to_where_they_were(people):
    for name in (*SAME_MAN, OTHER_MAN):
        photo = people[name]
        alignment = align(photo.faces[0].landmarks)
        back = paste_back(photo.pixels, cut_out(photo.pixels, alignment), alignment)
        assert cv2.PSNR(back, photo.pixels) > 35


def test_one_man_is_nearer_to_himself_than_to_anybody_else(people, groups, network):
    own = [largest(people[name], network) for name in SAME_MAN]
    others = [largest(people[OTHER_MAN], network)] + [
        network(cut_face(photo.pixels, face.landmarks))
        for photo in groups.values()
        for face in photo.faces
        if face.box[2] >= 40
    ]
    same = [np.linalg.norm(own[i] - own[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    different = [np.linalg.norm(a - b) for a in own for b in others]
    assert max(same) < SAME_PERSON < min(different)


@pytest.mark.parametrize("order", [("obama2", "biden"), ("biden", "obama2")])
def test_in_a_photo_of_two_men_the_one_of_the_references_is_chosen(people, detector, around_all, order):
    sides = [cv2.resize(people[name].pixels, (500, 900), interpolation=cv2.INTER_AREA) for name in order]
    photo = np.concatenate(sides, axis=1)
    faces = [face for face in detector.find(photo) if face.box[2] >= 50]
    known = {
        "obama2": KnownPerson(
            around_all, np.stack([largest(people[name], around_all) for name in ("obama", "obama3")]), DLIB
        ),
    }
    chosen = choose_faces(photo, faces, "auto", known["obama2"])
    assert len(chosen.mine) == 1
    left = faces[chosen.mine[0]].box[0]
    assert (left < 500) == (order[0] == "obama2")


def test_the_cut_faces_the_other_man_and_the_copy_are_no_references(people, detector, around_all, tmp_path):
    for name in (*SAME_MAN, *CUT, OTHER_MAN):
        Image.fromarray(people[name].pixels).save(tmp_path / f"{name}.png")
    copy = io.BytesIO()
    small = cv2.resize(people["obama"].pixels, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    Image.fromarray(small).save(copy, "JPEG", quality=70)
    (tmp_path / "obama_again.jpg").write_bytes(copy.getvalue())
    rules = ReferenceRules(256, min_face=40, min_sharpness=0, network=around_all, least_likeness=DLIB)
    chosen = choose_references(sorted(tmp_path.iterdir()), detector, rules)  # pyright: ignore[reportArgumentType]
    reasons = {path.stem: reason for path, reason in chosen.rejected.items()}
    assert {Path(path).stem for path in chosen.faces} == set(SAME_MAN)
    assert "another person" in reasons["biden"]
    assert "the same photo as obama.png" in reasons["obama_again"]
    for name in CUT:
        assert "edge" in reasons[name] or "no face" in reasons[name]


def test_damage_leaves_of_real_faces_what_it_is_reported_to_leave(aligned):
    psnr = []
    for number, face in enumerate(aligned):
        picture = face.astype(np.float32) / 255
        damaged = degrade(picture, PRESETS["face"], generator(0, 0, str(number)))
        psnr.append(-10 * np.log10(np.mean((damaged - picture) ** 2)))
    assert 23 < np.mean(psnr) < 28


def test_colours_are_distinguished_from_black_and_white_and_sepia(aligned, people, groups):
    pictures = [*aligned, *(photo.pixels for photo in (*people.values(), *groups.values()))]
    rng = np.random.default_rng(0)
    for picture in pictures:
        grey = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        scan = np.clip(grey * (0.97, 0.87, 0.7) + rng.normal(0, 6, grey.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(scan).save(file, "JPEG", quality=60)
        assert not has_one_tone(to_tensor(picture))
        assert has_one_tone(to_tensor(grey))
        assert has_one_tone(to_tensor(scan))
        assert has_one_tone(to_tensor(packages.decode(file.getvalue())))


def test_kid_and_likeness_see_another_class_of_pictures(aligned):
    seer = MobileNet()
    faces = seer(aligned)
    textures = packages.skimage_pictures("brick", "grass", "gravel", "coins")
    squares = [
        pixels[y : y + 128, x : x + 128]
        for pixels in textures.values()
        for y in range(0, pixels.shape[0] - 127, 128)
        for x in range(0, pixels.shape[1] - 127, 128)
    ]
    others = seer(squares)
    within, between = kernel_distance(faces[::2], faces[1::2]), kernel_distance(faces, others)
    assert between > 20 * abs(within)
    own = unit(faces[::2]) @ unit(faces[1::2]).mean(0)
    assert own.min() > (unit(others) @ unit(faces[1::2]).mean(0)).max()
