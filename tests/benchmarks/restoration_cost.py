"""What a person costs beside blind restoration, in one run: `python -m tests.benchmarks.restoration_cost --e FOLDER`.

A picture is restored blind and as a person in turns, on the mini model; E is evaluated once a step in both, so at w = 1
the ratio should be 1. The times are of this process' processor, so that neighbours on the machine count little.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from restoration.restoring.sampling import Sampling, restore
from restoration.system.load import load_restorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="miniworld/model")
    parser.add_argument("--e", default="miniworld/restorer", help="the restorer's ControlNet")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    system = load_restorer(arguments.model, arguments.e).system
    picture = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    person = system.text(["a photo of sks woman"])
    one = Sampling(steps=arguments.steps)
    ways = {"blind": replace(one, gamma=1.0), "w = 1": one, "w = 2": replace(one, guidance_scale=2.0)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(arguments.turns + 1):
        for name, sampling in ways.items():
            start = time.process_time()
            restore(system, picture, person, ["a.png"], sampling)
            if turn:  # the first turn warms up
                times[name].append(time.process_time() - start)
    for name, taken in times.items():
        ratio = np.median(taken) / np.median(times["blind"])
        print(f"{name}: {np.median(taken):.3f} s a picture, {ratio:.3f} times blind ({len(taken)} turns)")


if __name__ == "__main__":
    main()
