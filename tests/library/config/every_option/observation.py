"""What a run of the trainer leaves and says, in a form in which two runs can be compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open

TIMES = re.compile(r"\d{14}|\d+\.?\d* ?s\b|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+\.\d+ s per step")
TOLD = ("settings", "images", "time")  # events that say what was asked for, and how long it took
VOLATILE = ("time", "date", "hash", "session", "started", "finished")


@dataclass
class Observation:
    """Each field is a channel in which an option may show."""

    code: int
    said: list[str]
    weights: dict[str, str]  # file -> digest of its tensors
    log: list[dict[str, Any]]
    files: dict[str, str]  # everything under the run's folder; pictures with a digest
    metadata: dict[str, str]
    parts: dict[str, str]  # how the run was put together, where nothing that it computes may differ

    def changed(self, other: Observation) -> set[str]:
        """The channels in which the two differ."""
        return {field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)}


def observe(run: Callable[[], int], folder: Path, said: Callable[[], str], parts: dict[str, str]) -> Observation:
    """Run it in `folder` and look at what there is afterwards."""
    code = run()
    lines = TIMES.sub("#", said().replace(str(folder), "FOLDER")).splitlines()
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    networks = [file for file in found if file.suffix in (".safetensors", ".ckpt") and "-state" not in str(file.parent)]
    log = next(iter(sorted(folder.rglob("*-log.jsonl"))), None)
    return Observation(
        code=code,
        said=[line for line in lines if not line.startswith("steps")],
        weights={file.name: _tensors(file) for file in networks},
        log=[step for line in log.read_text(encoding="utf-8").splitlines() if (step := _step(line))] if log else [],
        files={TIMES.sub("#", str(file.relative_to(folder))): _content(file) for file in found},
        metadata=_metadata(networks[-1]) if networks and networks[-1].suffix == ".safetensors" else {},
        parts=dict(parts),
    )


def _step(line: str) -> dict[str, Any]:
    read = json.loads(line)
    return {} if read.get("event") in TOLD else {name: value for name, value in read.items() if name != "seconds"}


def _tensors(file: Path) -> str:
    if file.suffix != ".safetensors":
        return "another format"
    digest = hashlib.sha256()
    with safe_open(file, "pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.float().numpy().tobytes())
    return digest.hexdigest()


def _metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as tensors:
        found = tensors.metadata() or {}
    return {name: value for name, value in found.items() if not any(word in name for word in VOLATILE)}


def _content(file: Path) -> str:
    told = file.suffix in (".png", ".toml", ".txt") or file.name == "wandb.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if told else ""
