"""Dataset specs, what `library/data` gets to know of a run: its datasets and their subsets, under kohya's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from library.config.dataset_keys import KEYS
from library.config.spec import declared, spec_of

KEY_OPTIONS = tuple(key.option for key in KEYS)


@spec_of(KEY_OPTIONS)
class SubsetSpec:
    """One folder of images and how its images and captions are varied."""

    image_dir: Path
    num_repeats: int = declared
    class_tokens: str | None = declared
    caption_extension: str = declared  # with its dot
    is_reg: bool = declared
    flip_aug: bool = declared
    color_aug: bool = declared
    random_crop: bool = declared
    face_crop_aug_range: tuple[float, float] | None = declared
    resize_interpolation: str | None = declared
    alpha_mask: bool = declared
    cache_info: bool = declared
    shuffle_caption: bool = declared
    keep_tokens: int = declared
    keep_tokens_separator: str = declared
    caption_separator: str = declared
    secondary_separator: str | None = declared
    enable_wildcard: bool = declared
    caption_prefix: str | None = declared
    caption_suffix: str | None = declared
    caption_dropout_rate: float = declared
    caption_dropout_every_n_epochs: int = declared
    caption_tag_dropout_rate: float = declared
    token_warmup_min: int = declared
    token_warmup_step: float = declared  # steps, or below 1 the share of the run
    custom_attributes: Mapping[str, Any] = field(default_factory=dict)
    metadata_file: Path | None = None  # names the images and their captions; image_dir is where they are looked for
    conditioning_data_dir: Path | None = None  # masks of the images' names


@spec_of(KEY_OPTIONS)
class DatasetSpec:
    """Subsets that share a resolution, buckets and a batch size."""

    index: int
    resolution: tuple[int, int]  # width, height
    batch_size: int = declared
    enable_bucket: bool = declared
    min_bucket_reso: int = declared
    max_bucket_reso: int = declared
    bucket_reso_steps: int = declared
    bucket_no_upscale: bool = declared
    network_multiplier: float = declared
    validation_split: float = declared
    validation_seed: int | None = declared
    skip_image_resolution: tuple[int, int] | None = declared  # images of no more pixels are left out
    subsets: tuple[SubsetSpec, ...] = ()


DatasetPlan = tuple[DatasetSpec, ...]
