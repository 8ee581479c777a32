"""Figures on their way from the device: they are read one step late, so that no step waits for the device."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class _Pending:
    tag: Any
    values: Tensor
    event: torch.cuda.Event | None


class Readback:
    """A queue of small tensors that are copied to the host without blocking.

    `push` returns what has become readable meanwhile: on a GPU figures of earlier steps, on a CPU those just pushed.
    """

    def __init__(self) -> None:
        self._pending: deque[_Pending] = deque()

    def push(self, tag: Any, values: Tensor) -> list[tuple[Any, list[float]]]:
        if not values.is_cuda:
            return [(tag, values.tolist())]
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
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
