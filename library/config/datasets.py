"""What to train on: the datasets and their subsets of images, before any image is opened.

Three ways to say it: a dataset description (`--dataset_config`, TOML or JSON), the same tables inside the training
config, or folders named REPEATS_CLASS in `--train_data_dir`. All end as `DatasetPlan`, with every fallback resolved.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.bucket_limits import why_limits_cannot_work
from library.config.dataset_keys import (
    BY_NAME,
    DATASET,
    DATASET_KEYS,
    GENERAL,
    GENERAL_KEYS,
    KEYS,
    PLACES,
    SUBSET,
    SUBSET_KEYS,
    DatasetKey,
)
from library.config.dataset_specs import DatasetPlan, DatasetSpec, SubsetSpec
from library.config.image_folders import SourceSpec, folder_tables, require_images, why_not_a_file, why_not_a_folder
from library.config.ineffective_keys import lonely_keys
from library.config.option import (
    COMMAND_LINE,
    PICTURES,
    DatasetTables,
    Option,
    Origin,
    Settings,
    is_off,
    names_elsewhere,
)
from library.config.options.dataset import DATASET as OPTIONS_OF_PICTURES
from library.config.spec import OPTIONS
from library.config.suggest import did_you_mean
from library.config.toml_file import read_json, read_toml
from library.config.validation_split import holding_out_problems, with_shares
from library.config.values import Noted, is_unset, read_value
from library.errors import ConfigError, Problem, raise_all


def plan_datasets(settings: Settings) -> DatasetPlan:
    """The datasets of a run; what is worth knowing about them is added to the settings' warnings.

    Raises ConfigError for what is wrong in the description, UserError if there is no image at all.
    """
    reading = _DatasetReading(settings)
    plan = reading.read()
    raise_all(reading.problems, ConfigError)
    settings.warnings.extend(reading.warnings)
    settings.warnings.extend(lonely_keys(plan, settings))
    require_images(plan, settings.take(SourceSpec).train_data_dir)
    return plan


def is_described(settings: Settings) -> bool:
    """Whether the datasets come from a description, and not from folders named REPEATS_CLASS."""
    return bool(settings.take(SourceSpec).dataset_config or settings.dataset_tables)


def dataset_problems(settings: Settings) -> list[Problem]:
    """What is wrong in the dataset description, for `parse(checks=...)`; with `explain` also what is worth knowing."""
    reading = _DatasetReading(settings)
    try:
        plan = reading.read()
    except ConfigError as error:
        return [Problem(str(error))]
    if settings.take(SourceSpec).explain:
        settings.warnings.extend([*reading.warnings, *lonely_keys(plan, settings)])
    return reading.problems


CHANGES_PIXELS = {key.name: key.option.changes_pixels for key in KEYS if key.option.changes_pixels}
FOLDERS = tuple(option.name for option in OPTIONS_OF_PICTURES if option.decides is PICTURES and not option.inert)
"""Options that say where pictures are: a description, and folders and a file that stand for one."""
LIMITS = ("min_bucket_reso", "max_bucket_reso")


@dataclass
class _Level:
    """A table of the description: its values, where they are, and which of them could not be read."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)


@dataclass
class _DatasetReading:
    """One pass over a dataset description, collecting everything that is wrong with it."""

    settings: Settings
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    origin_of: Callable[..., Origin] = field(init=False)  # the place of a key, by its way from the top
    split_places: dict[int, str] = field(default_factory=dict)  # of each dataset's `validation_split`, by its index
    splits_left_open: set[int] = field(default_factory=set)
    asked: SourceSpec = field(init=False)

    def __post_init__(self) -> None:
        self.asked = self.settings.take(SourceSpec)

    def read(self) -> DatasetPlan:
        source = self._source()
        if source is None:
            return ()
        tables, self.origin_of = source.tables, source.origin_of
        if self._is_training_config(source):
            return ()
        for name in [name for name in tables if name not in ("general", "datasets")]:
            guess = did_you_mean(name, ("general", "datasets"))
            problem = f"`{name}` {self.origin_of(name).phrase} has no place in a dataset description{guess}"
            self.problems.append(Problem(problem))
        general = self._level(tables.get("general", {}), GENERAL, GENERAL_KEYS, "general")
        datasets = tables.get("datasets", [])
        if not isinstance(datasets, list) or not all(isinstance(table, dict) for table in datasets):
            self.problems.append(
                Problem(f"`datasets` {self.origin_of('datasets').phrase} must be a list: [[datasets]].")
            )
            return ()
        specs = [self._dataset(place, table, general) for place, table in enumerate(datasets)]
        if not datasets and not self.problems and source.path != self.asked.train_data_dir:
            self.problems.append(Problem(f"{source.path.name} has no [[datasets]] with [[datasets.subsets]] in it."))
        sound = [spec for spec in specs if spec is not None]
        if self.settings.values.get("save_best"):
            sound = with_shares(sound, self.splits_left_open)
        if len(sound) == len(specs):
            self.problems += holding_out_problems(sound, self.split_places, self.settings)
        return tuple(sound)

    def _source(self) -> DatasetTables | None:
        """The description that is used; a warning names those that are not."""
        settings, embedded = self.settings, self.settings.dataset_tables
        path, folder = self.asked.dataset_config, self.asked.train_data_dir
        if folder and settings.origins["train_data_dir"] == COMMAND_LINE != settings.origins["dataset_config"]:
            if path or embedded:  # sd-scripts would not look at the command line here
                self.warnings.append("`--train_data_dir` on the command line is used instead of the config's datasets.")
            return folder_tables(settings, self.problems, self.warnings)
        if path is not None:
            ignored = [name for name in FOLDERS if name != "dataset_config" and settings[name]]
            ignored += [f"[[datasets]] in {embedded.path.name}"] if embedded else []
            if ignored:
                self.warnings.append(f"`dataset_config` is used, not {' or '.join(ignored)}.")
            if why := why_not_a_file(path):
                self.problems.append(Problem(f"{settings.place('dataset_config')}: {why}", understood=True))
                return None
            file = read_json(path) if path.suffix.lower() == ".json" else read_toml(path)
            return DatasetTables(file.tables, file.origin, path)
        if embedded is not None:
            if folder:
                self.warnings.append(f"[[datasets]] in {embedded.path.name} are used, not train_data_dir.")
            return embedded
        if folder is None and not self.asked.in_json:
            self.problems.append(
                Problem(
                    "No images are given: set `train_data_dir` to a folder of folders like 10_person, "
                    "or `dataset_config` to a dataset description.",
                    understood=True,
                )
            )
            return None
        return folder_tables(settings, self.problems, self.warnings)

    def _dataset(self, place: int, table: dict, general: _Level) -> DatasetSpec | None:
        where = ("datasets", place)
        subsets = table.get("subsets", [])
        own = {key: value for key, value in table.items() if key != "subsets"}
        level = self._level(own, DATASET, DATASET_KEYS, *where)
        chain = [level, general]
        if not isinstance(subsets, list) or not subsets:
            self.problems.append(Problem(f"[[datasets]] {self.origin_of(*where).phrase} has no [[datasets.subsets]]."))
            return None
        read = [self._subset(s, chain, *where, "subsets", i) for i, s in enumerate(subsets)]
        values = {name: self._effective(BY_NAME[name], chain) for name in DATASET_KEYS - SUBSET_KEYS}
        origin = self.origin_of(*where)
        inside = f" for [[datasets]] {origin.phrase}" if origin.line else ""
        if values["resolution"] is None:
            self.problems.append(Problem(f"`resolution` is not set{inside}: the size to train at, such as 512."))
            return None
        self._check_sizes(values, chain)
        kept = self._without_doubles([subset for subset in read if subset is not None])
        self.split_places[place] = self._written("validation_split", chain)
        if self._is_left_to_us("validation_split", chain):
            self.splits_left_open.add(place)
        return DatasetSpec(index=place, subsets=tuple(kept), **values)

    def _subset(self, table: dict, chain: list[_Level], *where: str | int) -> SubsetSpec | None:
        level = self._level(table, SUBSET, SUBSET_KEYS, *where)
        place = f"{SUBSET} {self.origin_of(*where).phrase}"
        values = {name: self._effective(BY_NAME[name], [level, *chain]) for name in SUBSET_KEYS}
        if not self._places_are_there(values, level, place):
            return None
        if values["num_repeats"] < 1:
            self.warnings.append(f"{place} has no repeats; its images are not used.")
            return None
        if not values["caption_extension"].startswith("."):
            values["caption_extension"] = "." + values["caption_extension"]
        values["custom_attributes"] = values["custom_attributes"] or {}
        for name in PLACES:
            values[name] = Path(os.path.abspath(values[name])) if values[name] is not None else None
        values["image_dir"] = values["image_dir"] or values["metadata_file"].parent
        self._check_caching(values, [level, *chain])
        return SubsetSpec(**values)

    def _places_are_there(self, values: dict[str, Any], level: _Level, place: str) -> bool:
        """Whether a subset's folders and files exist; adds its problems."""
        folder, metadata, masks = (values[name] for name in PLACES)
        before = len(self.problems)
        if folder is None and metadata is None:
            if "image_dir" not in level.unread:
                unfilled = "image_dir" in level.origins  # a template's empty text
                self.problems.append(
                    Problem(f"{place} has no `image_dir`: the folder of its images.", understood=unfilled)
                )
            return False
        for name, path in (("image_dir", folder), ("conditioning_data_dir", masks)):
            if path is not None and (why := why_not_a_folder(path)):
                self.problems.append(Problem(f"`{name}` {level.origins[name].phrase}: {why}", understood=True))
        if metadata is not None and (why := why_not_a_file(metadata)):
            place = f"`metadata_file` {level.origins['metadata_file'].phrase}"
            self.problems.append(Problem(f"{place}: {why}", understood=True))
        if masks is not None and not self.asked.masked_loss:
            needs = "needs `masked_loss = true`: masks weigh the loss"
            self.problems.append(
                Problem(f"`conditioning_data_dir` {level.origins['conditioning_data_dir'].phrase} {needs}.")
            )
        return len(self.problems) == before

    def _level(self, table: Any, title: str, allowed: frozenset[str], *where: str | int) -> _Level:
        """Read the keys of one table."""
        level = _Level()
        if not isinstance(table, dict):
            self.problems.append(Problem(f"{title} {self.origin_of(*where).phrase} must be a table."))
            return level
        for name, raw in table.items():
            origin = self.origin_of(*where, name)
            level.origins[name] = origin
            if name not in allowed:
                self.problems.append(Problem(f"`{name}` {origin.phrase} {misplaced(name, title, allowed)}"))
            elif is_left_open(BY_NAME[name].option, raw):
                continue
            else:
                self._value(level, name, raw)
        return level

    def _value(self, level: _Level, name: str, raw: Any) -> None:
        option, phrase = BY_NAME[name].option, level.origins[name].phrase
        try:
            value = raw if raw == "" else read_value(option, raw)
        except ValueError as error:
            level.unread.add(name)
            self.problems.append(Problem(f"`{name}` {phrase} {error}."))
            return
        if isinstance(value, Noted):
            self.warnings.append(f"`{name}` {phrase} {value.note}.")
            value = value.value
        level.values[name] = value
        why = option.inert
        if why and not is_off(value, option.default):
            self.warnings.append(f"`{name}` {phrase} has no effect: {why}.")

    def _effective(self, key: DatasetKey, chain: list[_Level]) -> Any:
        """The value of the innermost level that has one, else the option's, else the default."""
        for level in chain:
            if level.values.get(key.name) is not None:
                return level.values[key.name]
        value = self.settings.values.get(key.fallback) if key.fallback else None
        return key.option.default if value is None else value

    def _is_left_to_us(self, name: str, chain: list[_Level]) -> bool:
        """Whether nobody wrote a key's value, here or among the options."""
        return not self.settings.explicit(name) and all(level.values.get(name) is None for level in chain)

    def _written(self, name: str, chain: list[_Level]) -> str:
        """A key with the place of the value in use, to begin a sentence with."""
        for level in chain:
            if level.values.get(name) is not None:
                return f"`{name}` {level.origins[name].phrase}"
        return self.settings.place(name)

    def _check_caching(self, values: dict[str, Any], chain: list[_Level]) -> None:
        """Cached latents are those of one and the same picture at every visit."""
        if not self.asked.cache_latents:
            return
        cached = self.settings.place("cache_latents_to_disk" if self.asked.cache_latents_to_disk else "cache_latents")
        for name, what in CHANGES_PIXELS.items():
            if values[name]:
                self.problems.append(
                    Problem(f"{self._written(name, chain)} {what} at every visit, which {cached} excludes; drop one.")
                )

    def _check_sizes(self, values: dict[str, Any], chain: list[_Level]) -> None:
        """Whether images can be brought to the sizes that are asked for."""
        resolution, step, low, high = (values[n] for n in ("resolution", "bucket_reso_steps", *LIMITS))
        wrong = []
        if min(resolution) < 64:
            wrong.append(("resolution", "is smaller than 64 pixels on a side"))
        if step % 8:
            wrong.append(("bucket_reso_steps", f"is {step}, but must be a multiple of 8"))
        if low > high:
            wrong.append(("min_bucket_reso", f"is {low}, more than `max_bucket_reso` ({high})"))
        elif values["enable_bucket"] and not values["bucket_no_upscale"]:
            limits = why_limits_cannot_work(resolution, low, high, step)
            wrong += [limits] if limits else []
        self.problems += [Problem(f"{self._written(name, chain)} {why}.") for name, why in wrong]

    def _without_doubles(self, subsets: list[SubsetSpec]) -> list[SubsetSpec]:
        """The same folder twice in one dataset: the later one is left out, as in sd-scripts."""
        kept: dict[tuple[Path, Path | None], SubsetSpec] = {}
        for subset in subsets:
            source = subset.image_dir, subset.metadata_file
            if source in kept:
                twice = subset.metadata_file or subset.image_dir
                self.warnings.append(f"{twice} is given twice in one dataset; the second one is not used.")
            kept.setdefault(source, subset)
        return list(kept.values())

    def _is_training_config(self, source: DatasetTables) -> bool:
        """Somebody gave the wrong one of two files: say so once, instead of once for each of its keys."""
        flat = [key for name, table in source.tables.items() for key in (table if isinstance(table, dict) else [name])]
        if "datasets" in source.tables or not any(key in self.settings.options for key in flat if key not in BY_NAME):
            return False
        found = f"{source.path.name} is a training config, not a dataset description; give it as `--config_file`."
        self.problems.append(Problem(f"{self.settings.place('dataset_config')}: {found}"))
        return True


def is_left_open(option: Option, raw: Any) -> bool:
    """Whether a key leaves the choice to the next level: an empty text does, except where it means "no text"."""
    return is_unset(option, raw) and not (raw == "" and option.type is str and not option.default)


def misplaced(name: str, title: str, allowed: frozenset[str]) -> str:
    """Why a key may not be in this table, and what to do."""
    if name in BY_NAME:
        places = zip((GENERAL, DATASET, SUBSET), (GENERAL_KEYS, DATASET_KEYS, SUBSET_KEYS), strict=True)
        return f"may not be in {title}, only in {' and '.join(place for place, keys in places if name in keys)}."
    elsewhere = names_elsewhere({key: BY_NAME[key].option for key in allowed})
    if name in OPTIONS and name not in elsewhere:
        return "is an option of the run; write it into the training config or on the command line."
    return f"is no key of {title}{did_you_mean(name, allowed, elsewhere)}"
