"""Whom and what a folder of references holds beside the person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restoration.measuring import references
from restoration.measuring.references import describe_references, other_people, same_photos
from tests.restoration.conftest import write_faces


def test_a_photo_is_known_again_by_what_it_shows_and_not_by_its_bytes(faces):
    pictures = [(face * 255).astype(np.uint8) for face in faces[:4]]
    darker = (pictures[1] * 0.7 + 20).astype(np.uint8)
    assert same_photos([*pictures, darker, pictures[0][::2, ::2]]) == {4: 1, 5: 0}
    assert same_photos([]) == {}


def test_one_of_another_person_is_distinguished_from_most_and_nobody_where_nobody_is_most():
    ana, ben = np.array([1.0, 0.1]), np.array([-0.2, 1.0])
    assert other_people([ana, ben, ana, ana]) == {1: pytest.approx(-0.097, abs=1e-3)}
    assert other_people([ana, ben]) == {}
    assert other_people([ana, ana, ben, ben, np.array([-1.0, -0.5])]) == {}


def test_training_names_the_references_that_should_not_be_there(tmp_path, faces, monkeypatch):
    folder = write_faces(tmp_path / "ana", faces[[0, 1, 2, 0, 10]])
    paths = sorted(folder.iterdir())
    seen = iter([(1.0, 0.0)] * 4 + [(0.0, 1.0)])
    monkeypatch.setattr(references, "face_network", lambda path: lambda face: np.array(next(seen)))
    lines = describe_references(paths, Path("sface.onnx"))
    assert lines[0].startswith("the references '00.png' and '03.png' are the same photo")
    assert lines[1].startswith(
        "the reference '04.png' seems to show another person: its likeness to the others is 0.00"
    )
    assert len(lines) == 2
    assert len(describe_references(paths, None)) == 1
