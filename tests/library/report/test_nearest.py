"""Which training picture a sample is nearest to."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from library.report.nearest import nearest
from tests.library.report.a_run import picture


def test_the_same_picture_is_found_lighter_smaller_and_mirrored(tmp_path: Path):
    pictures = [picture(tmp_path / f"{i}.png", i, side=96) for i in range(6)]
    with Image.open(pictures[4]) as image:
        lighter = ImageEnhance.Brightness(image.resize((48, 48))).enhance(0.7)
    lighter.save(tmp_path / "lighter.png")
    ImageOps.mirror(lighter).save(tmp_path / "mirrored.png")
    found, mirrored = (nearest(tmp_path / name, pictures) for name in ("lighter.png", "mirrored.png"))
    assert found is not None
    assert mirrored is not None
    assert (found.index, found.mirrored, mirrored.index, mirrored.mirrored) == (4, False, 4, True)
    assert found.cosine > 0.99
    other = nearest(pictures[4], pictures[:4])
    assert other is not None
    assert other.cosine < 0.4


def test_pictures_of_another_shape_and_broken_ones_are_not_compared(tmp_path: Path):
    square, wide = picture(tmp_path / "a.png", 1), tmp_path / "wide.png"
    with Image.open(square) as image:
        image.resize((128, 64)).save(wide)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert nearest(square, [wide, tmp_path / "broken.png", tmp_path / "gone.png"]) is None
    assert nearest(tmp_path / "broken.png", [square]) is None
