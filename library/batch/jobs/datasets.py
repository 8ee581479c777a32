"""The datasets of a batch: folders of pictures and dataset descriptions, found by their names, and what they hold."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.config.image_folders import (
    concept_folders,
    count_images,
    parse_folder_name,
    what_else_is_there,
    why_not_a_folder,
)
from library.config.option import DatasetTables, Origin
from library.config.suggest import missing
from library.errors import Problem

DESCRIPTIONS = (".toml", ".json")


@dataclass(frozen=True)
class DatasetSource:
    """Pictures to train on: a folder with REPEATS_CLASS folders, a folder of pictures itself, or a description.

    `tables` is what stands for a folder of pictures itself; the others are options of the training.
    """

    name: str
    path: Path
    tables: DatasetTables | None = None

    @property
    def options(self) -> dict[str, str]:
        if self.tables is not None:
            return {}
        return {"dataset_config" if self.is_description else "train_data_dir": str(self.path)}

    @property
    def is_description(self) -> bool:
        return self.path.suffix in DESCRIPTIONS


def find_datasets(patterns: Sequence[str], place: str, problems: list[Problem]) -> list[DatasetSource]:
    """The datasets that the patterns name, in the order of the patterns, those of one pattern by name.

    `place` begins the sentence about a pattern that finds nothing, and about a folder without pictures: a batch without
    it would be found out in the morning.
    """
    found: dict[Path, DatasetSource] = {}
    empty: dict[Path, str] = {}
    for pattern in patterns:
        paths = sorted(map(Path, glob.glob(os.path.expanduser(pattern), recursive=True)))
        sources = {path: dataset_at(path) for path in paths}
        if not any(sources.values()) and not any(map(is_meant_as_dataset, paths)):
            problems.append(Problem(f"{place} names {pattern!r}: {_why_nothing(pattern, paths)}"))
        for path, source in sources.items():
            if source is not None:
                found.setdefault(source.path, source)
            elif is_meant_as_dataset(path) and path not in empty:
                empty[path] = f"{place} names {pattern!r}, and {why_no_dataset(path)}"
    problems += map(Problem, empty.values())
    by_name: dict[str, DatasetSource] = {}
    for source in found.values():
        other = by_name.setdefault(source.name.casefold(), source)
        if other is not source:
            both = f"{other.path} and {source.path}"
            problems.append(Problem(f"{both} are both called {source.name!r}; rename one of them."))
    return list(by_name.values())


def dataset_at(path: Path) -> DatasetSource | None:
    """The dataset of a path; None where there is nothing to train on."""
    path = Path(os.path.abspath(path))
    if path.is_file():
        return DatasetSource(path.stem, path) if path.suffix in DESCRIPTIONS else None
    if not is_meant_as_dataset(path) or why_not_a_folder(path):
        return None
    if concept_folders(path, []):
        return DatasetSource(path.name, path)
    if count_images(path):
        return _folder_of_pictures(path)
    return None


def is_meant_as_dataset(path: Path) -> bool:
    """Whether a folder that a pattern finds is one of pictures, or should be; files beside it may be anything."""
    return path.is_dir() and not path.name.startswith(".")


def why_no_dataset(folder: Path) -> str:
    """What is wrong with a folder that no job can train on, and what to do."""
    if why := why_not_a_folder(folder):
        return why
    inside = what_else_is_there(folder).removeprefix(f"{folder}: ")
    return (
        f"{folder} has neither pictures nor folders of pictures such as 10_person ({inside.removesuffix('.')}); "
        "put some there, move it away, or name the folders that are meant."
    )


def _folder_of_pictures(path: Path) -> DatasetSource:
    """A folder that holds the pictures itself; a name such as 10_person still says how often each is seen."""
    repeats, name = parse_folder_name(path.name) or (None, path.name)
    subset: dict[str, Any] = {"image_dir": str(path)}
    if repeats is not None:
        subset |= {"num_repeats": repeats, "class_tokens": name}
    return DatasetSource(name, path, described([{"subsets": [subset]}], path))


def described(datasets: Iterable[dict[str, Any]], path: Path) -> DatasetTables:
    """[[datasets]] that are in no file: their values are known by the folder."""

    def origin_of(*keys: str | int) -> Origin:
        return Origin("file", path)

    return DatasetTables({"datasets": list(datasets)}, origin_of, path)


def _why_nothing(pattern: str, paths: Sequence[Path]) -> str:
    if paths:
        return f"{paths[0]} is neither a folder of pictures nor a dataset description ({', '.join(DESCRIPTIONS)})."
    return "nothing there is called so." if glob.has_magic(pattern) else missing(Path(pattern))
