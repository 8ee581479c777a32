"""A command of this project in a process of its own, with its time and its peak memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """`peak` is the largest resident set in bytes (ru_maxrss), with the pages of mapped files that were touched."""

    exit_code: int
    seconds: float
    peak: int
    output: str

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, peak {self.peak / GIB:.2f} GiB"


def run_measured(arguments: Sequence[str | Path]) -> Measured:
    """Run `python ARGUMENTS` in the project's folder, with one thread unless OMP_NUM_THREADS says otherwise."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)  # the child's own figures; getrusage gives the largest of all children
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    bytes_a_unit = 1 if sys.platform == "darwin" else 1024
    return Measured(process.returncode, time.monotonic() - started, usage.ru_maxrss * bytes_a_unit, "".join(said))


def seconds_per_step(log: Path) -> float:
    """The median over a run's log, the first step left out: it waits for what is prepared once."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    seconds = [line["seconds"] for line in lines if "gradient_norm" in line]
    return statistics.median(seconds[1:] or seconds)
