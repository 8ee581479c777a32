"""A training config: the tables of a TOML file, flattened, and what is in them that nobody reads.

The names of tables mean nothing, as in sd-scripts: `[network_arguments] network_dim = 8` is `network_dim = 8`; but an
option may say that it has a shorter name inside one table. One level of tables is read. [[datasets]] with its [general]
is a dataset description and keeps its shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.bounded_text import shortened
from library.config import easy_scripts, gui_preset, other_trainers
from library.config.command_line import read_command_line
from library.config.dataset_keys import GENERAL_KEYS
from library.config.option import DatasetTables, Option, Origin, Written, by_table, names_elsewhere
from library.config.suggest import did_you_mean
from library.config.toml_file import ConfigFile, read_json, read_toml
from library.errors import Problem

MOST_GUESSES, MOST_UNKNOWN = 50, 100
"""Of keys that are no options: for how many the nearest option is looked for, and how many are named."""
ONLY_ON_THE_COMMAND_LINE = ("config_file", "output_config")


@dataclass
class FileContent:
    """What a config file says."""

    written: list[Written] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)  # key -> a sentence about it
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    dataset_tables: DatasetTables | None = None


def config_path(name: Path) -> Path:
    """The file that `--config_file` names; the ending may be left out. A .json is a preset of the kohya_ss GUI."""
    return name if name.suffix in (".toml", ".json", *other_trainers.YAML) else name.with_name(name.name + ".toml")


def read_config_file(path: Path, options: Mapping[str, Option], asked: Mapping[str, Any] | None = None) -> FileContent:
    """Read a training config. `options` holds the accepted names, old spellings too.

    `asked` are the values on the command line, for a program's config that says less than it means without them.
    """
    if path.suffix in other_trainers.YAML:
        other_trainers.refuse_yaml(path)
    file = read_json(path) if path.suffix == ".json" else read_toml(path)
    other_trainers.refuse(file)
    if gui_preset.is_from_the_gui(file):
        return from_preset(gui_preset.as_training_config(file, asked or {}), file, options)
    if easy_scripts.is_from_easy_scripts(file):
        file = easy_scripts.as_training_config(file)
    return from_tables(file, options)


def from_preset(preset: gui_preset.Preset, file: ConfigFile, options: Mapping[str, Option]) -> FileContent:
    """What is in a preset of the GUI, and after it what it puts on the command line itself."""
    result = from_tables(preset.config, options)
    if result.unknown:
        names = shortened(", ".join(f"`{key}`" for key in result.unknown))
        sentence = f"{names} in {file.path.name}: neither options nor fields of the kohya_ss GUI, so passed over."
        result.unknown = {next(iter(result.unknown)): sentence}
    words = read_command_line(preset.words, options, file.origin("additional_parameters"))
    result.written += words.written
    result.problems += words.problems
    result.warnings += [*preset.notes, *words.warnings]
    return result


def from_tables(file: ConfigFile, options: Mapping[str, Option]) -> FileContent:
    """Keys as written values."""
    result = FileContent()
    if isinstance(file.tables.get("datasets"), list) and "dataset_config" in options:
        result.dataset_tables = take_dataset_tables(file)
    seen: dict[str, Origin] = {}
    inside = by_table(options)
    for table, key, raw, origin in flatten(file, result):
        option = inside.get((table, key)) or options.get(key)
        if option is None:
            guess = "."
            if len(result.unknown) < MOST_GUESSES:
                near = [*options, *(name for place, name in inside if place == table)]
                guess = did_you_mean(shortened(key), near, names_elsewhere(options))
            result.unknown[key] = f"`{shortened(key)}` {origin.phrase} is not an option{guess}"
        elif option.name in ONLY_ON_THE_COMMAND_LINE:
            result.warnings.append(f"`{key}` {origin.phrase} is not read; it belongs on the command line.")
        else:
            if option.name in seen:
                first = seen[option.name].phrase
                result.warnings.append(f"`{key}` is written {first} and again {origin.phrase}; the later one is used.")
            seen[option.name] = origin
            result.written.append(Written(option, raw, origin))
    if len(result.unknown) > MOST_UNKNOWN:
        *others, last = result.unknown
        for key in others[MOST_UNKNOWN - 1 :]:
            del result.unknown[key]
        result.unknown[last] = (
            f"{len(others) - MOST_UNKNOWN + 2} further keys in {file.path.name} are no options either."
        )
    return result


def take_dataset_tables(file: ConfigFile) -> DatasetTables:
    """Remove the dataset description from the file's tables; keys of [general] that it does not have stay behind."""
    tables: dict[str, Any] = {"datasets": file.tables.pop("datasets")}
    general = file.tables.get("general")
    if isinstance(general, dict):
        tables["general"] = {key: general.pop(key) for key in list(general) if key in GENERAL_KEYS}
    return DatasetTables(tables, file.origin, file.path)


def flatten(file: ConfigFile, result: FileContent) -> Iterator[tuple[str, str, Any, Origin]]:
    """Table ("" is the top level), key and value; tables deeper than one level are named as unknown."""
    for name, value in file.tables.items():
        if not is_table(value):
            yield "", name, value, file.origin(name)
            continue
        for key, inner in value.items() if isinstance(value, dict) else ():
            if is_table(inner):
                result.unknown[f"{name}.{key}"] = too_deep(f"{name}.{key}", file.origin(name, key))
            else:
                yield name, key, inner, file.origin(name, key)
        if isinstance(value, list):
            result.unknown[name] = too_deep(name, file.origin(name, 0))


def is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def too_deep(name: str, origin: Origin) -> str:
    return f"table [{name}] {origin.phrase} is not read: options are at the top or in tables of one level."
