"""A TOML that LoRA_Easy_Training_Scripts has saved, as the training config that it stands for.

Its options are in `[name.args]`, the keys of the dataset in `[name.dataset_args]`, the pictures in `[[subsets]]`;
arguments of the network and the optimizer are tables of their own below them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from library.config.toml_file import ConfigFile
from library.config.toml_lines import Keys

CALLED_OTHERWISE = {"warmup_ratio": "lr_warmup_steps", "shuffle_captions": "shuffle_caption"}
OF_ITS_OWN = ("name", "save_toml", "save_toml_location", "train_mode")
"""Keys that arrange the program itself."""
PACKAGE = "LoraEasyCustomOptimizer"
OPTIMIZERS = {
    "compass": f"{PACKAGE}.compass.Compass",
    "lpfadamw": f"{PACKAGE}.lpfadamw.LPFAdamW",
    "rmsprop": f"{PACKAGE}.rmsprop.RMSProp",
}
"""Short names for classes of its own package; `Came` is known here by its name."""
SCHEDULES = {
    f"{PACKAGE}.RexAnnealingWarmRestarts.RexAnnealingWarmRestarts": "rex",
    f"{PACKAGE}.CosineAnnealingWarmRestarts.CosineAnnealingWarmRestarts": "cosine_annealing_warm_restarts",
}
"""Its own schedulers, which are schedules of this project."""
D_OF_REX = 0.9
"""Its default; the paper's is 0.5."""


def is_from_easy_scripts(file: ConfigFile) -> bool:
    return any(isinstance(table, dict) and isinstance(table.get("args"), dict) for table in file.tables.values())


def as_training_config(file: ConfigFile) -> ConfigFile:
    """The same as options at the top and one dataset; every key keeps its line."""
    tables: dict[str, Any] = {}
    general: dict[str, Any] = {}
    lines: dict[Keys, int] = {}

    def put(into: dict[str, Any], where: Keys, place: Keys, key: str, value: Any, name: str = "") -> None:
        name = name or CALLED_OTHERWISE.get(key, key)
        into[name] = value
        if (*place, key) in file.lines:
            lines[*where, name] = file.lines[*place, key]

    found = list(options_of(file, "args"))
    own = {key: value for _, key, value in found}
    schedule = SCHEDULES.get(str(own.get("lr_scheduler_type")))
    for place, key, value in found:
        if key == "lr_scheduler_type" and schedule:
            put(tables, (), place, key, schedule, "lr_scheduler")
        elif key == "fa" or (key == "lr_scheduler" and schedule):
            continue
        elif isinstance(value, dict):
            of_rex = {"d": D_OF_REX} if schedule == "rex" and key == "lr_scheduler_args" else {}
            put(tables, (), place, key, arguments_of(key, of_rex | value))
        elif key == "optimizer_type":
            put(tables, (), place, key, OPTIMIZERS.get(str(value).lower(), value))
        elif is_given(value):
            put(tables, (), place, key, value)
    if schedule == "rex":
        tables.setdefault("lr_scheduler_args", [f"d={D_OF_REX}"])
    for place, key, value in options_of(file, "dataset_args"):
        if is_given(value):
            put(general, ("datasets", 0), place, key, value)
    if not tables.get("network_module"):
        tables["network_module"] = network_module(own)
    subsets: list[dict[str, Any]] = []
    written = file.tables.get("subsets")
    for i, subset in enumerate(written if isinstance(written, list) else []):
        if not isinstance(subset, dict):
            continue
        subsets.append({})
        for key, value in subset.items():
            if key not in OF_ITS_OWN and is_given(value):
                put(subsets[-1], ("datasets", 0, "subsets", len(subsets) - 1), ("subsets", i), key, value)
    if subsets:
        tables["datasets"] = [{**general, "subsets": subsets}]
    return ConfigFile(file.path, tables, lines)


def network_module(options: Mapping[str, Any]) -> str:
    """The one that the program takes for what it calls an algorithm, a unit of DyLoRA and LoRA-FA."""
    given = options.get("network_args")
    arguments = given if isinstance(given, dict) else {}
    if "algo" in arguments:
        return "lycoris.kohya"
    if "unit" in arguments:
        return "networks.dylora"
    return "networks.lora_fa" if options.get("fa") else "networks.lora"


def arguments_of(option: str, given: Mapping[str, Any]) -> list[str]:
    """`name=value`: lists, which are one number for each block, joined by commas; words for yes and no in Python's."""
    arguments = []
    for name, value in given.items():
        if isinstance(value, list):
            value = ",".join(map(str, value))
        elif option == "optimizer_args" and value in ("true", "false"):
            value = value.capitalize()
        if name != "preset" or value != "":
            arguments.append(f"{name}={value}")
    return arguments


def is_given(value: Any) -> bool:
    """The program leaves out what is 0, false or empty."""
    return not (value in (0, "", False, "false", None) or value == [])


def options_of(file: ConfigFile, kind: str) -> Iterator[tuple[Keys, str, Any]]:
    """(place, key, value) of the tables of a kind, "args" or "dataset_args"."""
    for title, table in file.tables.items():
        if isinstance(table, dict) and isinstance(table.get(kind), dict):
            for key, value in table[kind].items():
                if key not in OF_ITS_OWN:
                    yield (title, kind), key, value
