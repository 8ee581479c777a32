"""The most memory that a job had: of the GPU where there is one, else of the process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Counts from when it is made."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):
            RESET.write_text("5")  # Linux: begin the high-water mark of this process anew

    def gigabytes(self) -> float | None:
        """10^9 bytes; None where the system does not say."""
        if torch.cuda.is_available():
            return round(torch.cuda.max_memory_allocated() / 1e9, 3)
        with suppress(OSError, ValueError):
            line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
            return round(int(line.split()[1]) * 1024 / 1e9, 3)
        return None
