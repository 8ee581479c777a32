"""The loss on pictures that are held out, always on the same noise: does the run still learn, or only remember?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from library.data.batches import Batch
from library.training.clock import Clock, Epochs, Interval, Steps
from library.training.objectives import SampleLoss

if TYPE_CHECKING:
    from library.training.run import BatchSource, Run

EPOCH = 0
"""The epoch that the draws belong to; the run's own begin with 1. So order, posterior and noise are always the same."""
TIMESTEPS = 4
"""How many timesteps every picture is measured at, as in kohya's trainer."""


@dataclass(frozen=True)
class ValidationSpec:
    """The options on validation; field names are the options'."""

    validate_every_n_steps: int | None = None
    validate_every_n_epochs: int | None = None
    max_validation_steps: int | None = None
    min_timestep: int | None = None
    max_timestep: int | None = None

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """After every epoch, unless something else is asked for."""
        asked: list[Interval] = []
        if self.validate_every_n_steps:
            asked.append(Steps(self.validate_every_n_steps))
        if self.validate_every_n_epochs or not asked:
            asked.append(Epochs(self.validate_every_n_epochs or 1))
        return tuple(asked)

    def timesteps(self, count: int) -> list[int]:
        """Those that cut the run's range of `count` timesteps into equal parts: 200, 400, 600 and 800 of 1000."""
        low, high = self.min_timestep or 0, self.max_timestep or count
        return [low + (high - low) * (i + 1) // (TIMESTEPS + 1) for i in range(TIMESTEPS)]


class LossAtTimesteps(Protocol):
    """What validation asks of an objective."""

    @property
    def timestep_count(self) -> int: ...

    def loss_at(self, batch: Batch, timesteps: Tensor) -> SampleLoss: ...


@dataclass
class Lowest:
    """The lowest validation loss so far, and the newest; steps are optimizer steps done."""

    step: int = 0
    loss: float = float("inf")
    last_step: int = 0
    last_loss: float = float("inf")

    def add(self, step: int, loss: float) -> None:
        self.last_step, self.last_loss = step, loss
        if loss < self.loss:
            self.step, self.loss = step, loss


class Validation:
    """Measures `objective` on `batches` when it is due; without batches nothing is held out, and nothing is due."""

    def __init__(
        self,
        spec: ValidationSpec | None = None,
        objective: LossAtTimesteps | None = None,
        batches: BatchSource | None = None,
    ) -> None:
        self._spec = spec or ValidationSpec()
        self._objective = objective
        self._batches = batches
        self.lowest = Lowest()

    def due(self, clock: Clock) -> bool:
        return self._batches is not None and any(clock.is_due(interval) for interval in self._spec.intervals)

    def measure_if_due(self, run: Run) -> None:
        """Log the validation loss, without a trace in the run: nothing here draws from torch's own generator."""
        if not self.due(run.clock):
            return
        assert self._objective is not None
        timesteps = self._spec.timesteps(self._objective.timestep_count)
        run.train(False)
        try:
            with torch.no_grad(), run.precision.autocast(), run.optimizers.weights_for_use():
                losses, relative = self._measure(run, timesteps)
        finally:
            run.train(True)
        loss = sum(losses) / len(losses)
        self.lowest.add(run.clock.global_step, loss)
        by_timestep = dict(zip(map(str, timesteps), losses, strict=True))
        run.journal.measured(
            "validation",
            run.clock,
            validation_loss=loss,
            validation_relative_mse=relative,
            validation_loss_at=by_timestep,
        )

    def _measure(self, run: Run, timesteps: Sequence[int]) -> tuple[list[float], float]:
        """Mean loss at each timestep, and the mean relative error; over all processes."""
        assert self._objective is not None
        assert self._batches is not None
        device = run.processes.device
        sums = torch.zeros(len(timesteps), 2, device=device)
        count = 0
        for micro_batches in _at_most(self._batches.epoch(EPOCH), self._spec.max_validation_steps):
            for batch in micro_batches:
                for i, timestep in enumerate(timesteps):
                    sums[i] += self._objective.loss_at(batch, torch.full((len(batch),), timestep)).sums()
            count += micro_batches[0].true_count
        means = (run.processes.sum_gradients([], sums.reshape(-1)).reshape(sums.shape) / count).cpu()
        return means[:, 0].tolist(), float(means[:, 1].mean())

    def summary(self) -> list[str]:
        """A line for the end of the run, if anything was measured."""
        found = self.lowest
        if not found.last_step:
            return []
        return [
            f"Validation loss {found.last_loss:.4f} at step {found.last_step}; the lowest was {found.loss:.4f} at step "
            f"{found.step}."
        ]

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.lowest)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lowest = Lowest(**state)


def _at_most(batches: Iterable[Sequence[Batch]], count: int | None) -> Iterable[Sequence[Batch]]:
    return batches if count is None else islice(batches, count)
