"""A module in another floating-point type for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_dtype(module: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The module in `dtype` inside, in its own type afterwards; going up and back changes no bit."""
    before = next(module.parameters()).dtype
    if before != dtype:
        module.to(dtype)
    try:
        yield
    finally:
        if before != dtype:
            module.to(before)
