"""Names of GPUs for child processes: CUDA_VISIBLE_DEVICES inside an outer CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import os
from collections.abc import Sequence

from library.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPU_NAMES = ("GPU-", "MIG-")
"""What the names of whole GPUs and of parts of them begin with, as `nvidia-smi -L` prints them."""


def visible_gpus() -> list[str] | None:
    """What the outer CUDA_VISIBLE_DEVICES leaves, in its order; None where it is not set: all."""
    outer = os.environ.get(VISIBLE)
    if outer is None:
        return None
    return [name.strip() for name in outer.split(",") if name.strip()]


def visible_to_child(device: str) -> str:
    """CUDA_VISIBLE_DEVICES for a child that sees `device` alone: a number of those visible here, a name, or cpu."""
    if device.startswith(GPU_NAMES):
        return device
    if not device.isdigit():
        return ""
    seen = visible_gpus()
    return device if seen is None else seen[int(device)]


def refuse_invisible(devices: Sequence[str]) -> None:
    """Raise `ConfigError` for the number of a GPU that the outer CUDA_VISIBLE_DEVICES does not leave."""
    seen = visible_gpus()
    beyond = [name for name in devices if name.isdigit() and seen is not None and int(name) >= len(seen)]
    if beyond:
        raise ConfigError(
            f"`--devices {','.join(devices)}`: {VISIBLE} leaves {len(seen or ())} GPUs "
            f"({','.join(seen or ()) or 'none'}), counted from 0, so there is no {beyond[0]}."
        )
