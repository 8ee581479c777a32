"""Tensors on their way from the host to the device that computes."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on `device`; what comes from the CPU is sent from pinned memory, so that nothing waits for it."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device=device, dtype=dtype)
    tensor = tensor if dtype is None else tensor.to(dtype)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
