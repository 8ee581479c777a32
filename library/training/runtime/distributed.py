"""The processes of a run and the one exchange between them: a flat sum of gradients and losses per optimizer step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Shared = TypeVar("Shared")

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process' place among those of the run, and its device."""

    index: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def wait(self) -> None:
        """Until every process has come here."""
        if self.count > 1:
            dist.barrier()

    def agree(self, value: int) -> int:
        """The main process' value, on all of them."""
        if self.count == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def gather(self, value: Shared) -> list[Shared]:
        """What each process gives, in their order, on all of them."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, value)
        return gathered

    def sum_gradients(self, parameters: Sequence[Tensor], figures: Tensor) -> Tensor:
        """Add up, in one flat all-reduce per dtype, the gradients of all processes (in place) and `figures` (returned).

        A parameter without a gradient here counts as zero: whether one exists must not differ between processes.
        Networks are not wrapped in DDP, because their `forward` is never called.
        """
        if self.count == 1:
            return figures
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            assert parameter.grad is not None
            by_dtype.setdefault(parameter.dtype, []).append(parameter.grad)
        by_dtype.setdefault(figures.dtype, []).append(figures)
        for tensors in by_dtype.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat)
            offset = 0
            for tensor in tensors:
                tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
                offset += tensor.numel()
        return figures


def start_processes(timeout_minutes: int | None = None) -> Processes:
    """Join the processes that a launcher started, or be the only one; picks the device as accelerate does.

    `timeout_minutes` is how long a process waits for the others before it gives up; torch's own time if left out.
    """
    from accelerate import PartialState

    # Without this word accelerate overlooks that several processes were started, where there is no GPU.
    on_cpu = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")
    patience = {"timeout": timedelta(minutes=timeout_minutes)} if timeout_minutes else {}
    state = PartialState(cpu=on_cpu, **patience)
    device = CPU if state.device is None or state.device.type == "cpu" else state.device
    return Processes(state.process_index, state.num_processes, device)
