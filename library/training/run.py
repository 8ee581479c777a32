"""A run: what the loop orders, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from library.data.batches import Batch
from library.training.checkpoints import Checkpoints
from library.training.clock import Clock
from library.training.guard import Guard
from library.training.journal import Journal
from library.training.lock import OutputLock
from library.training.objectives import Objective
from library.training.optimizers import Optimizers
from library.training.precision import Precision
from library.training.previews import Previews
from library.training.processes import Processes
from library.training.readback import Readback
from library.training.reports import RunReport
from library.training.signals import Signals
from library.training.trainables import Trainable
from library.training.validation import Validation


class BatchSource(Protocol):
    """What the loop asks for data."""

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Sequence[Batch]]:
        """This process' micro-batches of every optimizer step of an epoch (1-based), from step `start` of it."""
        ...


@dataclass
class Run:
    """One objective, some trainables, and the rooms around the step."""

    objective: Objective
    trainables: Sequence[Trainable]
    optimizers: Optimizers
    batches: BatchSource
    clock: Clock
    checkpoints: Checkpoints
    journal: Journal
    previews: Previews
    precision: Precision
    guard: Guard
    signals: Signals
    lock: OutputLock
    processes: Processes
    seed: int
    validation: Validation = field(default_factory=Validation)
    readback: Readback = field(default_factory=Readback)
    report: RunReport = field(default_factory=RunReport)
    updated_to: int = 0
    """The step that the weights are at: ahead of the clock only between an update and the end of its step."""

    def train(self, training: bool) -> None:
        """Put models and trainables into training mode, or out of it."""
        self.objective.train(training)
        for trainable in self.trainables:
            trainable.train(training)
