"""What to train on: the datasets and their subsets of images, before any image is opened.

Three ways to say it: a dataset description (`--dataset_config`, TOML or JSON), the same tables inside the training
config, or folders named REPEATS_CLASS in `--train_data_dir`. All end as `DatasetPlan`, with every fallback resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.dataset_keys import (
    BY_NAME,
    COMMAND_LINE_ONLY,
    DATASET,
    DATASET_KEYS,
    GENERAL,
    GENERAL_KEYS,
    NOT_READ,
    SUBSET,
    SUBSET_KEYS,
    Key,
)
from library.config.image_folders import count_images, folder_tables, not_a_folder, what_else_is_there
from library.config.option import DatasetTables, Origin, Settings, names_elsewhere
from library.config.suggest import did_you_mean
from library.config.toml_file import read_json, read_toml
from library.config.values import Noted, read_value
from library.errors import ConfigError, Problem, UserError, raise_all


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


DatasetPlan = tuple[DatasetSpec, ...]


def plan_datasets(settings: Settings) -> DatasetPlan:
    """The datasets of a run; what is worth knowing about them is added to the settings' warnings.

    Raises ConfigError for what is wrong in the description, UserError if there is no image at all.
    """
    reading = _Reading(settings)
    plan = reading.read()
    raise_all(reading.problems, ConfigError)
    settings.warnings.extend(reading.warnings)
    require_images(plan)
    return plan


def dataset_problems(settings: Settings) -> list[Problem]:
    """What is wrong in the dataset description, for `parse(checks=...)`."""
    reading = _Reading(settings)
    try:
        reading.read()
    except ConfigError as error:
        return [Problem(str(error))]
    return reading.problems


def require_images(plan: DatasetPlan) -> None:
    """Raise UserError if no folder holds an image, with what its folders hold instead."""
    folders = [subset.image_dir for dataset in plan for subset in dataset.subsets]
    if any(count_images(folder) for folder in folders):
        return
    raise UserError("There is no image to train on. " + " ".join(what_else_is_there(folder) for folder in folders))


@dataclass
class _Level:
    """A table of the description: its values, and where they stand."""

    values: dict[str, Any]
    origins: dict[str, Origin]


@dataclass
class _Reading:
    """One pass over a dataset description, collecting everything that is wrong with it."""

    settings: Settings
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def read(self) -> DatasetPlan:
        source = self._source()
        if source is None:
            return ()
        tables, origin_of = dict(source.tables), source.origin_of
        for name in tables.keys() - {"general", "datasets"}:
            self._unknown_table(name, origin_of(name))
        general = self._level(tables.get("general", {}), GENERAL, GENERAL_KEYS, origin_of, "general")
        datasets = tables.get("datasets", [])
        if not isinstance(datasets, list) or not all(isinstance(table, dict) for table in datasets):
            self.problems.append(Problem(f"`datasets` {origin_of('datasets').phrase} must be a list: [[datasets]]."))
            return ()
        specs = [self._dataset(place, table, general, origin_of) for place, table in enumerate(datasets)]
        if not datasets and not self.problems:
            self.problems.append(Problem(f"{source.path.name} has no [[datasets]] with [[datasets.subsets]] in it."))
        return tuple(spec for spec in specs if spec is not None)

    def _source(self) -> DatasetTables | None:
        """The description that is used; a warning names those that are not."""
        settings, embedded = self.settings, self.settings.dataset_tables
        path, folder = settings["dataset_config"], settings["train_data_dir"]
        if settings["in_json"]:
            self.problems.append(Problem(f"{settings.place('in_json')}: {NOT_READ['metadata_file']}."))
        if path is not None:
            ignored = ["train_data_dir"] if folder else []
            ignored += [f"[[datasets]] in {embedded.path.name}"] if embedded else []
            if ignored:
                self.warnings.append(f"`dataset_config` is used; {' and '.join(ignored)} are not.")
            file = read_json(path) if path.suffix.lower() == ".json" else read_toml(path)
            return DatasetTables(file.tables, file.origin, path)
        if embedded is not None:
            if folder:
                self.warnings.append(f"[[datasets]] in {embedded.path.name} are used; train_data_dir is not.")
            return embedded
        if folder is None:
            self.problems.append(
                Problem(
                    "No images are given: set `train_data_dir` to a folder of folders like 10_person, "
                    "or `dataset_config` to a dataset description."
                )
            )
            return None
        return folder_tables(settings, self.problems, self.warnings)

    def _dataset(
        self, place: int, table: dict, general: _Level, origin_of: Callable[..., Origin]
    ) -> DatasetSpec | None:
        where = ("datasets", place)
        subsets = table.get("subsets", [])
        own = {key: value for key, value in table.items() if key != "subsets"}
        level = self._level(own, DATASET, DATASET_KEYS, origin_of, *where)
        chain = [level, general]
        if not isinstance(subsets, list) or not subsets:
            self.problems.append(Problem(f"[[datasets]] {origin_of(*where).phrase} has no [[datasets.subsets]]."))
            return None
        read = [self._subset(s, chain, origin_of, *where, "subsets", i) for i, s in enumerate(subsets)]
        values = {name: self._effective(BY_NAME[name], chain) for name in DATASET_KEYS - SUBSET_KEYS}
        if values["resolution"] is None:
            self.problems.append(
                Problem(f"[[datasets]] {origin_of(*where).phrase} has no `resolution`, and no option gives one.")
            )
            return None
        self._check_buckets(values, f"[[datasets]] {origin_of(*where).phrase}")
        kept = self._without_doubles([subset for subset in read if subset is not None])
        return DatasetSpec(index=place, subsets=tuple(kept), **values)

    def _subset(
        self, table: dict, chain: list[_Level], origin_of: Callable[..., Origin], *where: Any
    ) -> SubsetSpec | None:
        level = self._level(table, SUBSET, SUBSET_KEYS, origin_of, *where)
        unread = level.origins.keys() - level.values.keys()
        place = f"{SUBSET} {origin_of(*where).phrase}"
        for name, why in NOT_READ.items():
            if level.values.get(name) is not None:
                self.problems.append(Problem(f"`{name}` {level.origins[name].phrase}: {why}."))
        values = {name: self._effective(BY_NAME[name], [level, *chain]) for name in SUBSET_KEYS - NOT_READ.keys()}
        folder = values["image_dir"]
        if folder is None:
            if "image_dir" not in unread:
                self.problems.append(Problem(f"{place} has no `image_dir`: the folder of its images."))
            return None
        if not folder.is_dir():
            self.problems.append(Problem(f"`image_dir` {level.origins['image_dir'].phrase}: {not_a_folder(folder)}"))
            return None
        if values["num_repeats"] < 1:
            self.warnings.append(f"{place} has no repeats; its images are not used.")
            return None
        if not values["caption_extension"].startswith("."):
            values["caption_extension"] = "." + values["caption_extension"]
        values["custom_attributes"] = values["custom_attributes"] or {}
        values["image_dir"] = folder.resolve()
        return SubsetSpec(**values)

    def _level(
        self, table: Any, title: str, allowed: frozenset[str], origin_of: Callable[..., Origin], *where: Any
    ) -> _Level:
        """Read the keys of one table."""
        level = _Level({}, {})
        if not isinstance(table, dict):
            self.problems.append(Problem(f"{title} {origin_of(*where).phrase} must be a table."))
            return level
        for name, raw in table.items():
            origin = origin_of(*where, name)
            level.origins[name] = origin
            if name not in allowed:
                self.problems.append(Problem(f"`{name}` {origin.phrase} {misplaced(name, title, allowed)}"))
                continue
            try:
                value = read_value(BY_NAME[name].option, raw)
            except ValueError as error:
                self.problems.append(Problem(f"`{name}` {origin.phrase} {error}."))
                continue
            level.values[name] = value.value if isinstance(value, Noted) else value
        return level

    def _effective(self, key: Key, chain: list[_Level]) -> Any:
        """The value of the innermost level that has one, else the option's, else the default."""
        for level in chain:
            if level.values.get(key.name) is not None:
                return level.values[key.name]
        value = self.settings.values.get(key.fallback) if key.fallback else None
        return key.option.default if value is None else value

    def _check_buckets(self, values: dict[str, Any], place: str) -> None:
        if not values["enable_bucket"] or values["bucket_no_upscale"]:
            return
        shortest, longest = min(values["resolution"]), max(values["resolution"])
        if values["min_bucket_reso"] > shortest or values["max_bucket_reso"] < longest:
            limits = f"min_bucket_reso {values['min_bucket_reso']} and max_bucket_reso {values['max_bucket_reso']}"
            self.problems.append(Problem(f"{place}: resolution {shortest} x {longest} must lie between {limits}."))

    def _without_doubles(self, subsets: list[SubsetSpec]) -> list[SubsetSpec]:
        """The same folder twice in one dataset: the later one is left out, as in sd-scripts."""
        kept: dict[Path, SubsetSpec] = {}
        for subset in subsets:
            if subset.image_dir in kept:
                self.warnings.append(f"{subset.image_dir} is given twice in one dataset; the second one is not used.")
            kept.setdefault(subset.image_dir, subset)
        return list(kept.values())

    def _unknown_table(self, name: str, origin: Origin) -> None:
        if name in self.settings.options:
            text = "is an option of the run and belongs into the training config, not into a dataset description."
        else:
            text = f"has no place in a dataset description{did_you_mean(name, ('general', 'datasets'))}"
        self.problems.append(Problem(f"`{name}` {origin.phrase} {text}"))


def misplaced(name: str, title: str, allowed: frozenset[str]) -> str:
    """Why a key may not stand in this table, and what to do."""
    if name in COMMAND_LINE_ONLY:
        return "is an option of the run; write it into the training config or on the command line."
    if name in BY_NAME:
        places = zip((GENERAL, DATASET, SUBSET), (GENERAL_KEYS, DATASET_KEYS, SUBSET_KEYS), strict=True)
        return f"may not stand in {title}, only in {' and '.join(place for place, keys in places if name in keys)}."
    elsewhere = names_elsewhere({key: BY_NAME[key].option for key in allowed})
    return f"is no key of {title}{did_you_mean(name, allowed, elsewhere)}"
