"""One stage of training, the same on one process and on several that walk in lock step, and resumable after any step.

What a step sees is a function of (seed, stage, step) alone: the global batch is drawn first and cut over the
processes afterwards, so neither a resume nor the number of processes changes what is learnt (beyond rounding).
Every process holds the same weights; gradients are averaged in one flat buffer; the first process writes checkpoints.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from miniworld.pretrain.schedule import steps_in

CHECKPOINT_SECONDS = 120.0
REPORT_SECONDS = 60.0
TIMED_STEPS = 40  # steps that are timed before a time budget is turned into a number of steps
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Process:
    """Which of how many processes this is, and where it computes."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process' rows of a global batch."""
        if batch % self.count:
            raise ValueError(f"a global batch of {batch} cannot be cut over {self.count} processes")
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16)


def launch(stage: Callable[..., None], processes: int, device: str, *arguments: Any) -> None:
    """Run `stage(process, *arguments)` in this process, or in `processes` new ones of one thread each."""
    if processes == 1:
        stage(Process(device=device), *arguments)
        return
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(20000 + os.getpid() % 20000))
    # Large buffers come back every step: keep them instead of returning them to the system (10 % of a step).
    os.environ.update(MALLOC_MMAP_THRESHOLD_=str(2**33), MALLOC_TRIM_THRESHOLD_=str(2**34))
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    torch.multiprocessing.spawn(_walk, (stage, processes, device, arguments), nprocs=processes)


def _walk(rank: int, stage: Callable[..., None], count: int, device: str, arguments: tuple) -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity") and count == os.cpu_count():
        os.sched_setaffinity(0, {rank})  # each waits for the slowest: two on one processor would halve the pace
    distributed.init_process_group("gloo", rank=rank, world_size=count)
    try:
        stage(Process(rank, count, device), *arguments)
    finally:
        distributed.destroy_process_group()


def draws(seed: int, stage: str, step: int) -> np.random.Generator:
    """The random numbers of one step of one stage."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def noise_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator that continues a numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


class TrainingStage:
    """Weights, optimizer, moving average and position of one stage, kept in one checkpoint file."""

    def __init__(
        self,
        name: str,
        folder: Path,
        process: Process,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int | None,
        minutes: float | None,
        average_decay: float,
    ) -> None:
        self.name, self.process, self.model, self.optimizer = name, process, model, optimizer
        self.file = folder / f"{name}.checkpoint.pt"
        self.journal = folder / f"{name}.jsonl"
        self.steps, self.minutes, self.average_decay = steps, minutes, average_decay
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.average: list[Tensor] = [p.detach().clone() for p in self.parameters]
        self.step = 0
        self.cpu_seconds = 0.0  # of all processes, in earlier runs
        self.wall_seconds = 0.0  # in earlier runs
        self.gradient_norm = 0.0
        self._started = self._saved = self._reported = time.monotonic()
        self._cpu_started = time.process_time()
        self.restore()

    # position

    def remaining(self) -> Iterator[int]:
        """The steps that are left. A time budget becomes a number of steps after the first few, for good."""
        timed_from, began = self.step, time.monotonic()
        while self.steps is None or self.step < self.steps:
            yield self.step
            if self.steps is None and self.step - timed_from >= TIMED_STEPS:
                seconds = (time.monotonic() - began) / (self.step - timed_from)
                self.steps = self._agree(steps_in(60 * (self.minutes or 0.0), seconds, at_least=self.step))
                self.say(f"{seconds:.3f} s a step: {self.steps} steps fit into {self.minutes:g} minutes")
            if self.process.first and time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                self.save()
        if self.process.first:
            self.save()

    def _agree(self, number: int) -> int:
        """The first process' number, on every process."""
        if self.process.count == 1:
            return number
        shared = torch.tensor([number])
        distributed.broadcast(shared, 0)
        return int(shared)

    # one step

    def update(self, learning_rate: float) -> None:
        """Average the gradients over the processes, clip them, step, and let the moving average follow."""
        self._reduce()
        norm = nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("share", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._follow()
        if self.process.first and self.report_due(peek=True):
            self.gradient_norm = float(norm)

    def _reduce(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.process.count == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients]).bfloat16()  # half the traffic
        distributed.all_reduce(flat)
        flat = flat.float().div_(self.process.count)
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def _follow(self, every: int = 4) -> None:
        """Every fourth step is enough for a slow average, and four times cheaper."""
        if self.step % every == 0:
            decay = min(self.average_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay**every)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with its averaged weights, in evaluation mode."""
        training = [p.detach().clone() for p in self.parameters]
        self._fill(self.average)
        self.model.eval()
        try:
            yield self.model
        finally:
            self._fill(training)
            self.model.train()

    @torch.no_grad()
    def _fill(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    # what it says

    def report_due(self, peek: bool = False) -> bool:
        """Once a minute, on the first process."""
        due = self.process.first and time.monotonic() - self._reported > REPORT_SECONDS
        if due and not peek:
            self._reported = time.monotonic()
        return due

    def report(self, **values: float) -> None:
        """One line for people and one for the journal."""
        entry = {"step": self.step, **values, "gradient_norm": self.gradient_norm}
        entry |= {"wall_seconds": self.wall_time(), "cpu_seconds": self.cpu_time()}
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 6) for k, v in entry.items()}) + "\n")
        self.say(" ".join(f"{name} {value:.5g}" for name, value in entry.items()) + f" of {self.steps} steps")

    def say(self, text: str) -> None:
        if self.process.first:
            print(f"[{self.name}] {text}", flush=True)

    def wall_time(self) -> float:
        return self.wall_seconds + time.monotonic() - self._started

    def cpu_time(self) -> float:
        """Processor time of all processes, measured on this one."""
        return self.cpu_seconds + (time.process_time() - self._cpu_started) * self.process.count

    # checkpoint

    def save(self) -> None:
        state = {
            "step": self.step,
            "steps": self.steps,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "wall_seconds": self.wall_time(),
            "cpu_seconds": self.cpu_time(),
        }
        write_atomically(state, self.file)
        self._saved = time.monotonic()

    def restore(self) -> None:
        """Go on where the checkpoint stopped. A number of steps given now replaces the one in the checkpoint."""
        if not self.file.exists():
            return
        state = torch.load(self.file, weights_only=True, map_location=self.process.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step, self.steps = state["step"], self.steps or state["steps"]
        self.wall_seconds, self.cpu_seconds = state["wall_seconds"], state["cpu_seconds"]
        self.say(f"goes on at step {self.step} of {self.steps}")


def write_atomically(state: Any, file: Path) -> None:
    """Never leave half a file under the final name."""
    temporary = file.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, file)
