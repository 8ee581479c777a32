"""What keeping the base model saves, and what a batch itself costs between jobs: python -m tests.benchmarks.batch_reuse

Trains one step of several jobs on a random Stable Diffusion 1 at half its width (or --model), in this process through
the driver, and prints the seconds of every load, of the checks after each job, and between one job's end and the next
one's beginning. The first load of a fresh process, imports included, is what every job alone would pay.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from library.batch import training
from library.batch.resident import ResidentModel
from tests.benchmarks.batch_world import World


def timed(seconds: list[float], call: Callable[..., Any]) -> Callable[..., Any]:
    def measured(*words: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*words, **named)
        finally:
            seconds.append(time.perf_counter() - begun)

    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--jobs", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loads: list[float] = []
    checks: list[float] = []
    trained: list[tuple[float, float]] = []
    ResidentModel.load = timed(loads, ResidentModel.load)
    ResidentModel.check = timed(checks, ResidentModel.check)
    attempt = training.TrainerHere._attempt

    def between(self: Any, *words: Any) -> None:
        begun = time.perf_counter()
        try:
            attempt(self, *words)
        finally:
            trained.append((begun, time.perf_counter()))

    training.TrainerHere._attempt = between  # type: ignore[method-assign]
    from train_batch import main as train_batch

    with tempfile.TemporaryDirectory() as name:
        model = arguments.model
        if model is None:
            from tests.benchmarks.medium_model import write

            model = Path(name, "medium")
            write(str(model))
        world = World(Path(name), datasets=arguments.jobs, steps=1, model=model)
        words = world.words(Path(name, "out"), "--engine", "inline", "--only", "*-lora-*")[2:]
        assert train_batch(words) == 0
    gaps = [after[0] - before[1] for before, after in pairwise(trained)]
    first, later = loads[0], [load + check for load, check in zip(loads[1:], checks[1:], strict=False)]
    print(f"loads: {', '.join(f'{s:.2f}' for s in loads)} s; checks: {', '.join(f'{s:.2f}' for s in checks)} s")
    print(f"saved of each further load: {100 * (1 - median(later) / first):.1f} %")
    print(f"from the end of one job to the beginning of the next: {', '.join(f'{s:.2f}' for s in gaps)} s")


if __name__ == "__main__":
    main()
