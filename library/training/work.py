"""What a step works on: one objective, some trainables, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch

from library.data.batches import Batch
from library.training.clock import Clock
from library.training.log.journal import Journal
from library.training.nan_guard import Guard
from library.training.objectives import Objective
from library.training.optim.optimizers import Optimizers
from library.training.optim.weight_averages import WeightAverages
from library.training.runtime.distributed import Processes
from library.training.runtime.mixed_precision import Precision
from library.training.signals import Signals
from library.training.step_figures import Readback
from library.training.trainables import Trainable


class BatchSource(Protocol):
    """What the loop asks for data."""

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Sequence[Batch]]:
        """This process' micro-batches of every optimizer step of an epoch (1-based), from step `start` of it."""
        ...


@dataclass(kw_only=True)
class Work:
    """One objective, some trainables, and what everything around the step knows of them."""

    objective: Objective
    trainables: Sequence[Trainable]
    optimizers: Optimizers
    batches: BatchSource
    clock: Clock
    journal: Journal
    precision: Precision
    guard: Guard
    signals: Signals
    processes: Processes
    seed: int
    readback: Readback = field(default_factory=Readback)
    averages: WeightAverages = field(default_factory=WeightAverages)
    updated_to: int = 0
    """The step that the weights are at: ahead of the clock only between an update and the end of its step."""

    def train(self, training: bool) -> None:
        """Put models and trainables into training mode, or out of it."""
        self.objective.train(training)
        for trainable in self.trainables:
            trainable.train(training)

    def measured_weights(self) -> AbstractContextManager[None]:
        """A context in which the weights are those that are measured and drawn with."""
        return (self.averages if self.averages.are_measured else self.optimizers).weights_for_use()

    @contextmanager
    def looked_at(self, part: str) -> Iterator[None]:
        """The models as they are used, not trained; the time goes to `part` of the stopwatch."""
        self.train(False)
        try:
            with (
                self.journal.stopwatch.during(part),
                torch.no_grad(),
                self.precision.autocast(),
                self.measured_weights(),
            ):
                yield
        finally:
            self.train(True)
