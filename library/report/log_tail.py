"""How far a run is, from the first and the last lines of its log: quick also where the log has a million lines."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIECE = 1 << 16
ALIVE = 150.0
"""Seconds: a page is written at least every minute, so that a run without a sign for so long is over."""


@dataclass(frozen=True)
class RunTail:
    """`ending` is "end", "stopped" or "" for a log that goes on; `seconds_per_step` is the median of the last steps."""

    step: int
    total_steps: int | None
    ending: str
    reason: str
    loss: float | None
    seconds_per_step: float | None

    @property
    def seconds_left(self) -> float | None:
        if self.total_steps is None or self.seconds_per_step is None:
            return None
        return max(0, self.total_steps - self.step) * self.seconds_per_step


def read_tail(log: Path) -> RunTail | None:
    """None where there is no log, or nothing in it yet."""
    try:
        with log.open("rb") as file:
            head = file.read(PIECE)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - PIECE))
            tail = file.read(PIECE)
    except OSError:
        return None
    lines = [*_lines(head), *_lines(tail)] if size > PIECE else list(_lines(head))
    if not lines:
        return None
    steps = [line for line in lines if "event" not in line]
    marks = [line for line in lines if line.get("event") in ("begin", "end", "stopped")]
    last = marks[-1] if marks else {}
    totals = [line["total_steps"] for line in marks if isinstance(line.get("total_steps"), int)]
    seconds = sorted(line["seconds"] for line in steps[-50:] if isinstance(line.get("seconds"), int | float))
    losses = [line["avr_loss"] for line in steps[-1:] if isinstance(line.get("avr_loss"), int | float)]
    return RunTail(
        step=max(line["step"] for line in lines),
        total_steps=totals[-1] if totals else None,
        ending="" if last.get("event") == "begin" else str(last.get("event", "")),
        reason=str(last.get("reason", "")),
        loss=losses[0] if losses and math.isfinite(losses[0]) else None,
        seconds_per_step=seconds[len(seconds) // 2] if seconds else None,
    )


def is_alive(log: Path) -> bool:
    """Whether a process still writes the run: by the lock that it holds where Linux lists locks, else by the time of
    its log and page. Nothing is locked here, which would get in the way of a run that begins."""
    name = log.name.removesuffix("-log.jsonl")
    held = _is_locked(log.with_name(f".{name}.lock"))
    if held is not None:
        return held
    newest = 0.0
    for file in (log, log.with_name(f"{name}-report.html")):
        try:
            newest = max(newest, file.stat().st_mtime)
        except OSError:
            continue
    return time.time() - newest < ALIVE


def _is_locked(file: Path) -> bool | None:
    """None where that cannot be known: another system, or a folder of another machine."""
    try:
        number = file.stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except FileNotFoundError:
        return False if Path("/proc/locks").exists() else None
    except OSError:
        return None
    here = any(
        line.split()[5].rpartition(":")[2] == str(number) for line in locks.splitlines() if len(line.split()) > 5
    )
    return here or None  # a run of another machine on the same disk is not in this list


def _lines(piece: bytes) -> Iterator[dict[str, Any]]:
    for text in piece.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            yield line
