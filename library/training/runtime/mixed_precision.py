"""Mixed precision: the dtype of the forward pass, and loss scaling where fp16 needs it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Precision:
    """How forward and backward are computed on `device` under kohya's `mixed_precision` (no, fp16, bf16).

    The loss is scaled where trainable weights are fp32 and the forward is fp16; `state` is what a resume needs of it.
    """

    def __init__(self, mixed_precision: str, device: torch.device, *, scale_loss: bool | None = None) -> None:
        self.dtype = DTYPES[mixed_precision]
        self.device = device
        enabled = mixed_precision == "fp16" if scale_loss is None else scale_loss
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled)

    def autocast(self) -> AbstractContextManager:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
        """Bring the gradients back to their true size, before they are measured and clipped."""
        if self.scaler.is_enabled() and any(parameter.grad is not None for parameter in parameters):
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, float]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, float]) -> None:
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
