"""What keeping the base model saves, and what a batch itself costs between jobs: python -m tests.benchmarks.batch_reuse

Trains one step of several jobs on a random Stable Diffusion 1 at half its width (or --model), in this process through
the driver. Every job alone would start a process, import what trains, and load the model: that is measured in processes
of their own, the imports and the loading each for itself. A further job of a batch spends a copy of the modules, which
share the weights, and afterwards a checksum of the weights; both count against what is saved.

All times are CPU seconds of one thread, so that they hold on a machine that others use as well. A job alone would also
wait for the disk, which is not counted: the files are in the system's cache. In --mixed_precision no a file of float32
is mapped and not read while it is loaded; with bf16 or fp16 each weight is converted.
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
from library.batch.model_cache import ResidentModel
from tests.benchmarks.batch_world import ROOT, World


def timed(seconds: list[float], call: Callable[..., Any]) -> Callable[..., Any]:
    def measured(*words: Any, **named: Any) -> Any:
        begun = time.process_time()
        try:
            return call(*words, **named)
        finally:
            seconds.append(time.process_time() - begun)

    return measured


ALONE = """
import time
import library.training.setup.build, library.training.loop
from library.models.load import load_model
from library.training.runtime.mixed_precision import DTYPES
imported = time.process_time()
load_model({model!r}, dtype=DTYPES[{precision!r}])
print("CPU", imported, time.process_time() - imported)
"""


def alone(model: Path, precision: str) -> tuple[float, float]:
    """CPU seconds that a process of its own spends on imports, and on loading."""
    program = ALONE.format(model=str(model), precision=precision)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, env=environment, capture_output=True, text=True
    )
    imports, loading = next(line.split()[1:] for line in ended.stdout.splitlines() if line.startswith("CPU"))
    return float(imports), float(loading)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no")
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
        found = [alone(model, arguments.mixed_precision) for _ in range(3)]
        imports, loading = (median(times) for times in zip(*found, strict=True))
        world = World(Path(name), datasets=arguments.jobs, steps=1, model=model)
        words = ["--engine", "inline", "--only", "*-lora-*", "--mixed_precision", arguments.mixed_precision]
        assert train_batch(world.words(Path(name, "out"), *words)[2:]) == 0
    gaps = [after[0] - before[1] for before, after in pairwise(trained)]
    later = [load + check for load, check in zip(loads[1:], checks[1:], strict=False)]
    spent = median(later)
    print(f"a process of its own: imports {imports:.2f} s, loading {loading:.2f} s")
    print(f"in the batch: loads {told(loads)}; checks after a job {told(checks)}; both {spent:.2f} s for a further job")
    print(f"saved of imports and loading: {100 * (1 - spent / (imports + loading)):.1f} %")
    print(f"saved of loading alone: {100 * (1 - spent / loading):.1f} %")
    print(f"from the end of one job's training to the beginning of the next: {told(gaps)}")


def told(seconds: list[float]) -> str:
    return ", ".join(f"{s:.2f}" for s in seconds) + " s"


if __name__ == "__main__":
    main()
