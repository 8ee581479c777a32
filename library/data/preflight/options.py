"""The options of `python -m library.data.preflight`: a dataset, and any option of train_network.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from library.config.config_file import config_path
from library.config.dataset_specs import DatasetPlan
from library.config.datasets import plan_datasets
from library.config.help_text import help_text
from library.config.image_folders import count_images, parse_folder_name
from library.config.option import DatasetTables, Group, Option, Origin, Settings
from library.config.options.captions import CAPTIONS
from library.config.options.dataset import DATASET
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.options.validation import VALIDATION
from library.config.parse import parse
from library.config.suggest import missing
from library.config.toml_file import read_json, read_toml
from library.console import show
from library.data.preflight.findings import Finding
from library.errors import ConfigError

PROG = "python -m library.data.preflight"
RESOLUTION = 512
PREFLIGHT = Group(
    "What is written",
    (
        Option("json", Path, None, "write everything that was found into this file"),
        Option("html", Path, None, "write a page of it"),
        Option("processes", int, os.cpu_count() or 1, "processes that decode images", minimum=1),
    ),
)


@dataclass(frozen=True)
class PreflightTarget:
    """What is to be looked at, and what was found on the way to it."""

    settings: Settings
    plan: DatasetPlan
    already: list[Finding]
    assumed: list[str]


def read_target(argv: Sequence[str]) -> PreflightTarget:
    """The dataset that the command line names. `--help` prints, and raises SystemExit(0). Raises UserError."""
    if not argv or {"-h", "--help"} & set(argv):
        show(help_text((PREFLIGHT, DATASET, CAPTIONS, VALIDATION), f"{PROG} DATASET", str(ABOUT)))
        raise SystemExit(0)
    words, name = list(argv), None
    if not words[0].startswith("-"):
        name = Path(words.pop(0))
        words = [*dataset_words(name), *words]
    settings = parse(words, *ALL_TRAIN_NETWORK, PREFLIGHT, prog=PROG, description=str(ABOUT))
    for option in ("json", "html"):
        if settings[option] is not None and settings[option].suffix.lower() != f".{option}":
            raise ConfigError(f"`--{option} {settings[option]}`: give a name that ends in .{option}")
    already, assumed = [], []
    if name is not None and name.is_dir():
        already = about_folder(name, settings)
        if settings["resolution"] is None:
            settings.values["resolution"] = (RESOLUTION, RESOLUTION)
            assumed.append(f"no `resolution` is given: {RESOLUTION} is assumed")
    return PreflightTarget(settings, plan_datasets(settings), already, assumed)


ABOUT = (
    "Look at a dataset before it is trained on. DATASET is a folder of REPEATS_CLASS folders, a folder of pictures, a "
    "dataset description, or a training config. Nothing is changed. Exit code: 0 if nothing was found, 1 if there are "
    "problems, 2 if the dataset could not be looked at. Any other option of train_network.py may be given, too."
)


def dataset_words(name: Path) -> list[str]:
    """The options that stand for a dataset on the command line. Raises ConfigError."""
    if name.is_dir():
        return [f"--train_data_dir={name}"]
    file = name if name.is_file() else config_path(name)
    if not file.is_file():
        raise ConfigError(missing(name))
    tables = (read_json(file) if file.suffix.lower() == ".json" else read_toml(file)).tables
    is_description = isinstance(tables.get("datasets"), list) and set(tables) <= {"general", "datasets"}
    return [f"--dataset_config={file}" if is_description else f"--config_file={file}"]


def about_folder(folder: Path, settings: Settings) -> list[Finding]:
    """Pictures of a folder that a run would pass over. A folder of nothing but pictures is taken as a subset."""
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    used = [entry for entry in inner if (parse_folder_name(entry.name) or (0, ""))[0] > 0]
    loose = count_images(folder)
    if loose and not used:
        subset = {"image_dir": str(folder), "num_repeats": 1}
        tables = {"datasets": [{"subsets": [subset]}]}
        settings.dataset_tables = DatasetTables(tables, lambda *keys: Origin("file", folder), folder)
        settings.values["train_data_dir"] = None
        message = "holds its pictures itself: name it as `image_dir`, or move them into a folder such as 10_person"
        return [Finding("plain folder", str(folder), message)]
    found = [
        Finding("no repeats", str(entry), "is not used: its name does not begin with a number of repeats, as 10_person")
        for entry in inner
        if entry not in used and count_images(entry)
    ]
    if loose:
        message = f"{loose} pictures lie in it beside its folders and are not used; move them into one of these"
        found.append(Finding("no repeats", str(folder), message))
    return found
