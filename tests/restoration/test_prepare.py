"""References made of photos: what is taken, and what is rejected with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.metrics.networks import face_detector, identity
from library.metrics.networks.face_detector import DetectedFace
from restoration.prepare import main
from restoration.restoring.alignment import TEMPLATE


def found_at(x: float, y: float, share: float) -> DetectedFace:
    """A face whose middle is there, `share` of the template's size."""
    side = 300 * share
    return DetectedFace((x - side / 2, y - side / 2, side, side), (TEMPLATE - 256) * share + (x, y), 0.9)


def textured(seed: int, size: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)


def middle_colour(face: np.ndarray) -> np.ndarray:
    """A face network that knows people by the colour of their noses, against grey."""
    return face[50:80, 45:67].reshape(-1, 3).mean(0) - 128.0


def portrait(seed: int, *people: tuple[float, tuple[int, int, int]]) -> tuple[np.ndarray, list[DetectedFace]]:
    """A photo of people side by side: how large each is, and the colour of the face."""
    photo, faces = textured(seed), []
    for number, (share, colour) in enumerate(people):
        x = 400 * (number + 0.5) / len(people)
        half = int(60 * share * 2)
        photo[200 - half : 200 + half, int(x) - half : int(x) + half] = colour
        faces.append(found_at(x, 200, share))
    return photo, sorted(faces, key=lambda face: -face.box[2])


RED, BLUE, PINK = (250, 60, 60), (60, 60, 250), (250, 128, 60)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple[list[str], str]]:
    """`restoration/prepare.py` on photos by name, each its pixels and faces; the references, and what was printed."""

    def run(photos: dict[str, tuple[np.ndarray, list[DetectedFace]]], **options: object) -> tuple[list[str], str]:
        (tmp_path / "in").mkdir()
        for name, (pixels, _) in photos.items():
            Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")

        class Detector:
            def __init__(self, path: Path | None) -> None:
                pass

            def find(self, photo: np.ndarray, smallest: int = 0) -> list[DetectedFace]:
                mine = next(faces for pixels, faces in photos.values() if np.array_equal(pixels, photo))
                return [face for face in mine if face.box[2] >= smallest]

        monkeypatch.setattr(face_detector, "FaceDetector", Detector)
        monkeypatch.setattr(identity, "face_network", lambda path: middle_colour)
        (tmp_path / "sface.onnx").write_bytes(b"a network")
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        main(["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--resolution", "128", *words])
        return sorted(path.stem for path in (tmp_path / "out").glob("*")), capsys.readouterr().out

    return run


def test_a_face_that_the_photo_cuts_is_no_reference(prepared):
    names, said = prepared(
        {"half": (textured(1), [found_at(0, 200, 0.5)]), "whole": (textured(2), [found_at(200, 200, 0.5)])}
    )
    assert names == ["whole"]
    assert "rejected half.png: the photo's edge cuts off 50% of the face" in said


def test_the_same_photo_twice_is_one_reference_whatever_was_done_to_it(prepared):
    photo, faces = textured(1), [found_at(200, 200, 0.5)]
    again = np.clip(photo.astype(int) // 2 + 60, 0, 255).astype(np.uint8)
    names, said = prepared({"a": (photo, faces), "b": (again, faces), "c": (textured(2), faces)})
    assert names == ["a", "c"]
    assert "rejected b.png: the same photo as a.png" in said


def test_a_resized_copy_in_which_the_face_is_found_a_little_aside_is_the_same_photo(prepared):
    photo = Image.fromarray(textured(1, 16)).resize((400, 400), Image.Resampling.NEAREST)
    large, small = np.asarray(photo), np.asarray(photo.reduce(2))
    found = {"a": (large, [found_at(200, 200, 0.5)]), "b": (small, [found_at(105, 97, 0.23)])}
    names, said = prepared(found)
    assert names == ["a"]
    assert "rejected b.png: the same photo as a.png" in said


def test_what_likeness_is_enough_depends_on_the_network(prepared, tmp_path):
    photos = {name: portrait(seed, (0.5, RED)) for seed, name in enumerate("abd")} | {"c": portrait(9, (0.5, PINK))}
    asked = {"identity_model": tmp_path / "sface.onnx"}
    assert prepared(photos, **asked)[0] == ["a", "b", "c", "d"]
    (tmp_path / "in").rename(tmp_path / "before")
    _, said = prepared(photos, **asked, least_likeness=0.99, output=tmp_path / "out2")
    assert "rejected c.png: another person than in the others" in said


def test_another_person_among_the_photos_is_recognised_by_a_face_network(prepared, tmp_path):
    photos = {name: portrait(seed, (0.5, RED)) for seed, name in enumerate("abd")}
    names, said = prepared(photos | {"c": portrait(9, (0.5, BLUE))}, identity_model=tmp_path / "sface.onnx")
    assert names == ["a", "b", "d"]
    assert "rejected c.png: another person than in the others: its likeness to them is -" in said


def test_in_a_photo_of_several_people_somebody_must_say_who_is_meant(prepared):
    names, said = prepared({"a": portrait(1, (0.5, RED)), "b": portrait(2, (0.4, RED), (0.5, BLUE))})
    assert names == ["a"]
    assert "rejected b.png: 2 people, and it is not known who is meant: give `which_face`" in said
    assert "face 1 of 2 (120x120 pixels at 40, 140), face 2 of 2" in said


def test_the_person_is_taken_from_a_photo_of_several_by_a_number_or_by_likeness(prepared, tmp_path):
    photos = {"a": portrait(1, (0.5, RED)), "b": portrait(2, (0.4, RED), (0.5, BLUE))}
    names, said = prepared(photos, identity_model=tmp_path / "sface.onnx")
    assert names == ["a", "b"]
    assert "b.png: face 1 of 2 (120x120 pixels at 40, 140) is taken, by likeness" in said
    red = np.asarray(Image.open(tmp_path / "out" / "b.png"))[64, 64]
    assert tuple(red) == RED


def test_everybody_is_nobodys_reference(prepared, tmp_path, capsys):
    assert prepared({"a": portrait(1, (0.5, RED))}, which_face="all")[0] == []
