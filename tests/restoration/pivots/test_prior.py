"""Prior pictures: drawn once for each G and size, gone on with after an interruption, other people's kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from library.models.family import Family
from miniworld.tiny import build
from restoration.pivots.prior import draw_prior


@pytest.fixture
def draw(tmp_path: Path):
    """Draws three pictures at a side, and returns which of them were written by this call."""

    def draw(model, side: int = 16) -> list[str]:
        before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.png")}
        draw_prior(model, "a photo of a woman", tmp_path, 3, side)
        return sorted(f.name for f in tmp_path.glob("*.png") if f.stat().st_mtime_ns != before.get(f))

    return draw


ALL = ["0000.png", "0001.png", "0002.png"]


def test_only_missing_pictures_are_drawn_and_they_come_out_the_same(draw, tmp_path):
    model = build(Family.SD2)
    assert draw(model) == ALL
    first = (tmp_path / "0001.png").read_bytes()
    (tmp_path / "0001.png").unlink()
    assert draw(model) == ["0001.png"]
    assert (tmp_path / "0001.png").read_bytes() == first


def test_another_model_or_size_draws_anew_and_pictures_of_one_s_own_stay(draw, tmp_path):
    model = build(Family.SD2)
    Image.new("RGB", (40, 40)).save(tmp_path / "0002.png")
    assert draw(model) == ALL[:2]
    assert draw(model, side=24) == ALL[:2]
    model.unet.conv_in.weight.data += 1.0
    assert draw(model, side=24) == ALL[:2]
    assert draw(model, side=24) == []
