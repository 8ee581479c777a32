"""Pictures of every kind become what Pillow itself makes of them, within one grey level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from library.errors import UserError
from library.metrics.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    clean_inception,
    clip_preprocessing,
    imagenet_preprocessing,
    legacy_inception,
    open_picture,
)

SIZES = ((64, 64), (17, 900), (900, 17), (301, 200), (1, 1))


def painted(size: tuple[int, int], channels: int) -> np.ndarray:
    width, height = size
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels if channels > 1 else pixels[..., 0]


def odd_pictures(folder: Path) -> list[Path]:
    """20 files: JPEG turned by EXIF, transparent PNG, palette with a transparent colour, 16 bits, grey."""
    paths: list[Path] = []
    options: dict[str, Any]
    for number, size in enumerate(SIZES):
        turned = Image.Exif()
        turned[0x0112] = (6, 3, 8, 5, 2)[number]
        grey = painted(size, 1)
        palette = Image.fromarray(painted(size, 3)).quantize(16)
        palette.info["transparency"] = 3
        for name, image, options in (
            ("turned.jpg", Image.fromarray(painted(size, 3)), {"exif": turned, "quality": 95}),
            ("transparent.png", Image.fromarray(painted(size, 4)), {}),
            ("palette.png", palette, {"transparency": 3}),
            ("deep.png", Image.fromarray(grey.astype(np.uint16) * 257), {}),
        ):
            paths.append(folder / f"{number}_{name}")
            image.save(paths[-1], **options)
    return paths


def by_pillow(path: Path) -> Image.Image:
    """The same by Pillow's own functions alone."""
    with Image.open(path) as file:
        if file.mode.startswith("I"):
            return Image.fromarray((np.asarray(file) // 257).astype(np.uint8)).convert("RGB")
        image = ImageOps.exif_transpose(file).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def test_20_odd_pictures_are_opened_and_cut_as_pillow_does_to_one_grey_level(tmp_path: Path):
    paths = odd_pictures(tmp_path)
    assert len(paths) == 20
    mean, std = (np.array(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    for path in paths:
        expected = by_pillow(path)
        opened = open_picture(path)
        assert opened.size == expected.size, path.name
        assert np.abs(np.asarray(opened, int) - np.asarray(expected, int)).max() <= 1, path.name
        cut = ImageOps.fit(expected, (32, 32), Image.Resampling.BICUBIC)  # Pillow's own resize and crop in one
        seen = clip_preprocessing(32).prepare(opened).numpy() * std + mean
        assert seen.shape == (3, 32, 32)
        if expected.width == expected.height:
            difference = np.abs(seen.transpose(1, 2, 0) * 255 - np.asarray(cut, float))
            assert difference.max() <= 1 + 1e-4, path.name


def test_the_long_side_is_rounded_down_and_the_crop_is_in_the_middle():
    picture = Image.fromarray(painted((301, 200), 3))
    expected = picture.resize((337, 224), Image.Resampling.BICUBIC).crop((56, 0, 280, 224))  # 224 * 301 / 200 = 337.12
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    seen = (clip_preprocessing().prepare(picture) * std + mean) * 255
    assert np.abs(seen.permute(1, 2, 0).numpy() - np.asarray(expected, float)).max() < 1e-3
    assert imagenet_preprocessing().prepare(picture).shape == (3, 224, 224)


def test_inceptions_two_ways_keep_a_flat_colour_and_differ_where_a_picture_shrinks():
    flat = Image.new("RGB", (500, 40), (0, 128, 255))
    for way in (clean_inception, legacy_inception):
        seen = way(flat)
        assert seen.shape == (3, 299, 299)
        assert seen[:, 7, 9].tolist() == pytest.approx([-1.0, 0.0, 127 / 128])
    fine = Image.fromarray(painted((900, 900), 3))
    assert clean_inception(fine).std() < 0.7 * legacy_inception(fine).std()


def test_legacy_takes_pixels_where_tensorflow_did():
    # 598 pixels to 299: output i is exactly input 2i, without smoothing.
    picture = Image.fromarray(painted((598, 598), 3))
    expected = (np.asarray(picture, np.float32)[::2, ::2].transpose(2, 0, 1) - 128) / 128
    assert np.array_equal(legacy_inception(picture).numpy(), expected)


def test_a_file_that_is_no_picture_is_recognised_by_name(tmp_path: Path):
    (tmp_path / "a.png").write_text("<!doctype html>", encoding="utf-8")
    with pytest.raises(UserError, match=r"a.png' is not an image that can be read: it holds a web page"):
        open_picture(tmp_path / "a.png")
