"""Finished arms of a proof, kept one JSON object a line: a second call goes on where the first stopped.

An arm says which weights of the mini model it was made with; with other weights it is measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from library.files import file_hash
from library.training.saving.lock import OutputLock

UNET = Path(__file__).parents[1] / "model" / "unet" / "diffusion_pytorch_model.safetensors"
Key = Mapping[str, Any]
"""The settings of an arm: what tells it from every other."""


class Results:
    """The lines of one file that were made with these weights.

    A line cut short by a kill is left out, and its arm is made again.
    """

    def __init__(self, path: Path, weights: Sequence[Path] = (UNET,)) -> None:
        self.path = path
        self.weights = " ".join(file_hash(file)[:8] for file in weights)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        arms: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]
        self.arms = [arm for arm in arms if arm.get("weights") == self.weights]

    def signed(self, table: str) -> str:
        """The table of these arms, and below it which weights they were made with."""
        return f"{table.strip()}\n\nWeights of the mini model (sha256): {self.weights}.\n"

    def find(self, key: Key) -> dict[str, Any] | None:
        return next((arm for arm in self.arms if all(arm.get(name) == value for name, value in key.items())), None)

    def add(self, key: Key, measured: Mapping[str, Any]) -> None:
        self.arms.append({**key, **measured, "weights": self.weights})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        begin = "\n" if before and not before.endswith("\n") else ""  # after a line that a kill cut short
        with self.path.open("a", encoding="utf-8") as file:
            file.write(begin + json.dumps(self.arms[-1]) + "\n")
        print(json.dumps(self.arms[-1]), flush=True)


def measure_what_is_missing(
    results: Results, keys: Iterable[Key], measure: Callable[[Any], Mapping[str, Any]], minutes: float | None = None
) -> None:
    """Measure the arms that are not among the results, in their order; begin none after `minutes`."""
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    missing = [key for key in keys if results.find(key) is None]
    if not missing or minutes == 0:
        return
    with OutputLock(results.path.parent, results.path.stem):  # two processes would measure the same arms
        for key in missing:
            if time.monotonic() >= end:
                return
            results.add(key, measure(key))


def add_options(parser: argparse.ArgumentParser, output: Path) -> None:
    """What every proof that is made of arms can be told."""
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds; one of everything first, then the next")
    parser.add_argument("--minutes", type=float, help="begin no arm after this time")
    parser.add_argument("--output", type=Path, default=output, help="where results, table and pictures go")
