"""Where the networks lie: by path in a TOML file, or in the local Hugging Face cache. Nothing is ever downloaded.

```
[weights]
clip = "models/clip-vit-base-patch32"
inception = "models/pt_inception-2015-12-05-6726825d.pth"

[features.mine]                     # a feature network of one's own: metrics mine, kid_mine and fid_mine
module = "my_package.features"      # a Python module with a function feature_network(path)
weights = "models/mine.safetensors"
```
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.suggest import did_you_mean, missing
from library.config.toml_file import ConfigFile, read_toml
from library.errors import ConfigError, Problem, raise_all
from library.formatting import aligned
from library.metrics.catalogue import METRICS, PAPER_TABLE, SOURCES, Metric, Source


@dataclass(frozen=True)
class OwnNetwork:
    """A feature network that is found by name: `module` has a function `feature_network(weights)`."""

    module: str
    weights: Path


@dataclass
class Weights:
    """Every path that was written, and the networks of one's own. Both by name."""

    paths: dict[str, Path] = field(default_factory=dict)
    own: dict[str, OwnNetwork] = field(default_factory=dict)

    def find(self, name: str) -> Path | None:
        """The file or folder of these weights: as written, else where this machine has it; None if nowhere."""
        if name in self.own:
            return self.own[name].weights
        if name in self.paths:
            return self.paths[name]
        if name == "lpips_heads" and (heads := _in_torchmetrics()):
            return heads
        return in_hub_cache(SOURCES[name])


def read_weights(path: Path | None) -> Weights:
    """The weights file. Raises ConfigError with all that is wrong in it; an unknown name is wrong."""
    if path is None:
        return Weights()
    file, weights, problems = read_toml(path), Weights(), list[Problem]()
    for table, content in file.tables.items():
        if table == "weights" and isinstance(content, dict):
            for name, value in content.items():
                _take_path(file, name, value, weights, problems)
        elif table == "features" and isinstance(content, dict):
            for name, keys in content.items():
                _take_network(file, name, keys, weights, problems)
        else:
            problems.append(Problem(f"`{table}` {file.origin(table).phrase} is no table of a weights file; {TABLES}"))
    raise_all(problems, ConfigError)
    return weights


TABLES = "there are [weights] and [features.NAME]"


def _take_path(file: ConfigFile, name: str, value: Any, weights: Weights, problems: list[Problem]) -> None:
    where = file.origin("weights", name).phrase
    if name not in SOURCES:
        end = f"; there are {', '.join(SOURCES)}"
        problems.append(Problem(f"`{name}` {where} is not a name of weights{did_you_mean(name, SOURCES, end=end)}"))
    elif problem := wrong_path(value, folder=SOURCES[name].is_folder):
        problems.append(Problem(f"`{name}` {where}: {problem}"))
    else:
        weights.paths[name] = Path(value).expanduser()


def _take_network(file: ConfigFile, name: str, keys: Any, weights: Weights, problems: list[Problem]) -> None:
    where = file.origin("features", name).phrase
    taken = {*METRICS, *PAPER_TABLE, *SOURCES}
    if not isinstance(keys, dict) or keys.keys() != {"module", "weights"} or not isinstance(keys["module"], str):
        problems.append(Problem(f"[features.{name}] {where} must have the keys `module` and `weights`, and no others"))
    elif taken & {name, f"kid_{name}", f"fid_{name}"}:
        problems.append(Problem(f"[features.{name}] {where} has the name of a metric or of weights; choose another"))
    elif problem := wrong_path(keys["weights"], folder=False):
        problems.append(Problem(f"`weights` of [features.{name}] {where}: {problem}"))
    else:
        weights.own[name] = OwnNetwork(keys["module"], Path(keys["weights"]).expanduser())


def wrong_path(value: Any, *, folder: bool) -> str | None:
    """Why this cannot be the path of weights, or None."""
    if not isinstance(value, str) or not value:
        return f"a path is needed, not {value!r}"
    path = Path(value).expanduser()
    if not path.exists():
        return missing(path)
    if folder and not (path / "config.json").is_file():
        return f"{path} must be a folder with config.json and the weights, as on the Hugging Face Hub"
    if not folder and not path.is_file():
        return f"{path} is a folder; a file is needed"
    return None


def not_there(metric: Metric, weights: Weights) -> str | None:
    """The line that says why a metric's networks are missing and how to get them, or None if all are there."""
    absent = [name for name in metric.needs if weights.find(name) is None]
    if not absent:
        return None
    gets = " and ".join(f"download {SOURCES[name].url} and set weights.{name}" for name in absent)
    return f"because {' and '.join(SOURCES[name].what for name in absent)} are missing; to get it, {gets}"


def in_hub_cache(source: Source) -> Path | None:
    """The local copy that the Hugging Face cache has of these weights."""
    if not source.hub:
        return None
    from huggingface_hub import try_to_load_from_cache

    for repository in source.hub:
        found = try_to_load_from_cache(repository, source.file or "config.json")
        if isinstance(found, str):
            path = Path(found) if source.file else Path(found).parent
            if source.file or has_weights(path):
                return path
    return None


def has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _in_torchmetrics() -> Path | None:
    """The heads of LPIPS that the wheel of torchmetrics carries, where it is installed; it is not run."""
    spec = importlib.util.find_spec("torchmetrics")
    for place in (spec.submodule_search_locations or []) if spec else []:
        heads = Path(place, "functional", "image", "lpips_models", "alex.pth")
        if heads.is_file():
            return heads
    return None


def all_metrics(weights: Weights, *, paper_table: bool = False) -> Mapping[str, Metric]:
    """Everything that can be asked for, by name."""
    from library.metrics.catalogue import metrics_of

    own = {metric.name: metric for name in weights.own for metric in metrics_of(name)}
    return {**METRICS, **own, **(PAPER_TABLE if paper_table else {})}


def list_networks(weights: Weights) -> str:
    """A line for each network: where it is, or where it is to be had."""
    rows = []
    for name, source in SOURCES.items():
        path = weights.find(name)
        rows.append([name, "found" if path else "missing", str(path) if path else source.url])
    rows += [[name, "found", str(network.weights)] for name, network in weights.own.items()]
    found = sum(row[1] == "found" for row in rows)
    how = "set paths in a TOML file, [weights] name = path, and give it as --weights"
    return f"{aligned(rows)}\n\n{found} of {len(rows)} networks are here; for the others, download and {how}"
