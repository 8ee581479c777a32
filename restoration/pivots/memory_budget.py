"""What a pivot needs of the device's memory, counted from the weights and reported before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

GIB = 2**30
SMALL = 4096  # elements: 8-bit optimizers keep the state of smaller tensors in float32


@dataclass(frozen=True)
class Budget:
    """Bytes that stay on the device for the whole training; activations come on top."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    """Trained weights in the precision of the forward pass, which autocast keeps."""
    frozen: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.copies + self.frozen

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "their copies in half precision": self.copies,
            "frozen": self.frozen,
        }
        listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)
        return f"{self.total / GIB:.2f} GiB of memory beside activations ({listed})"


def budget(trained: Sequence[torch.Tensor], frozen: Sequence[nn.Module], *, eight_bit: bool, half: bool) -> Budget:
    """Of trained float32 tensors under an Adam, and of frozen modules as they are."""
    weights = sum(tensor.nbytes for tensor in trained)
    states = sum(2 * (1 if eight_bit and t.numel() >= SMALL else 4) * t.numel() for t in trained)
    return Budget(
        weights=weights,
        gradients=weights,
        optimizer=states,
        copies=sum(2 * tensor.numel() for tensor in trained) if half else 0,
        frozen=sum(parameter.nbytes for module in frozen for parameter in module.parameters()),
    )


def count_of(module: Any) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
