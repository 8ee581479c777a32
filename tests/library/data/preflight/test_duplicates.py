"""Pictures that look alike are found without comparing every one with every other, and others are not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from library.data.preflight.duplicates import BITS, joined, near_pairs, nearly_same
from library.data.preflight.pixels import Sight, look_at, looks_of
from miniworld.sets import style_set


def test_pairs_by_blocks_are_all_that_a_comparison_of_every_two_finds():
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(64, k, replace=False)) for k in rng.integers(0, 9, 400)])
    hashes = np.concatenate([centres, rng.choice(centres, 400) ^ flips.astype(np.uint64)])
    everyone = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    assert near_pairs(hashes, BITS).tolist() == np.argwhere(np.triu(everyone <= BITS, 1)).tolist()
    assert len(near_pairs(np.zeros(700, np.uint64), BITS)) == 700 * 699 // 2


def test_what_is_connected_by_pairs_is_one_group():
    assert joined(7, [(0, 3), (3, 5), (1, 2)]) == [[0, 3, 5], [1, 2]]


def test_the_looks_are_the_signs_of_the_steps_to_the_right():
    falling = Image.fromarray(np.tile(np.linspace(250, 0, 72, dtype=np.uint8), (64, 1)))
    assert looks_of(falling) == 2**64 - 1
    assert looks_of(falling.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


CHANGES = {
    "saved as a poor JPEG": lambda image: recoded(image, quality=30),
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice as large": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "a little brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.03),
}


def recoded(image: Image.Image, **how) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", **how)
    return Image.open(file)


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    """47 drawings of different contents in one style."""
    return [Image.fromarray(p.image) for split in ("train", "test") for p in style_set("oil", split)]


def sights(images: list[Image.Image], folder: Path) -> list[Sight]:
    paths = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path, compress_level=1)
    return [look_at(path) for path in paths]


def test_different_drawings_in_one_style_are_not_called_alike(drawn, tmp_path):
    assert nearly_same(sights(drawn, tmp_path)) == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_drawing_is_known_again(change, drawn, tmp_path):
    pairs = nearly_same(sights(drawn + [CHANGES[change](image) for image in drawn], tmp_path))
    names = sorted([int(sight.path.stem) for sight in group] for group in pairs)
    assert names == [[i, i + len(drawn)] for i in range(len(drawn))]


def test_flat_pictures_of_other_colours_are_not_alike_although_their_looks_are_equal(tmp_path):
    flat = [Image.new("RGB", (64, 64), colour) for colour in ("black", "white", "red", "blue")]
    found = sights(flat, tmp_path)
    assert len({sight.looks for sight in found}) == 1
    assert nearly_same(found) == []
