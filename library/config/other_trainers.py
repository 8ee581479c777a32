"""Configs of other trainers, whose options have other names and meanings: told apart, and refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

from library.config.toml_file import ConfigFile, read_text
from library.errors import ConfigError

YAML = (".yaml", ".yml")
SIGNS = (
    ("OneTrainer", ("training_method", "base_model_name")),
    ("OneTrainer", ("training_method", "concept_file_name")),
    ("OneTrainer", ("training_method", "concepts")),
    ("SimpleTuner", ("data_backend_config",)),
    ("SimpleTuner", ("--data_backend_config",)),
    ("SimpleTuner", ("--model_type",)),
    ("SimpleTuner", ("model_family", "model_type")),
    ("ai-toolkit", ("config.process",)),
    ("diffusion-pipe", ("model.type", "dataset", "output_dir")),
)
"""(trainer, keys that all have to be there: at the top, as numbers or texts, or in a table)."""
ADVICE = (
    "its options have other names and meanings: start from one of configs/ (README.md says which is for what) and "
    "carry over the model, the folder of pictures, rank, learning rate and steps."
)


def refuse(file: ConfigFile) -> None:
    """Raise ConfigError for a config of another trainer."""
    for trainer, keys in SIGNS:
        if all(has(file, *key.split(".")) for key in keys) and "network_module" not in file.tables:
            line = file.origin(*keys[0].split(".")).line
            where = f" in line {line}" if line else ""
            raise ConfigError(f"{file.path.name} is a config of {trainer} (`{keys[0]}`{where}); {ADVICE}")


def has(file: ConfigFile, table: str, key: str = "") -> bool:
    """Tables of any names are read here, so a table at the top is no sign, but a key in it may be one."""
    value = file.tables.get(table)
    if key:
        return isinstance(value, dict) and key in value
    return table in file.tables and not isinstance(value, dict)


def refuse_yaml(path: Path) -> None:
    """Raise ConfigError: no config of this trainer is YAML. Whose it is, is found without reading all of it."""
    text = read_text(path)
    if all(re.search(rf"^[ \t-]*['\"]?{key}['\"]?[ \t]*:", text, re.MULTILINE) for key in ("job", "process")):
        raise ConfigError(f"{path.name} is a config of ai-toolkit (`job` and `process`); {ADVICE}")
    raise ConfigError(
        f"{path.name} is YAML, which no config of this trainer is: write the options as TOML (`name = value`)."
    )
