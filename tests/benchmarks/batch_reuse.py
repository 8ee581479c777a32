"""What keeping the base model saves, and what a batch itself costs between jobs: python -m tests.benchmarks.batch_reuse

Trains one step of several jobs on a random Stable Diffusion 1 at half its width (or --model), in this process through
the driver. Every job alone would start a process, import what trains, and load the model: that is measured, too. All
times are CPU seconds of one thread, so that they hold on a machine that others use as well; reading a model from a disk
comes on top for a job alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
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
from tests.benchmarks.batch_world import ROOT, World


def timed(seconds: list[float], call: Callable[..., Any]) -> Callable[..., Any]:
    def measured(*words: Any, **named: Any) -> Any:
        begun = time.process_time()
        try:
            return call(*words, **named)
        finally:
            seconds.append(time.process_time() - begun)

    return measured


def of_a_process(program: str) -> float:
    """CPU seconds of a Python process that runs `program`."""
    before = os.times()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, env=environment, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


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
        begun = time.process_time()
        try:
            attempt(self, *words)
        finally:
            trained.append((begun, time.process_time()))

    training.TrainerHere._attempt = between  # type: ignore[method-assign]
    from train_batch import main as train_batch

    with tempfile.TemporaryDirectory() as name:
        model = arguments.model
        if model is None:
            from tests.benchmarks.medium_model import write

            model = Path(name, "medium")
            write(str(model))
        importing = "import library.training.build, library.training.loop"
        loading = f"from library.models.load import load_model; load_model({str(model)!r})"
        imports = of_a_process(importing)
        alone = of_a_process(f"{importing}; {loading}")
        world = World(Path(name), datasets=arguments.jobs, steps=1, model=model)
        assert train_batch(world.words(Path(name, "out"), "--engine", "inline", "--only", "*-lora-*")[2:]) == 0
    gaps = [after[0] - before[1] for before, after in pairwise(trained)]
    later = [load + check for load, check in zip(loads[1:], checks[1:], strict=False)]
    print(f"a process of its own: imports {imports:.2f} s, imports and load {alone:.2f} s")
    print(f"in the batch: loads {told(loads)}; checks after a job {told(checks)}")
    print(
        f"saved of what a further job would spend until its model is there: {100 * (1 - median(later) / alone):.1f} %"
    )
    print(f"from the end of one job's training to the beginning of the next: {told(gaps)}")


def told(seconds: list[float]) -> str:
    return ", ".join(f"{s:.2f}" for s in seconds) + " s"


if __name__ == "__main__":
    main()
