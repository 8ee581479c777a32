"""Masks: where they come from, what a batch gets of them, how they are cached, and which cannot be used."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.data.augmentation.image_augmentation import View, view_of
from library.data.batches import Batches
from library.data.buckets import BucketChoice
from library.data.caches.latents_cache import DiskLatents, LiveLatents, MemoryLatents
from library.data.dataset import Dataset, build
from library.data.images.masks import latent_mask, stacked
from library.data.keys import key
from library.errors import UserError


def mask_image(path: Path, size: tuple[int, int] = (128, 128), left: int = 255) -> Path:
    """Grey value `left` on the left half, black on the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, : size[0] // 2] = left
    Image.fromarray(pixels).save(path)
    return path


def with_alpha(path: Path, size: tuple[int, int] = (128, 128)) -> Path:
    """A picture that is opaque on its left half only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels[:, : size[0] // 2, 3], pixels[:, size[0] // 2 :, 3] = 255, 0
    Image.fromarray(pixels, "RGBA").save(path)
    path.with_suffix(".txt").write_text("a cat")
    return path


@pytest.fixture
def masked(tmp_path: Path, make) -> Dataset:
    """Two pictures with mask images, one with an alpha channel that is asked for, one without any mask."""
    for name in ("a", "b"):
        make.picture(tmp_path / "img" / f"{name}.png")
        mask_image(tmp_path / "masks" / f"{name}.jpg.png".replace(".jpg", ""), left=255 if name == "a" else 128)
    with_alpha(tmp_path / "alpha" / "c.png")
    with_alpha(tmp_path / "plain" / "d.png")
    return build([make.dataset(*subsets_of(tmp_path, make), batch_size=4)])


def subsets_of(root: Path, make, **options) -> list:
    return [
        make.subset(root / "img", conditioning_data_dir=root / "masks", **options),
        make.subset(root / "alpha", alpha_mask=True, **options),
        make.subset(root / "plain", **options),
    ]


def halves(mask: torch.Tensor) -> list[tuple[float, float]]:
    """For each row of a batch the mean of the mask's left and right half."""
    left, right = mask.float().chunk(2, dim=-1)
    pairs = zip(left.mean(dim=(1, 2, 3)), right.mean(dim=(1, 2, 3)), strict=True)
    return [(round(float(a), 2), round(float(b), 2)) for a, b in pairs]


@pytest.mark.parametrize("source", ["memory", "disk", "live"])
def test_a_batch_has_every_picture_s_mask_and_ones_where_there_is_none(masked: Dataset, tmp_path, vae, source: str):
    if source == "live":
        latents = LiveLatents(masked, 1.0, vae)
        latents.check(progress=False)
    else:
        latents = (
            MemoryLatents(masked, 1.0)
            if source == "memory"
            else DiskLatents(masked, 1.0, vae_hash="v", fallback=tmp_path / "out")
        )
        latents.fill(vae, progress=False)
    ((batch,),) = Batches(masked, latents, None, seed=1, workers=0).epoch(1)
    assert batch.masks is not None
    assert batch.masks.shape == (4, 1, 16, 16)
    found = dict(zip([Path(f).stem for f in batch.files], halves(batch.masks), strict=True))
    assert found == {"a": (1.0, 0.0), "b": (0.5, 0.0), "c": (1.0, 0.0), "d": (1.0, 1.0)}


def test_a_mask_is_mirrored_and_cut_with_its_picture(tmp_path: Path, make, vae):
    with_alpha(tmp_path / "a.png", (256, 128))
    options = {"alpha_mask": True, "flip_aug": True, "random_crop": True}
    dataset = build([make.dataset(make.subset(tmp_path, **options), enable_bucket=False)])
    batches = Batches(dataset, LiveLatents(dataset, 1.0, vae), None, seed=2, workers=0)
    seen = set()
    for epoch in range(1, 20):
        ((batch,),) = batches.epoch(epoch)
        view = view_of(dataset.pictures[0], partial(key, 2, epoch, batch.sample_ids[0]))
        left = view.choice.crop[0]
        opaque = np.arange(left, left + 128) < 128
        columns = (opaque[::-1] if view.flipped else opaque).reshape(16, 8).mean(axis=1)
        assert batch.masks is not None
        torch.testing.assert_close(batch.masks[0, 0, 5], torch.tensor(columns, dtype=torch.float32))
        seen.add(view.flipped)
    assert seen == {True, False}


def test_a_mask_counts_by_the_share_of_each_latents_pixels():
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:4, :8] = 255
    mask = latent_mask(pixels, BucketChoice((16, 16), (16, 16), (0, 0)), flipped=False)
    assert mask.tolist() == [[[0.5, 0.0], [0.0, 0.0]]]
    assert latent_mask(pixels, BucketChoice((16, 16), (16, 16), (0, 0)), flipped=True).tolist() == [[[0, 0.5], [0, 0]]]


def test_a_batch_without_masks_has_none():
    assert stacked([None, None]) is None
    both = stacked([None, torch.zeros(1, 2, 2)])
    assert both is not None
    assert both.sum() == 4


def test_another_mask_is_another_cache_file_and_no_mask_is_again_another(masked: Dataset, tmp_path: Path, make, vae):
    def made(dataset: Dataset) -> int:
        return DiskLatents(dataset, 1.0, vae_hash="v", fallback=None).fill(vae, progress=False).made

    assert made(masked) == 4
    assert made(masked) == 0
    edited = mask_image(tmp_path / "masks" / "a.png", left=90)
    os.utime(edited, ns=(0, edited.stat().st_mtime_ns + 10**7))  # clocks of file systems tick slowly
    assert made(build(masked.plan)) == 1
    without = build([make.dataset(*(make.subset(tmp_path / name) for name in ("img", "alpha", "plain")))])
    assert made(without) == 3
    latents = DiskLatents(without, 1.0, vae_hash="v", fallback=None)
    latents.fill(None)
    picture = without.pictures[2]
    assert latents.fetch(picture, View(picture.choice)).mask is None


def test_a_missing_mask_or_one_of_another_shape_is_reported_and_a_smaller_one_is_enlarged(tmp_path: Path, make, vae):
    for name in ("a", "b"):
        make.picture(tmp_path / "img" / f"{name}.png", (128, 192))
    mask_image(tmp_path / "masks" / "a.png", (64, 96))
    subset = make.subset(tmp_path / "img", conditioning_data_dir=tmp_path / "masks")
    with pytest.raises(UserError, match=r"b\.png': has no mask: there is no image 'b' in '.*masks'"):
        build([make.dataset(subset)])
    mask_image(tmp_path / "masks" / "b.png", (96, 96))
    mask_image(tmp_path / "masks" / "x.png")
    dataset = build([make.dataset(subset)])
    assert any("1 masks have no image, such as 'x.png'" in line for line in dataset.warnings)
    said = r"b\.png': has a mask '.*b\.png' that, with 96x96, is of another shape than the image, 128x192"
    with pytest.raises(UserError, match=said):
        LiveLatents(dataset, 1.0, vae).check(progress=False)
    with pytest.raises(UserError, match=said):
        MemoryLatents(dataset, 1.0).fill(vae, progress=False)
    mask_image(tmp_path / "masks" / "b.png", (128, 192)).write_bytes(b"")
    with pytest.raises(UserError, match=r"has a mask '.*b\.png' that is not an image that can be read: it is empty"):
        MemoryLatents(build([make.dataset(subset)]), 1.0).fill(vae, progress=False)
