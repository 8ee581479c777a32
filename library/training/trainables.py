"""What owns trained parameters, and what the loop asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.findings import Findings
from library.training.progress import Progress


class Trainable(ABC):
    """Owner of trained parameters: its optimizer groups, what it does around a step, its state and its file.

    The loop calls, in this order: `epoch_starts`; for every micro-batch `micro_batch_starts`, then `on_timesteps`; when
    an optimizer step's gradients are complete and clipped `gradients_ready`; after it `after_step`; between two steps
    `on_progress`.
    """

    name: str
    """What it is called in the log and in a state."""
    kind: str = "lora"
    """What its file is, in the words of the model metadata standard: "lora", "textual-inversion", ..."""
    file_label: str = ""
    """Its file is {stem}{file_label}{extension}: two trainables of a run never share one."""
    group_names: Sequence[str] = ()
    """A name for each parameter group, for the learning rates in the log."""
    start_step: int = 0
    stop_step: int | None = None
    progress_every_n_steps: int | None = None

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer: `params` and `lr`."""

    @property
    def parameters(self) -> list[Tensor]:
        """All that it trains."""
        return [parameter for group in self.parameter_groups() for parameter in group["params"]]

    def clipped_parameters(self) -> Sequence[Tensor]:
        """The parameters whose gradients are clipped together."""
        return self.parameters

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """All that a resume needs of it, as tensors by name."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...

    @abstractmethod
    def save(self, path: Path, metadata: dict[str, str]) -> None:
        """Write the file that people load."""

    @abstractmethod
    def findings(self) -> Findings:
        """What it did, for the end of the run."""

    def penalty(self) -> Tensor | None:
        """A scalar added to the loss of every step."""
        return None

    def announce(self, total_epochs: int, total_steps: int) -> list[str]:
        """Lines worth saying before the first step of a run of this length."""
        return []

    def train(self, training: bool) -> None: ...

    def epoch_starts(self) -> None: ...

    def micro_batch_starts(self) -> None: ...

    def on_timesteps(self, timesteps: Tensor) -> None:
        """The timesteps (batch,) of a micro-batch, on the CPU, before it goes through the model."""

    def gradients_ready(self) -> None: ...

    def after_step(self) -> Mapping[str, float | Tensor]:
        """What is done to the weights after a step; returns figures for the log.

        Those still on the device are scalars (0-dim tensors): they are read later, so that no step waits for them.
        """
        return {}

    def on_progress(self, progress: Progress) -> Mapping[str, Any] | None:
        """What is done between two steps; returns an event for the log, {"event": name, ...}, if there was one."""

    def is_active(self, step: int) -> bool:
        """Whether it is trained at step `step` (0-based)."""
        return self.start_step <= step and (self.stop_step is None or step < self.stop_step)


SAMPLED_ELEMENTS = 256


class Movement:
    """How far tensors have come from where they started, from a few evenly spaced elements of each.

    A copy of every tensor would cost as much memory as the weights; a method that is on and does nothing is seen in a
    few hundred elements as well.
    """

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self._parameters = parameters
        self.start = {name: _some_elements(parameter) for name, parameter in parameters.items()}

    def measure(self) -> tuple[int, float]:
        """How many tensors moved, and the median root mean square of the moved ones' change."""
        changes = []
        for name, parameter in self._parameters.items():
            difference = _some_elements(parameter) - self.start[name]
            changes.append(float(difference.pow(2).mean().sqrt()))
        moved = [change for change in changes if change > 0]
        return len(moved), float(torch.tensor(moved).median()) if moved else 0.0


def _some_elements(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    stride = max(1, flat.numel() // SAMPLED_ELEMENTS)
    return flat[::stride][:SAMPLED_ELEMENTS].float().cpu().clone()
