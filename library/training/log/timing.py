"""Where the time of a run goes, and how much memory it has needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from library.models.accelerator import accelerator


class Stopwatch:
    """Seconds by part of a run: "load", "cache", "samples", "validation", "saving"; the rest of the loop is "steps"."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._loop_began: float | None = None
        self._outside = 0.0

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Add what the block takes to a part."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self._spent[part] = self._spent.get(part, 0.0) + seconds
            if self._loop_began is not None:
                self._outside += seconds

    def begin_loop(self) -> None:
        self._loop_began = time.monotonic()

    @property
    def outside_steps(self) -> float:
        """Seconds of the loop so far that went into other things than steps."""
        return self._outside

    def spent(self) -> dict[str, float]:
        """Seconds by part, steps too; a part that took nothing is left out."""
        parts = {part: round(seconds, 3) for part, seconds in self._spent.items()}
        if self._loop_began is not None:
            parts["steps"] = round(time.monotonic() - self._loop_began - self._outside, 3)
        return parts


def peak_memory(device: torch.device) -> dict[str, Any]:
    """The most bytes that were in use at once: of the GPU if there is one, else of this process."""
    if (gpu := accelerator(device)) is not None:
        return {"peak_memory": gpu.max_memory_allocated(device), "memory_of": gpu.get_device_name(device)}
    if sys.platform == "win32":
        import psutil  # comes with accelerate

        return {"peak_memory": psutil.Process().memory_info().peak_wset, "memory_of": "this process"}
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "memory_of": "this process"}
