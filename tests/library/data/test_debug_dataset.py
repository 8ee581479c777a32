"""What --debug_dataset says and draws."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from library.data.batches import Batches
from library.data.dataset import build
from library.data.debug_dataset import COLUMNS, SHEET, SIDE, Pixels, show_dataset


def test_a_run_that_only_shows_its_dataset_trains_nothing_and_ends_well(train, tmp_path: Path, capsys):
    assert train(debug_dataset=True) == 0
    said = capsys.readouterr().err
    assert "dataset 1: 64x64, 2 images in a batch" in said
    assert "1_sks: 7 images, 7 in an epoch" in said
    assert "64x64: 7" in said
    assert "4 steps in an epoch; the first 4:" in said
    assert said.count("at 64x64 from 0,0: 'sks, a red circle, a ") == 7
    assert [path.name for path in (tmp_path / "out").iterdir()] == [SHEET]
    assert Image.open(tmp_path / "out" / SHEET).size == (COLUMNS * SIDE, 2 * SIDE)


def test_the_pictures_are_those_that_would_be_trained_and_masks_darken_them(tmp_path: Path, make, caplog):
    make.picture(tmp_path / "in" / "a.png", (128, 128), caption="a cat")
    pixels = np.full((128, 128, 4), 200, np.uint8)
    pixels[:, :64, 3], pixels[:, 64:, 3] = 255, 0
    Image.fromarray(pixels, "RGBA").save(tmp_path / "in" / "b.png")
    plan = [make.dataset(make.subset(tmp_path / "in", alpha_mask=True), validation_split=0.0, batch_size=1)]
    dataset = build(plan)
    ((one,), (other,)) = Batches(dataset, Pixels(), None, seed=4, workers=0).epoch(1)
    caplog.set_level(logging.INFO)
    show_dataset(dataset, tmp_path, seed=4)
    lines = caplog.messages
    shown = np.asarray(Image.open(tmp_path / SHEET))
    for place, batch in enumerate((one, other)):
        left = shown[:128, place * SIDE : place * SIDE + 128]
        if batch.files[0].endswith("a.png"):
            assert np.array_equal(left, np.asarray(Image.open(tmp_path / "in" / "a.png")))
        else:
            assert set(left[:, :64].flatten()) == {200}
            assert set(left[:, 64:].flatten()) == {40}  # a fifth
    assert any("has no .txt file" in line for line in lines)
