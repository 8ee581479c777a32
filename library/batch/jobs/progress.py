"""How far a job is that is trained now, from the log of its run."""

from __future__ import annotations

from pathlib import Path

from library.formatting import duration
from library.report.log_tail import read_tail


def log_of(output_dir: Path, job: str) -> Path:
    """The log that a job's run writes into its folder."""
    return output_dir / job / f"{job}-log.jsonl"


def progress_of(output_dir: Path, job: str) -> str | None:
    """Such as "step 120 of 300, 2:10 left"; None before the first step, and where the log has come to an end."""
    tail = read_tail(log_of(output_dir, job))
    if tail is None or tail.ending or tail.total_steps is None:
        return None
    left = "" if tail.seconds_left is None else f", {duration(tail.seconds_left)} left"
    return f"step {tail.step} of {tail.total_steps}{left}"
