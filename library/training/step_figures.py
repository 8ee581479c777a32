"""The figures of a step (loss, gradient norm, rates), read from the device one step late, so that no step waits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from library.models.accelerator import accelerator
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


@dataclass
class _Pending:
    tag: Any
    values: Tensor
    event: torch.Event | None


class Readback:
    """A queue of small tensors that are copied to the host without blocking.

    `push` returns what has become readable meanwhile: on a GPU figures of earlier steps, on a CPU those just pushed.
    """

    def __init__(self) -> None:
        self._pending: deque[_Pending] = deque()

    def push(self, tag: Any, values: Tensor) -> list[tuple[Any, list[float]]]:
        gpu = accelerator(values.device)
        if gpu is None:
            return [(tag, values.tolist())]
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = gpu.Event()
        event.record()
        self._pending.append(_Pending(tag, host, event))
        return self._arrived(keep=1)

    def flush(self) -> list[tuple[Any, list[float]]]:
        """Everything that is still under way; waits for the device."""
        return self._arrived(keep=0)

    def _arrived(self, keep: int) -> list[tuple[Any, list[float]]]:
        ready = []
        while len(self._pending) > keep:
            pending = self._pending.popleft()
            if pending.event is not None:
                pending.event.synchronize()
            ready.append((pending.tag, pending.values.tolist()))
        return ready
