"""The keys of a dataset description: where each may be, and which option it falls back to.

Kohya's own table: [general], [[datasets]] and [[datasets.subsets]]; a key that a subset does not have is looked up in
its dataset, then in [general], then among the options. A key that is an option, too, is declared there. Ranges are
checked here, which sd-scripts leaves to luck.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.config.option import Option
from library.config.options.captions import CAPTIONS
from library.config.options.dataset import DATASET as DATASET_OPTIONS
from library.config.options.validation import VALIDATION

GENERAL, DATASET, SUBSET = "[general]", "[[datasets]]", "[[datasets.subsets]]"


@dataclass(frozen=True)
class DatasetKey:
    """One key. `levels` has a letter for each place where it may be: General, Dataset, Subset."""

    option: Option  # how its value is read
    levels: str
    fallback: str | None  # the option that is asked last

    @property
    def name(self) -> str:
        return self.option.name


def key(name: str, kind: Any, default: Any, levels: str, **how: Any) -> DatasetKey:
    """A key that is no option."""
    return DatasetKey(Option(name, kind, default, "", **how), levels, None)


def of_option(option: Option) -> DatasetKey:
    """An option as a key of datasets; its names elsewhere are suggested here, too."""
    name = option.key or option.name
    others = tuple(other for other in (option.name, *option.known_as, *option.aliases) if other != name)
    return DatasetKey(replace(option, name=name, known_as=others, aliases=()), option.levels, option.name)


def attributes(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"must be a table, not {raw!r}")
    return raw


# fmt: off
KEYS = (
    *(of_option(option) for group in (DATASET_OPTIONS, CAPTIONS, VALIDATION) for option in group if option.levels),
    key("network_multiplier",           float, 1.0,       "GD",  inert="sd-scripts does not use it either"),
    key("custom_attributes",            attributes, None, "GDS",
        inert="output preservation, all that sd-scripts reads of it, is not offered"),
    key("class_tokens",                 str,   None,      "GDS", known_as=("class", "instance_prompt", "trigger_word")),
    key("image_dir",                    Path,  None,      "S",
        known_as=("train_data_dir", "dir", "path", "image_folder")),
    key("is_reg",                       bool,  False,     "S"),
    key("metadata_file",                Path,  None,      "S"),
    key("conditioning_data_dir",        Path,  None,      "S"),
)
# fmt: on

BY_NAME = {k.name: k for k in KEYS}
GENERAL_KEYS = frozenset(k.name for k in KEYS if "G" in k.levels)
DATASET_KEYS = frozenset(k.name for k in KEYS if "D" in k.levels)
SUBSET_KEYS = frozenset(k.name for k in KEYS if "S" in k.levels)

PLACES = tuple(k.name for k in KEYS if k.option.type is Path)
"""Keys that say where files lie; a link keeps its own name."""
