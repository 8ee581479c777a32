"""A TOML that LoRA_Easy_Training_Scripts has saved, as the training config that it stands for.

Its options stand in `[name.args]`, the keys of the dataset in `[name.dataset_args]`, the pictures in `[[subsets]]`;
arguments of the network and the optimizer are tables of their own below them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from library.config.toml_file import ConfigFile
from library.config.toml_lines import Keys

CALLED_OTHERWISE = {"warmup_ratio": "lr_warmup_steps", "shuffle_captions": "shuffle_caption"}
OF_ITS_OWN = ("name", "save_toml", "save_toml_location", "train_mode")
"""Keys that arrange the program itself."""


def is_from_easy_scripts(file: ConfigFile) -> bool:
    return any(isinstance(table, dict) and isinstance(table.get("args"), dict) for table in file.tables.values())


def as_training_config(file: ConfigFile) -> ConfigFile:
    """The same as options at the top and one dataset; every key keeps its line."""
    tables: dict[str, Any] = {}
    general: dict[str, Any] = {}
    lines: dict[Keys, int] = {}

    def put(into: dict[str, Any], where: Keys, place: Keys, key: str, value: Any) -> None:
        name = CALLED_OTHERWISE.get(key, key)
        into[name] = value
        if (*place, key) in file.lines:
            lines[*where, name] = file.lines[*place, key]

    for place, key, value in options_of(file, "args"):
        if isinstance(value, dict):
            value = [f"{name}={argument}" for name, argument in value.items()]
        put(tables, (), place, key, value)
    for place, key, value in options_of(file, "dataset_args"):
        put(general, ("datasets", 0), place, key, value)
    if not tables.get("network_module"):
        arguments = tables.get("network_args")
        algorithm = isinstance(arguments, list) and any(str(argument).startswith("algo=") for argument in arguments)
        tables["network_module"] = "lycoris.kohya" if algorithm else "networks.lora"
    subsets: list[dict[str, Any]] = []
    written = file.tables.get("subsets")
    for i, subset in enumerate(written if isinstance(written, list) else []):
        if not isinstance(subset, dict):
            continue
        subsets.append({})
        for key, value in subset.items():
            if key not in OF_ITS_OWN:
                put(subsets[-1], ("datasets", 0, "subsets", len(subsets) - 1), ("subsets", i), key, value)
    if subsets:
        tables["datasets"] = [{**general, "subsets": subsets}]
    return ConfigFile(file.path, tables, lines)


def options_of(file: ConfigFile, kind: str) -> Iterator[tuple[Keys, str, Any]]:
    """(place, key, value) of the tables of a kind, "args" or "dataset_args"."""
    for title, table in file.tables.items():
        if isinstance(table, dict) and isinstance(table.get(kind), dict):
            for key, value in table[kind].items():
                if key not in OF_ITS_OWN:
                    yield (title, kind), key, value
