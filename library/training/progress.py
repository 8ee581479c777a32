"""What a trainable may learn between two optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Progress:
    """How the run stands; figures are already added up over all processes.

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
