"""What a trainable may learn between two optimizer steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Progress:
    """How far the run is; figures are already added up over all processes.

    `epochs_done` is 1 after the first epoch. `loss_sum` is of the loss that is minimised, `relative_mse_sum` of the
    unweighted squared error over mean(target^2), both over `count` samples since the last call, padding not counted.
    """

    epochs_done: int
    total_epochs: int
    global_step: int
    total_steps: int
    loss_sum: float
    relative_mse_sum: float
    count: int
    optimizer: torch.optim.Optimizer


@dataclass
class ProgressWindow:
    """The figures since one trainable was last given them; they are part of a run's state."""

    loss_sum: float = 0.0
    relative_mse_sum: float = 0.0
    count: int = 0

    def add(self, loss_sum: float, relative_mse_sum: float, count: int) -> None:
        self.loss_sum += loss_sum
        self.relative_mse_sum += relative_mse_sum
        self.count += count

    def take(self) -> ProgressWindow:
        """The figures so far; counting starts anew."""
        taken = ProgressWindow(**asdict(self))
        self.loss_sum, self.relative_mse_sum, self.count = 0.0, 0.0, 0
        return taken
