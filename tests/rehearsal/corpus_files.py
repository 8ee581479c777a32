"""What kind of config a file is, and the training commands that stand in a shell script."""

from __future__ import annotations

import argparse
import contextlib
import enum
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.config.option import by_name, with_aliases
from library.config.options.train_network import ALL_TRAIN_NETWORK

GOLDEN = Path(__file__).parents[1] / "golden" / "sd_scripts_options.json"
OPTIONS = with_aliases(by_name(ALL_TRAIN_NETWORK))
TRAINERS = {"train_network.py": [], "sdxl_train_network.py": ["--sdxl"]}
OTHER_MODELS = re.compile(r"flux|sd3|lumina|hunyuan|anima|chroma|wan|qwen|framepack|cascade", re.IGNORECASE)
KEYS_OF_OTHER_MODELS = ("clip_l", "t5xxl", "ae", "gemma2", "qwen3", "flux1_checkbox", "sd3_checkbox")
OTHER_TOML = {"project", "tool", "build-system", "default"}
VARIABLE = re.compile(r"\$\{?(\w+)(?::-([^}]*))?\}?")
ASSIGNMENT = re.compile(r"""\s*(?:export\s+|set\s+)?(\w+)=(["']?)([^"'`()]*?)\2\s*(?:#.*)?""")
END_OF_COMMAND = re.compile(r"&&?|\|\|?|;|\d?>+.*|\)|done|\$[@*]|\$\{\w+\[@\]\}")
PYTHON_FILE = re.compile(r"(.*[\\/])?[a-z0-9_]*train[a-z_]*\.py")


class Found(enum.Enum):
    """How a file is put through the trainer."""

    TRAINING = "training config"
    DATASET = "dataset description"
    PRESET = "GUI preset"
    SCRIPT = "script"


@dataclass(frozen=True)
class NotOurs:
    """What sd-scripts trains no network of a Stable Diffusion model with, and what it is instead."""

    kind: str
    why: str


def kind_of(file: Path) -> Found | NotOurs:
    if file.suffix in (".sh", ".bat"):
        return Found.SCRIPT
    content = file.read_bytes().decode("utf-8-sig", errors="replace")
    if file.suffix == ".json":
        return kind_of_json(content)
    try:
        tables = tomllib.loads(content.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError:
        return (
            Found.TRAINING if loads_in_sd_scripts(content) else NotOurs("broken TOML", "no TOML for sd-scripts either")
        )
    if OTHER_TOML & set(tables):
        return NotOurs("other TOML", "no config of a training")
    if isinstance(tables.get("datasets"), list) and not set(tables) - {"general", "datasets"}:
        return Found.DATASET
    return kind_of_training(tables)


def kind_of_training(tables: dict[str, Any]) -> Found | NotOurs:
    """`tables` are options, flat or in tables."""
    flat = dict(tables)
    for value in tables.values():
        inner = value if isinstance(value, dict) else {}
        flat |= inner | (inner["args"] if isinstance(inner.get("args"), dict) else {})
    if OTHER_MODELS.search(str(flat.get("network_module", ""))) or any(flat.get(key) for key in KEYS_OF_OTHER_MODELS):
        return NotOurs(Found.TRAINING.value, "for a model of another kind")
    if len(set(flat) & set(OPTIONS)) < 3:
        return NotOurs("other TOML", "no config of a training")
    if "network_module" not in flat and "network_dim" not in flat:
        return NotOurs(Found.TRAINING.value, "trains no network")
    for name in ("network_args", "optimizer_args"):
        if isinstance(flat.get(name), str) and len(flat[name].split()) == 1 and flat[name].count("=") > 1:
            return NotOurs("broken config", f"sd-scripts takes each letter of its {name} for an argument")
    return Found.TRAINING


def kind_of_json(content: str) -> Found | NotOurs:
    try:
        tables = json.loads(content)
    except json.JSONDecodeError:
        return NotOurs("broken JSON", "no JSON")
    if not isinstance(tables, dict):
        return NotOurs("other JSON", "no config of a training")
    if isinstance(tables.get("datasets"), list):
        return Found.DATASET
    if "LoRA_type" not in tables and "network_dim" not in tables:
        preset = "pretrained_model_name_or_path" in tables
        return NotOurs(Found.PRESET.value if preset else "other JSON", "trains no network")
    if OTHER_MODELS.search(str(tables.get("LoRA_type"))) or any(tables.get(key) for key in KEYS_OF_OTHER_MODELS):
        return NotOurs(Found.PRESET.value, "for a model of another kind")
    return Found.PRESET


def loads_in_sd_scripts(content: str) -> bool:
    """Whether the TOML parser of sd-scripts, which is another than ours, takes it."""
    import toml

    try:
        toml.loads(content)
    except (toml.TomlDecodeError, IndexError, ValueError):
        return False
    return True


def commands_of(file: Path) -> list[list[str] | NotOurs]:
    """The arguments of every training command of a script."""
    content = file.read_bytes().decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    lines = re.sub(r"[\\^]\s*\n", " ", content).split("\n")
    return [found for line in with_variables(lines) if (found := command_of(line)) is not None]


def with_variables(lines: list[str]) -> Iterator[str]:
    """The lines with the variables that are set above them to plain values; what stays unknown keeps its $."""
    known: dict[str, str] = {}
    for line in lines:
        filled = VARIABLE.sub(lambda found: known.get(found[1], found[0] if found[2] is None else found[2]), line)
        filled = re.sub(r"%(\w+)%", lambda found: known.get(found[1], found[0]), filled)
        if assigned := ASSIGNMENT.fullmatch(filled):
            known[assigned[1]] = assigned[3].strip()
        yield filled


def command_of(line: str) -> list[str] | NotOurs | None:
    """The arguments behind the trainer's name, up to what belongs to the shell; None if no trainer is started."""
    try:
        words = shlex.split(line, comments=True) if ".py" in line else []
    except ValueError:
        return NotOurs(Found.SCRIPT.value, "a text goes over several lines") if "train_network.py" in line else None
    place = next((place for place, word in enumerate(words) if PYTHON_FILE.fullmatch(word)), None)
    if place is None:
        return None
    name = re.split(r"[\\/]", words[place])[-1]
    if name not in TRAINERS:
        return NotOurs(Found.SCRIPT.value, f"starts {name}")
    behind = words[place + 1 :]
    end = next((place for place, word in enumerate(behind) if END_OF_COMMAND.fullmatch(word)), len(behind))
    if any("$" in word and "/" not in word for word in behind[:end]):
        return NotOurs(Found.SCRIPT.value, "its values are the shell's")
    if not parses_in_sd_scripts(behind[:end]):
        return NotOurs("broken script", "sd-scripts does not take its arguments either")
    return [*behind[:end], *TRAINERS[name]]


def parses_in_sd_scripts(argv: Sequence[str]) -> bool:
    """Whether an argparse parser with the options of sd-scripts takes the arguments."""
    parser = argparse.ArgumentParser()
    kinds = {"int": int, "float": float, "float*": float}
    for name, (kind, _, *choices) in json.loads(GOLDEN.read_text(encoding="utf-8"))["options"].items():
        if kind == "flag":
            parser.add_argument(f"--{name}", action="store_true")
            continue
        nargs = "*" if kind.endswith("*") else None
        read: Any = kinds.get(kind, str)
        parser.add_argument(
            f"--{name}", type=read, nargs=nargs, choices=[read(c) for c in choices[0]] if choices else None
        )
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_args(list(argv))
        except SystemExit:
            return False
    return True
