"""The keys of a dataset description: where each may stand, and which option it falls back to.

Kohya's own table: [general], [[datasets]] and [[datasets.subsets]]; a key that a subset does not have is looked up in
its dataset, then in [general], then among the options. Ranges are checked here, which sd-scripts leaves to luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.config.option import Option
from library.config.options.dataset import CACHE_INFO, INTERPOLATIONS
from library.config.values import bucket_step, resolution, two_numbers

GENERAL, DATASET, SUBSET = "[general]", "[[datasets]]", "[[datasets.subsets]]"


@dataclass(frozen=True)
class DatasetKey:
    """One key. `levels` has a letter for each place where it may stand: General, Dataset, Subset."""

    option: Option  # how its value is read
    levels: str
    fallback: str | None  # the option that is asked last

    @property
    def name(self) -> str:
        return self.option.name


def key(name: str, kind: Any, default: Any, levels: str, fallback: str | None = "", **how: Any) -> DatasetKey:
    return DatasetKey(Option(name, kind, default, "", **how), levels, name if fallback == "" else fallback)


def attributes(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"must be a table, not {raw!r}")
    return raw


# fmt: off
KEYS = (
    key("resolution",                   resolution, None, "GD", known_as=("size", "max_resolution")),
    key("batch_size",                   int,   1,         "GD",  "train_batch_size",
        minimum=1, known_as=("train_batch_size",)),
    key("enable_bucket",                bool,  False,     "GD",  known_as=("enable_bucketing", "enable_buckets")),
    key("min_bucket_reso",              int,   256,       "GD",  minimum=1, known_as=("min_bucket_resolution",)),
    key("max_bucket_reso",              int,   1024,      "GD",  minimum=1, known_as=("max_bucket_resolution",)),
    key("bucket_reso_steps",            bucket_step, 64,  "GD",  minimum=8),
    key("bucket_no_upscale",            bool,  False,     "GD"),
    key("skip_image_resolution",        resolution, None, "GD"),
    key("network_multiplier",           float, 1.0,       "GD",  None),
    key("validation_split",             float, 0.0,       "GD",  minimum=0, maximum=1),
    key("validation_seed",              int,   None,      "GD",  minimum=0),
    key("resize_interpolation",         str,   None,      "GDS", choices=INTERPOLATIONS),
    key("num_repeats",                  int,   1,         "GDS", "dataset_repeats",
        minimum=0, known_as=("repeats", "dataset_repeats")),
    key("shuffle_caption",              bool,  False,     "GDS"),
    key("caption_separator",            str,   ",",       "GDS"),
    key("keep_tokens",                  int,   0,         "GDS", minimum=0),
    key("keep_tokens_separator",        str,   "",        "GDS"),
    key("secondary_separator",          str,   None,      "GDS"),
    key("enable_wildcard",              bool,  False,     "GDS"),
    key("caption_prefix",               str,   None,      "GDS"),
    key("caption_suffix",               str,   None,      "GDS"),
    key("token_warmup_min",             int,   1,         "GDS", minimum=0),
    key("token_warmup_step",            float, 0.0,       "GDS", minimum=0),
    key("caption_dropout_rate",         float, 0.0,       "GDS", minimum=0, maximum=1),
    key("caption_dropout_every_n_epochs", int, 0,         "GDS", minimum=0),
    key("caption_tag_dropout_rate",     float, 0.0,       "GDS", minimum=0, maximum=1),
    key("flip_aug",                     bool,  False,     "GDS"),
    key("color_aug",                    bool,  False,     "GDS"),
    key("random_crop",                  bool,  False,     "GDS"),
    key("face_crop_aug_range",          two_numbers, None, "GDS"),
    key("custom_attributes",            attributes, None, "GDS", None),
    key("caption_extension",            str, ".caption",  "GDS", known_as=("caption_ext", "caption_extention")),
    key("cache_info",                   bool,  False,     "GDS"),
    key("class_tokens",                 str,   None,      "GDS", None,
        known_as=("class", "instance_prompt", "trigger_word")),
    key("image_dir",                    Path,  None,      "S",   None,
        known_as=("train_data_dir", "dir", "path", "image_folder")),
    key("is_reg",                       bool,  False,     "S",   None),
    key("alpha_mask",                   bool,  False,     "S"),
    key("metadata_file",                Path,  None,      "S",   None),
    key("conditioning_data_dir",        Path,  None,      "S",   None),
)
# fmt: on

BY_NAME = {k.name: k for k in KEYS}
GENERAL_KEYS = frozenset(k.name for k in KEYS if "G" in k.levels)
DATASET_KEYS = frozenset(k.name for k in KEYS if "D" in k.levels)
SUBSET_KEYS = frozenset(k.name for k in KEYS if "S" in k.levels)

NO_EFFECT = {
    "network_multiplier": "sd-scripts does not use it either",
    "custom_attributes": "output preservation, all that sd-scripts reads of it, is not offered",
    "cache_info": CACHE_INFO,
}
COMMAND_LINE_ONLY = ("prior_loss_weight", "max_token_length", "cache_latents", "cache_latents_to_disk", "debug_dataset")
