"""What is measured, what is said where it cannot be, and the one command from references to a sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.metrics.networks.identity import ARCFACE
from restoration.evaluate import main as evaluate
from restoration.measuring import measures
from restoration.measuring.identity import for_arcface
from restoration.measuring.measures import Tools, measure, paired
from restoration.personalise import main as personalise
from restoration.restoring.reference_photos import sharpness
from tests.restoration.conftest import write_faces


def test_a_folder_is_measured_and_what_is_missing_is_reported_with_the_line_that_gives_it(tmp_path, faces, capfd):
    gt = write_faces(tmp_path / "gt", faces[:2], 128)
    out = write_faces(tmp_path / "out", np.clip(faces[:2] + np.float32(0.02), 0, 1), 128)
    assert evaluate(["--restored", str(out), "--reference", str(gt)]) == 0
    said = capfd.readouterr().out
    assert "LPIPS is not measured: give --lpips_weights (https://download.pytorch.org/models/alexnet" in said
    assert "identity to the original is not measured: give --identity_model" in said
    facts = json.loads((tmp_path / "out_metrics.json").read_text(encoding="utf-8"))["restored"]
    assert 30 < facts["means"]["PSNR"] < 40
    assert facts["pictures"].keys() == {"00", "01"}
    assert Image.open(tmp_path / "out_sheet.png").width > 2 * 192


def test_identity_is_to_the_original_and_likeness_to_the_mean_of_all_references(tmp_path, faces):
    pairs = paired(*(write_faces(tmp_path / name, faces[:2], 128) for name in ("out", "gt")))
    # Two pictures, each before its original; then the two references, and the pictures again.
    seen = iter([(1.0, 0.0), (3.0, 4.0), (0.0, 2.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
    result = measure(pairs, list(faces[:2]), Tools(embed=lambda _: np.array(next(seen))))
    assert [row["identity to the original"] for row in result.each.values()] == pytest.approx([0.6, 1.0])
    assert [row["likeness to the references"] for row in result.each.values()] == pytest.approx([0.5**0.5, 0.0])


def test_identity_needs_no_references_and_likeness_says_that_it_does(tmp_path, faces):
    pairs = paired(*(write_faces(tmp_path / name, faces[:1], 64) for name in ("out", "gt")))
    result = measure(pairs, [], Tools(embed=lambda face: face.reshape(-1).astype(float)))
    assert result.means["identity to the original"] == pytest.approx(1.0)
    assert result.missing["likeness to the references"] == "give --identity_refs, pictures of the person"


def test_fid_is_measured_with_the_inception_of_a_file(tmp_path, faces, monkeypatch):
    class Mean(torch.nn.Module):
        def forward(self, pictures: torch.Tensor, layer: int) -> torch.Tensor:
            return pictures.mean(dim=(2, 3))

    monkeypatch.setattr(measures, "load_inception", lambda path: Mean())
    (tmp_path / "inception.pth").write_bytes(b"weights")
    pairs = paired(*(write_faces(tmp_path / name, faces[:3], 64) for name in ("out", "gt")))
    assert measure(pairs, [], Tools(fid_model=tmp_path / "inception.pth")).means["FID"] == pytest.approx(0, abs=1e-6)


def test_a_face_is_cut_for_arcface_where_its_landmarks_belong():
    from restoration.restoring.alignment import TEMPLATE

    face = np.zeros((512, 512, 3), np.uint8)
    x, y = TEMPLATE[0].round().astype(int)
    face[y - 6 : y + 7, x - 6 : x + 7] = 255
    small = for_arcface(face)[..., 0].astype(float)
    rows, columns = np.mgrid[0:112, 0:112]
    centre = (small * columns).sum() / small.sum(), (small * rows).sum() / small.sum()
    assert centre == pytest.approx(ARCFACE[0], abs=1.5)


def test_a_blurred_face_is_less_sharp(faces):
    import cv2

    face = (faces[0] * 255).astype(np.uint8)
    assert sharpness(cv2.GaussianBlur(face, (0, 0), 3)) < sharpness(face) / 5


def test_one_command_goes_from_references_to_table_and_sheet(tmp_path: Path, faces, restorer_folder: Path, capfd):
    from restoration.degrade import main as degrade

    folders = {"refs": faces[:3], "gt": faces[3:5], "others": faces[10:13]}
    for name, pictures in folders.items():
        write_faces(tmp_path / name, pictures)
    assert degrade(["--input", str(tmp_path / "gt"), "--output", str(tmp_path / "lq")]) == 0
    (tmp_path / "ana.toml").write_text(
        f"""
        pretrained_model_name_or_path = '{restorer_folder}'
        [identity]
        prompt = "a photo of a sks woman"
        reference_dir = '{tmp_path / "refs"}'
        reg_data_dir = '{tmp_path / "others"}'
        [text_pivot]
        max_train_steps = 1
        [model_pivot]
        max_train_steps = 1
        [output]
        output_dir = '{tmp_path / "out"}'
        output_name = "ana"
        input = '{tmp_path / "lq"}'
        output = '{tmp_path / "restored"}'
        reference = '{tmp_path / "gt"}'
        steps = 2
        """,
        encoding="utf-8",
    )
    assert personalise(["--config_file", str(tmp_path / "ana.toml")]) == 0
    assert sorted(path.name for path in (tmp_path / "restored").iterdir()) == ["00.png", "01.png"]
    table = (tmp_path / "restored_table.md").read_text(encoding="utf-8")
    assert [line.split(" |")[0] for line in table.splitlines()[2:5]] == ["| degraded", "| blind", "| restored"]
    assert (tmp_path / "restored_sheet.png").is_file()
    capfd.readouterr()
    again = ["--config_file", str(tmp_path / "ana.toml"), "--resume", "latest", "--skip_existing"]
    assert personalise(again) == 0
    assert "is finished already" in capfd.readouterr().err
