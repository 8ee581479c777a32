"""The device that computes beside the host with memory of its own: a GPU, or what tests have in its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def accelerator(device: torch.device) -> Any | None:
    """torch's module for such a device, as `torch.cuda`; None for the CPU and for what shares its memory (mps)."""
    module = None if device.type in ("cpu", "meta") else torch.get_device_module(device)
    return module if hasattr(module, "mem_get_info") else None


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on `device`; what comes from the CPU is sent from pinned memory, so that nothing waits for it."""
    if tensor.device.type != "cpu" or accelerator(device) is None:
        return tensor.to(device=device, dtype=dtype)
    tensor = tensor if dtype is None else tensor.to(dtype)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
