"""How visits see their pictures: crops, faces, colours, mirror images; what a batch gets of it."""

from __future__ import annotations

import colorsys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.data.augmentation.image_augmentation import (
    COLOURED,
    Colour,
    FaceBox,
    View,
    coloured,
    drawn_colour,
    face_in_name,
    view_of,
)
from library.data.augmentation.resize_crop import fitted
from library.data.batches import Batches
from library.data.caches.latents_cache import LiveLatents
from library.data.caches.vae_encoding import image_of
from library.data.dataset import Dataset, build
from library.data.images.image import DatasetImage
from library.data.keys import key
from library.image_files import load

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)


def dataset_of(folder: Path, make, size: tuple[int, int] = (300, 200), name: str = "a.png", **options) -> Dataset:
    """One picture, trained at 128 px without buckets unless told otherwise."""
    make.picture(folder / name, size)
    spec = {n: options.pop(n) for n in ("enable_bucket", "resolution") if n in options}
    return build([make.dataset(make.subset(folder, **options), **{"enable_bucket": False, **spec})])


def views(picture: DatasetImage, count: int = 200) -> list[View]:
    return [view_of(picture, partial(key, 1, epoch, "a")) for epoch in range(count)]


def test_a_random_crop_reaches_every_place_and_leaves_none(tmp_path: Path, make):
    (picture,) = dataset_of(tmp_path, make, size=(140, 128), random_crop=True).pictures
    assert picture.choice.resized == (140, 128)
    assert {view.crop for view in views(picture)} == {(0, left) for left in range(13)}


def test_each_way_of_seeing_draws_for_itself(tmp_path: Path, make):
    one = dataset_of(tmp_path, make, random_crop=True).pictures[0]
    both = dataset_of(tmp_path, make, random_crop=True, flip_aug=True, color_aug=True).pictures[0]
    assert [v.choice for v in views(one)] == [v.choice for v in views(both)]
    assert {v.flipped for v in views(both)} == {True, False}


def test_what_is_not_asked_for_stays_in_the_middle_as_it_is(tmp_path: Path, make):
    (picture,) = dataset_of(tmp_path, make).pictures
    assert set(views(picture, 5)) == {View(picture.choice)}


@pytest.mark.parametrize(
    ("stem", "face"),
    [
        ("photo_150_90_40_50", FaceBox(150, 90, 40, 50)),
        ("my_photo_150_90_40_50", FaceBox(150, 90, 40, 50)),
        ("150_90_40_50", None),  # nothing is left for a name
        ("photo_1500_90_40_50", None),  # outside
        ("photo_150_90_0_0", None),
        ("photo_150_-90_40_50", None),
    ],
)
def test_a_face_is_read_from_the_end_of_a_name(stem: str, face: FaceBox | None):
    assert face_in_name(stem, (300, 200)) == face


@pytest.mark.parametrize("enable_bucket", [False, True])
def test_a_face_is_brought_to_the_size_that_was_asked_for(tmp_path: Path, make, enable_bucket: bool):
    """The bucket's short side is 1.5 to 2 faces long, and the face lies in its middle."""
    options = {"face_crop_aug_range": (1.5, 2.0), "enable_bucket": enable_bucket}
    (picture,) = dataset_of(tmp_path, make, (900, 600), "a_450_300_120_100.png", **options).pictures
    for view in views(picture):
        scale = view.choice.resized[0] / 900
        assert 1.5 - 0.02 <= min(view.choice.bucket) / (120 * scale) <= 2.0 + 0.02
        for axis, centre in enumerate((450, 300)):
            middle = view.choice.crop[axis] + view.choice.bucket[axis] / 2
            assert abs(middle - centre * scale) <= 120 * scale / 20 + 1.5
    assert len({view.choice.resized for view in views(picture)}) > 5


def test_a_face_at_the_edge_or_in_a_small_picture_stays_inside_the_picture(tmp_path: Path, make):
    for number, (size, name) in enumerate([((300, 200), "a_2_199_60_60.png"), ((90, 70), "a_40_30_20_20.png")]):
        for random_crop in (False, True):
            options = {"face_crop_aug_range": (1.0, 4.0), "random_crop": random_crop}
            folder = tmp_path / f"{number}{random_crop}"
            (picture,) = dataset_of(folder, make, size, name, **options).pictures
            for view in views(picture, 60):
                for at, bucket, resized in zip(view.choice.crop, view.choice.bucket, view.choice.resized, strict=True):
                    assert 0 <= at <= resized - bucket
                assert image_of(load(picture.path), view).shape == (3, 128, 128)


def test_hues_are_turned_by_the_angle_that_was_drawn():
    pixels = np.full((2, 2, 3), (200, 40, 40), np.uint8)
    hue, _, value = colorsys.rgb_to_hsv(*(coloured(pixels, Colour(hue=8.0))[0, 0] / 255))
    assert hue == pytest.approx(8 / 180, abs=0.01)
    assert value == pytest.approx(200 / 255, abs=0.01)


def test_a_gamma_leaves_black_and_white_and_moves_what_is_between():
    pixels = np.array([[[0, 128, 255]]], np.uint8)
    assert coloured(pixels, Colour(gamma=1.05)).tolist() == [[[0, round(255 * (128 / 255) ** 1.05), 255]]]


def test_a_third_of_the_visits_see_other_colours():
    drawn = [drawn_colour(key(0, 1, str(i), "colour")) for i in range(3000)]
    changed = [colour for colour in drawn if colour]
    assert len(changed) / 3000 == pytest.approx(COLOURED, abs=0.04)
    assert sum(colour.hue != 0 for colour in changed) / len(changed) == pytest.approx(0.5, abs=0.06)
    assert all(abs(colour.hue) <= 8 and 0.95 <= colour.gamma <= 1.05 for colour in changed)


@pytest.mark.parametrize("name", ["lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area"])
def test_pictures_are_resized_by_the_interpolation_of_that_name(tmp_path: Path, make, name: str):
    picture = dataset_of(tmp_path, make, (120, 90), resize_interpolation=name).pictures[0]
    pixels = load(picture.path)
    by_name = image_of(pixels, View(picture.choice), name)
    same = {"bilinear": "linear", "bicubic": "cubic"}.get(name, name)
    assert torch.equal(by_name, image_of(pixels, View(picture.choice), same))
    usual = image_of(pixels, View(picture.choice))
    assert torch.equal(by_name, usual) == (name == "lanczos")  # this picture grows
    assert fitted(pixels, picture.choice, name).shape == (128, 128, 3)


def test_a_batch_holds_what_its_visits_saw(tmp_path: Path, make, vae):
    dataset = dataset_of(tmp_path, make, random_crop=True, flip_aug=True, color_aug=True)
    batches = Batches(dataset, LiveLatents(dataset, 1.0, vae), None, seed=3, workers=0)
    seen = set()
    for epoch in range(1, 9):
        ((batch,),) = batches.epoch(epoch)
        view = view_of(dataset.pictures[0], partial(key, 3, epoch, batch.sample_ids[0]))
        assert batch.crops.tolist() == [list(view.crop)]
        assert batch.masks is None
        mean, std = vae.encode_posterior(image_of(load(dataset.pictures[0].path), view)[None])
        noise = torch.randn(mean.shape[1:], generator=batch.generator(0, "posterior"))
        torch.testing.assert_close(batch.latents, mean + std * noise)
        seen.add(view)
    assert len(seen) == 8


def test_pictures_of_a_folder_may_be_of_any_mode(tmp_path: Path, make):
    Image.fromarray(PIXELS).convert("L").save(tmp_path / "grey.png")
    picture = build([make.dataset(make.subset(tmp_path, color_aug=True), enable_bucket=False)]).pictures[0]
    assert image_of(load(picture.path), View(picture.choice, True, Colour(hue=5.0))).shape == (3, 128, 128)
