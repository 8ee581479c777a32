from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from library.errors import UserError
from miniworld.picture_rows import LABEL_WIDTH
from miniworld.pretrain_restorer.faces import DAMAGE
from miniworld.prove import dual_pivot, pivots
from miniworld.prove.dual_pivot import ARMS, arm_keys, next_person, table, write_sheet
from miniworld.prove.likeness import Likeness, identity_features
from miniworld.prove.pivot_arms import Lengths
from miniworld.prove.pivots import PivotTrainer
from restoration.options import degradation_of
from restoration.train import read_settings

LENGTHS = Lengths(text_steps=40, model_steps=20)


def result(row: str, person: str, **measured: float) -> dict:
    arm = next((arm for arm in ARMS if arm.row == row), None)
    figures = dict.fromkeys(dual_pivot.MEASURES, 0.5) | measured
    return {"row": row, "person": person, "seed": 0, **dual_pivot.settings_of(arm, LENGTHS), **figures}


def cells(text: str, row: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_mean_error_and_the_paired_difference_to_blind():
    results = [
        result("B1", "id01", psnr=20.0, attributes=0.6),
        result("B1", "id02", psnr=24.0, attributes=0.7),
        result("B4", "id01", psnr=19.5, attributes=0.8),
        result("B4", "id02", psnr=23.9, attributes=0.9),
    ]
    text = table(results, LENGTHS)
    assert cells(text, "B1")[2:4] == ["2", "22.00 ± 2.00"]
    assert cells(text, "B1")[-1] == ""
    assert cells(text, "B4")[-3:-1] == ["-0.30 ± 0.20", "+0.200 ± 0.000"]


def test_arms_of_other_lengths_are_not_in_the_table():
    other = result("B4", "id01") | {"text_steps": 41}
    assert "| B4 |" not in table([other], LENGTHS)


def test_the_heart_of_the_table_comes_first_for_everybody():
    by_row = {arm.row: arm for arm in ARMS}
    keys = list(arm_keys(["id01", "id02"], by_row, None, 1, LENGTHS))
    rows = [(key["row"], key["person"]) for key in keys]
    assert len(set(rows)) == len(rows) == 2 * (len(ARMS) + 2)
    heart = rows[:12]
    assert {row for row, _ in heart} == {"input", "truth", "B1", "B2", "B3", "B4"}
    assert {row.split()[0].rstrip("n") for row, _ in rows[12:]} == {"B1", "B4", "B5", "B6", "B7", "B8", "B9"}
    assert [key["row"] for key in arm_keys(["id01"], by_row, ["B7"], 1, LENGTHS)] == [
        "B7 w 2",
        "B7 w 3",
        "B7 w 4",
        "B7 w 5",
    ]


def test_only_the_lengths_that_matter_tell_an_arm_from_another():
    keys = {key["row"]: key for key in arm_keys(["id01"], {arm.row: arm for arm in ARMS}, None, 1, LENGTHS)}
    assert "text_steps" not in keys["B1"]
    assert "text_steps" not in keys["B5"]
    assert "model_steps" not in keys["B3"]
    assert keys["B4"]["text_steps"] == 40
    assert keys["B4"]["model_steps"] == 20


def test_the_next_persons_encoder_is_another_persons():
    assert [next_person(p, ["id01", "id05"]) for p in ("id01", "id05")] == ["id05", "id01"]


def test_a_stranger_is_refused_by_name():
    with pytest.raises(UserError, match="nobody is not a held-out person"):
        dual_pivot.parse(["--people", "nobody"])


@pytest.fixture(scope="module")
def exam() -> Likeness:
    return Likeness("id03")


def test_the_judge_knows_a_person_and_no_other(exam):
    measured = exam.measure(exam.truth)
    assert measured["attributes"] > 0.9
    assert measured["similarity"] > 0.9
    stranger = Likeness("id02").truth
    assert exam.measure(stranger)["similarity"] < 0.5
    assert exam.measure(stranger)["attributes"] < 0.6


def test_the_damaged_pictures_are_always_the_same_and_far_from_the_truth(exam):
    assert np.array_equal(exam.degraded, Likeness("id03").degraded)
    assert exam.degraded.shape == (10, 128, 128, 3)
    assert 14 < exam.measure((exam.degraded * 255).astype(np.uint8))["psnr"] < 21


def test_faces_in_general_look_like_nobody(exam):
    assert identity_features(exam.truth).shape == (10, 32)
    assert torch.linalg.vector_norm(identity_features(exam.truth), dim=1).min() > 1


def test_a_sheet_shows_what_there_is_row_by_row(tmp_path):
    for row, value in (("input", 10), ("B1", 20), ("truth", 30)):
        pictures = np.full((2, 4, 4, 3), value, np.uint8)
        dual_pivot.save_strip(pictures, dual_pivot.strip_file(tmp_path, "id01", row))
    write_sheet(tmp_path, "id01")
    sheet = np.asarray(dual_pivot.Image.open(tmp_path / "sheet-id01.png"))
    assert sheet.shape == (12, LABEL_WIDTH + 8, 3)
    assert sheet[::4, LABEL_WIDTH, 0].tolist() == [10, 20, 30]


@pytest.fixture
def _few_others(monkeypatch):
    monkeypatch.setattr(pivots, "OTHERS", 4)


@pytest.mark.usefixtures("_few_others")
def test_the_pivots_are_reported_in_words_that_the_trainer_understands(tmp_path):
    studio = PivotTrainer(tmp_path, LENGTHS, 3)
    config = tmp_path / "id03.toml"
    config.write_text(studio._config("text", "id03", "id03-out", {"in_context": "false"}), encoding="utf-8")
    settings = read_settings(["--config_file", str(config)])
    assert not settings["in_context"]
    assert settings["text_max_train_steps"] == 40
    assert degradation_of(settings).for_size(128) == DAMAGE
    assert len(list(settings["reference_dir"].glob("*.png"))) == 10
    assert "man" in settings["prompt"].split()
    assert len(list(settings["reg_data_dir"].glob("*.png"))) == 4


@pytest.mark.usefixtures("_few_others")
def test_a_pivot_is_trained_once(tmp_path, monkeypatch):
    calls = []

    def train(argv: list[str]) -> int:
        calls.append(argv)
        Path(argv[1]).with_suffix(".safetensors").touch()
        return 0

    monkeypatch.setattr("restoration.train.main", train)
    studio = PivotTrainer(tmp_path, LENGTHS, 0)
    assert studio.unet("id03", "in context") == studio.unet("id03", "in context")
    assert len(calls) == 1
    assert studio.unet("id03", "out of context").name == "id03-out-of-context_G.safetensors"
    both = next(arm for arm in ARMS if arm.row == "B8 in context 0.5")
    assert studio.encoder("id03", both).name == "id03-in-context-prompt_E-step00000010.safetensors"
    assert len(calls) == 3


def test_weights_of_another_learning_rate_lie_elsewhere(tmp_path: Path):
    assert PivotTrainer(tmp_path, Lengths(), 0)._folder != PivotTrainer(tmp_path, Lengths(model_rate=1e-3), 0)._folder
