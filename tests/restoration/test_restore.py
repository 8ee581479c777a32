"""Restoring folders: what survives, what is skipped, what swap, edit and blind do, faces in larger photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.metrics.networks.face_detector import found_face
from restoration.degrade import main as degrade
from restoration.restoring.alignment import TEMPLATE, align, cut_out, paste_back
from restoration.system.system import System
from tests.restoration.conftest import one_picture


def messy_folder(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 255, (64, 64, 4), dtype=np.uint8), "RGBA").save(folder / "rgba.png")
    Image.fromarray(rng.integers(0, 255, (25, 38, 3), dtype=np.uint8)).save(folder / "small.png")
    Image.fromarray(rng.integers(0, 255, (64, 88, 3), dtype=np.uint8)).save(folder / "wide.jpg")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    return folder


def test_a_folder_with_anything_in_it_is_restored_as_far_as_it_can_be_read(restored, tmp_path, capfd):
    code, out = restored(messy_folder(tmp_path / "in"), batch_size=2)
    sizes = {path.name: Image.open(path).size for path in out.iterdir()}
    assert sizes == {"grey.png": (64, 64), "rgba.png": (64, 64), "small.png": (38, 25), "wide.png": (88, 64)}
    assert code != 0
    err = capfd.readouterr().err
    assert "broken.png" in err
    assert "grey.png: it is black and white" in err
    assert "wide.jpg: it is black" not in err
    grey = np.asarray(Image.open(out / "grey.png")).astype(int)
    assert np.abs(grey - grey.mean(-1, keepdims=True)).max() <= 1
    alpha = Image.open(tmp_path / "in" / "rgba.png").getchannel("A")
    assert Image.open(out / "rgba.png").getchannel("A").tobytes() == alpha.tobytes()
    assert Image.open(out / "wide.png").mode == "RGB"


def test_a_second_call_restores_only_what_is_missing(restored, tmp_path):
    source = messy_folder(tmp_path / "in")
    (source / "broken.png").unlink()
    _, out = restored(source)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "grey.png").unlink()
    assert restored(source, skip_existing=True)[0] == 0
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert after.keys() == before.keys()
    assert sorted(name for name in before if after[name] == before[name]) == ["rgba.png", "small.png", "wide.png"]


def test_pictures_of_another_person_are_not_mixed_with_this_one_s(restored, tmp_path, faces, capfd):
    source = one_picture(tmp_path / "in", faces[0])
    assert restored(source, blind=True)[0] == 0
    assert restored(source, skip_existing=True)[0] != 0
    assert "a.png' was made by blind restoring" in capfd.readouterr().err
    assert restored(source)[0] == 0  # without skip_existing it is replaced
    assert restored(source, skip_existing=True)[0] == 0


def test_a_strip_is_refused_before_it_becomes_a_picture_of_any_size(restored, tmp_path, capfd):
    folder = one_picture(tmp_path / "in", np.zeros((64, 64, 3), np.float32))
    Image.new("RGB", (900, 10)).save(folder / "strip.png")
    code, out = restored(folder)
    assert code != 0
    assert [path.name for path in out.iterdir()] == ["a.png"]
    assert "900x10 pixels are more than 8 times as long as wide" in capfd.readouterr().err


def pixels(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "a.png"), np.int16)


def test_blind_swap_and_edit_give_three_other_pictures_than_restoring(restored, tmp_path, faces):
    source = one_picture(tmp_path / "in", faces[0])
    plain = pixels(restored(source, "plain")[1])
    for name, options in {
        "blind": {"blind": True},
        "swap": {"mode": "swap"},
        "edit": {"mode": "edit", "edit": "smiling"},
        "g only": {"encoder_weights": "none"},
    }.items():
        code, out = restored(source, name, **options)
        if name == "g only":
            assert code == 1  # a file that is asked for must exist
            continue
        assert code == 0
        assert np.abs(pixels(out) - plain).max() > 0, name


def test_edit_changes_only_what_g_reads_in_its_conditional_branch(restored, tmp_path, faces, monkeypatch):
    read: list[tuple[torch.Tensor, ...]] = []
    given: list[torch.Tensor] = []
    predict, controls = System.predict, System.controls

    def spy_predict(self, noisy, timesteps, text, *rest):
        read.append((self.text(["a photo of a sks woman, smiling"])[0], self.null[0], text[0].cpu()))
        return predict(self, noisy, timesteps, text, *rest)

    def spy_controls(self, *arguments):
        encoder = self.encoder.forward
        self.encoder.forward = lambda n, t, hidden, c, **k: given.append(hidden) or encoder(n, t, hidden, c, **k)
        try:
            return controls(self, *arguments)
        finally:
            self.encoder.forward = encoder

    monkeypatch.setattr(System, "predict", spy_predict)
    monkeypatch.setattr(System, "controls", spy_controls)
    assert restored(one_picture(tmp_path / "in", faces[0]), mode="edit", edit="smiling")[0] == 0
    edited, null, first = read[0]
    assert torch.equal(first, null)
    assert torch.equal(read[1][2], edited)
    assert all(torch.equal(hidden[0].cpu(), null) for hidden in given)
    assert len(given) == 2


def test_without_a_person_one_sentence_says_what_to_do(restored, tmp_path, faces, capfd):
    code, _ = restored(one_picture(tmp_path / "in", faces[0]), output_name="nobody")
    assert code == 1
    assert "--blind" in capfd.readouterr().err


def test_a_folder_is_damaged_the_same_way_each_time(tmp_path, faces):
    source = one_picture(tmp_path / "in", faces[0])
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert degrade(["--input", str(source), "--output", str(tmp_path / name), "--seed", str(seed)]) == 0
    first, again, other = (pixels(tmp_path / name) for name in "abc")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, pixels(source))


# --- faces in larger photos


def scene() -> np.ndarray:
    y, x = np.mgrid[0:900, 0:1200]
    waves = np.stack([np.sin(x / 37), np.cos(y / 29), np.sin((x + y) / 53)], -1)
    return (127 + 80 * waves).astype(np.uint8)


def turned_landmarks(scale: float, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE - 256) @ turn.T * scale + (600, 450)


def test_alignment_finds_scale_and_turn_of_a_face_and_paste_back_returns_it():
    photo, landmarks = scene(), turned_landmarks(0.8, 0.3)
    alignment = align(landmarks)
    assert alignment.scale == pytest.approx(1.25, abs=1e-3)
    back = paste_back(photo, cut_out(photo, alignment), alignment)
    error = np.mean((back.astype(float) - photo) ** 2)
    assert 10 * np.log10(255**2 / error) >= 45


def test_nothing_outside_the_pasted_face_changes():
    photo = scene()
    alignment = align(turned_landmarks(0.8, 0.3))
    black = np.zeros((512, 512, 3), np.uint8)
    changed = (paste_back(photo, black, alignment) != photo).any(axis=-1)
    y, x = np.nonzero(changed)
    inside = np.c_[x, y, np.ones(len(x))] @ alignment.matrix.T
    assert inside.min() > -2
    assert inside.max() < 513
    assert paste_back(photo, black, alignment)[450, 600].max() == 0


def test_yunets_rows_are_read_as_box_landmarks_and_confidence():
    row = np.array([10, 20, 30, 40, *range(10), 0.9], np.float32)
    face = found_face(row, 0.5)
    assert face.box == (20, 40, 60, 80)
    assert face.landmarks[0].tolist() == [0, 2]
    assert face.confidence == pytest.approx(0.9)


def test_faces_mode_without_a_detector_says_where_to_get_one(restored, tmp_path, faces, capfd):
    assert restored(one_picture(tmp_path / "in", faces[0]), restore_mode="faces")[0] == 1
    assert "face_detection_yunet" in capfd.readouterr().err


def test_what_a_photo_s_edge_cuts_off_a_face_is_grey_and_counted():
    photo = np.full((400, 400, 3), 200, np.uint8)
    whole = align((TEMPLATE - 256) * 0.5 + (200, 200))
    assert whole.missing(photo).face == whole.missing(photo).picture == 0
    half = align((TEMPLATE - 256) * 0.5 + (0, 200))  # its middle lies on the left edge
    assert half.missing(photo).face == pytest.approx(0.5, abs=0.005)
    assert half.missing(photo).picture == pytest.approx(0.5, abs=0.005)
    face = cut_out(photo, half)
    assert (face[:, :250] == 128).all()
    assert (face[:, 260:] == 200).all()


def test_a_grey_edge_is_never_pasted_into_the_photo():
    photo = np.full((400, 400, 3), 200, np.uint8)
    half = align((TEMPLATE - 256) * 0.5 + (0, 200))
    assert (np.abs(paste_back(photo, cut_out(photo, half), half).astype(int) - 200)[:, 3:] == 0).all()
