"""Dataset specs, what `library/data` gets to know of a run: its datasets and their subsets, under kohya's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SubsetSpec:
    """One folder of images and how its images and captions are varied."""

    image_dir: Path
    num_repeats: int
    class_tokens: str | None
    caption_extension: str  # with its dot
    is_reg: bool
    flip_aug: bool
    color_aug: bool
    random_crop: bool
    face_crop_aug_range: tuple[float, float] | None
    resize_interpolation: str | None
    alpha_mask: bool
    cache_info: bool
    shuffle_caption: bool
    keep_tokens: int
    keep_tokens_separator: str
    caption_separator: str
    secondary_separator: str | None
    enable_wildcard: bool
    caption_prefix: str | None
    caption_suffix: str | None
    caption_dropout_rate: float
    caption_dropout_every_n_epochs: int
    caption_tag_dropout_rate: float
    token_warmup_min: int
    token_warmup_step: float  # steps, or below 1 the share of the run
    custom_attributes: Mapping[str, Any]
    metadata_file: Path | None = None  # names the images and their captions; image_dir is where they are looked for
    conditioning_data_dir: Path | None = None  # masks of the images' names


@dataclass(frozen=True)
class DatasetSpec:
    """Subsets that share a resolution, buckets and a batch size."""

    index: int
    resolution: tuple[int, int]  # width, height
    batch_size: int
    enable_bucket: bool
    min_bucket_reso: int
    max_bucket_reso: int
    bucket_reso_steps: int
    bucket_no_upscale: bool
    network_multiplier: float
    validation_split: float
    validation_seed: int | None
    subsets: tuple[SubsetSpec, ...]
    skip_image_resolution: tuple[int, int] | None = None  # images of no more pixels are left out


DatasetPlan = tuple[DatasetSpec, ...]
