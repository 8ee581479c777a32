"""What can be seen of a file of weights without a program that loads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from library.streamed_weights import open_weights

WEIGHTS = ("lora_up", "lora_down", "lora_mid", "lora_A", "lora_B", "hada_", "lokr_", "oft_", "dora_scale")


def tensor_lines(path: Path, *, every: bool = False) -> Iterator[str]:
    """How many weights there are, and a line for each as kohya's command prints it: name,(shape),mean,least.

    Mean and least are of the absolute values. Values that are not finite are counted at the end of their line. `every`
    adds what is no network weight.
    """
    file = open_weights(path)
    weights = [name for name in file.outline if any(mark in name for mark in WEIGHTS)]
    yield f"number of LoRA modules: {len(weights)}"
    if every:
        weights += [name for name in file.outline if name not in set(weights)]
        yield f"number of all modules: {len(weights)}"
    read = file.reader()
    for name in weights:
        values = read(name).float().abs()
        shape = str(tuple(values.shape)).replace(", ", "-")
        wrong = int((~values.isfinite()).sum())
        least = float(values.min()) if values.numel() else float("nan")
        yield f"{name},{shape},{float(values.mean())},{least}" + (f",{wrong} not finite" if wrong else "")


def unpacked(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata with entries that are JSON objects or lists as what they hold."""
    return {name: _unpacked(text) for name, text in metadata.items()}


def _unpacked(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
