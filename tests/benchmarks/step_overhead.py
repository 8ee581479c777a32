"""What the loop costs beside the bare U-Net: python -m tests.benchmarks.step_overhead [--steps 20] [--rounds 5]

The peer is a loop that does only the U-Net's forward, the backward and the optimizer's step, with the same network
applied, on the same cached latents and embeddings. Both run in one process on one thread, in turn; the medians of the
rounds and their ratio are printed. Peak memory is taken from one process for each.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "quickstart.toml"


class Turns:
    """Stands in for a run's batches: hands out `steps` of them, times the loop that takes them, then runs the peer."""

    def __init__(self, run: Any, steps: int, rounds: int, only: str | None) -> None:
        self.run, self.steps, self.rounds, self.only = run, steps, rounds, only
        self.batches = run.batches
        self.ours: list[float] = []
        self.bare: list[float] = []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        stored = list(self.batches.epoch(1))
        warm = stored[0]
        yield warm  # both sides have run once before anything is timed
        self.bare_steps([warm])
        for _ in range(self.rounds):
            chosen = (stored * (self.steps // len(stored) + 1))[: self.steps]
            if self.only != "bare":
                before = time.perf_counter()
                yield from self.fresh(chosen)
                self.ours.append((time.perf_counter() - before) / self.steps)
            if self.only != "ours":
                before = time.perf_counter()
                self.bare_steps(chosen)
                self.bare.append((time.perf_counter() - before) / self.steps)
        self.run.clock.total_steps = self.run.clock.global_step
        return

    def fresh(self, chosen: list[Any]) -> Iterator[Any]:
        """Batches as the run makes them, assembled anew for every step: that is part of what the loop costs."""
        served = 0
        while served < len(chosen):
            for micro_batches in self.batches.epoch(2):
                yield micro_batches
                served += 1
                if served == len(chosen):
                    return

    def bare_steps(self, chosen: list[Any]) -> None:
        import torch

        model, optimizer = self.run.objective._model, self.run.optimizers.optimizer
        generator = torch.Generator().manual_seed(0)
        for (batch,) in chosen:
            noise = torch.randn(batch.latents.shape, generator=generator)
            timesteps = torch.randint(0, 1000, (len(batch),), generator=generator)
            prediction = model.unet(batch.latents, timesteps, batch.hidden.hidden).sample
            torch.nn.functional.mse_loss(prediction, noise).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def measure(steps: int, rounds: int, only: str | None) -> Turns:
    import torch

    torch.set_num_threads(1)
    from library.config.datasets import plan_datasets
    from library.config.options.train_network import ALL_TRAIN_NETWORK
    from library.config.parse import parse
    from library.training.loop import fit
    from library.training.setup.build import build_run
    from library.training.setup.checks import check_before_loading

    with tempfile.TemporaryDirectory() as output:
        argv = ["--config_file", str(CONFIG), "--output_dir", output, "--max_train_epochs", "999"]
        argv += ["--network_module", "networks.lora", "--network_args"]  # the peer's steps make no RESTART
        argv += ["--sample_prompts", "", "--no-sample_at_first", "--sample_every_n_epochs", "0"]
        argv += ["--lr_scheduler", "constant", "--lr_warmup_steps", "0"]
        settings = parse(argv, *ALL_TRAIN_NETWORK, prog="step_overhead", description="")
        run = build_run(check_before_loading(settings, plan_datasets(settings)))
        turns: Any = Turns(run, steps, rounds, only)
        run.batches = turns
        fit(run)
    return turns


def peak_memory(only: str, steps: int) -> float:
    """Peak resident memory in MiB of a process that runs one side alone."""
    words = [
        sys.executable,
        "-m",
        "tests.benchmarks.step_overhead",
        "--only",
        only,
        "--steps",
        str(steps),
        "--rounds",
        "1",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("ours", "bare"))
    arguments = parser.parse_args()
    turns = measure(arguments.steps, arguments.rounds, arguments.only)
    if arguments.only:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    ours, bare = statistics.median(turns.ours), statistics.median(turns.bare)
    pairs = [a / b for a, b in zip(turns.ours, turns.bare, strict=True)]
    print(
        f"seconds per step, median of {arguments.rounds} rounds of {arguments.steps} steps in turn, one thread, batch 4"
    )
    print(
        f"  this trainer  {ours:.4f}\n  bare PyTorch  {bare:.4f}\n  ratio         {statistics.median(pairs):.3f}",
        end="",
    )
    print(f"   (rounds: {', '.join(f'{pair:.3f}' for pair in pairs)})")
    memory = {only: peak_memory(only, arguments.steps) for only in ("ours", "bare")}
    print(f"peak memory: this trainer {memory['ours']:.0f} MiB, bare PyTorch {memory['bare']:.0f} MiB")


if __name__ == "__main__":
    main()
