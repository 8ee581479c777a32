"""Folders of real image files, the specs that name them, and a stand-in for the VAE."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from library.config.dataset_specs import DatasetSpec, SubsetSpec

SUBSET = SubsetSpec(
    image_dir=Path("."),
    num_repeats=1,
    class_tokens=None,
    caption_extension=".txt",
    is_reg=False,
    flip_aug=False,
    color_aug=False,
    random_crop=False,
    face_crop_aug_range=None,
    resize_interpolation=None,
    alpha_mask=False,
    cache_info=False,
    shuffle_caption=False,
    keep_tokens=0,
    keep_tokens_separator="",
    caption_separator=",",
    secondary_separator=None,
    enable_wildcard=False,
    caption_prefix=None,
    caption_suffix=None,
    caption_dropout_rate=0.0,
    caption_dropout_every_n_epochs=0,
    caption_tag_dropout_rate=0.0,
    token_warmup_min=1,
    token_warmup_step=0,
    custom_attributes={},
)

DATASET = DatasetSpec(
    index=0,
    resolution=(128, 128),
    batch_size=2,
    enable_bucket=True,
    min_bucket_reso=64,
    max_bucket_reso=256,
    bucket_reso_steps=64,
    bucket_no_upscale=False,
    network_multiplier=1.0,
    validation_split=0.0,
    validation_seed=None,
    subsets=(),
)


def subset(folder: Path, **options) -> SubsetSpec:
    return dataclasses.replace(SUBSET, image_dir=folder, **options)


def dataset(*subsets: SubsetSpec, **options) -> DatasetSpec:
    return dataclasses.replace(DATASET, subsets=subsets, **options)


def picture(path: Path, size: tuple[int, int] = (128, 128), caption: str | None = "a cat", seed: int = 0) -> Path:
    """Write an image of noise, and its caption beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


class BlockMeans:
    """Encodes as a VAE would: 8x smaller, 4 channels, here the means of blocks of pixels. Counts its work."""

    def __init__(self, vae_hash: str = "blocks"):
        self.vae_hash = vae_hash
        self.calls: list[int] = []
        self.breaks_above: float | None = None  # NaN where the mean of an image is above this

    def encode_posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.dtype == torch.float32
        assert images.ndim == 4
        assert images.abs().max() <= 1
        self.calls.append(len(images))
        blocks = torch.nn.functional.avg_pool2d(images, 8)
        mean = torch.cat([blocks, blocks.mean(1, keepdim=True)], dim=1)
        if self.breaks_above is not None:
            mean[mean.mean(dim=(1, 2, 3)) > self.breaks_above] = torch.nan
        return mean, torch.full_like(mean, 0.1)


@pytest.fixture
def vae() -> BlockMeans:
    return BlockMeans()


@pytest.fixture
def make():
    """The functions above, for tests (which cannot import a conftest)."""

    class Make:
        subset = staticmethod(subset)
        dataset = staticmethod(dataset)
        picture = staticmethod(picture)
        vae = BlockMeans

    return Make
