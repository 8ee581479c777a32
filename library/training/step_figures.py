"""What there is to tell of a step, while its numbers are on the way from the device and once they have arrived."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from library.training.nan_guard import BadStep


@dataclass
class StepFigures:
    """What is known of a step besides the numbers that are still on the device."""

    step: int  # 1-based: the number of optimizer steps done with it
    epoch: int
    count: int
    files: tuple[str, ...]
    timesteps: tuple[int, ...]
    learning_rates: dict[str, float]
    extra: dict[str, float | Tensor] = field(default_factory=dict)

    @property
    def on_device(self) -> dict[str, Tensor]:
        """Those of `extra` whose numbers have not arrived yet."""
        return {name: value for name, value in self.extra.items() if isinstance(value, Tensor)}


@dataclass
class Measured:
    """A step's figures once its numbers have arrived; `bad` is set where it had to be left out."""

    figures: StepFigures
    loss_sum: float
    relative_mse_sum: float
    gradient_norm: float
    bad: BadStep | None = None
