"""`--engine local`: one child process for each device, which keeps the base model and trains job after job.

The driver never imports torch. A child that dies costs the attempt that it was at; one that a fault has passed through
is replaced before the next job. Children end with their driver, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from library.batch.engines.assignment import WORKER_DIED, Assignment, Outcome
from library.batch.engines.devices import VISIBLE, visible_to_child

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 5.0  # seconds for a child to leave by itself


class Child:
    """A trainer in a process of its own on one device: a GPU's number or name, "cpu", or "" for the default."""

    def __init__(self, device: str = "") -> None:
        self._asked = device
        self.device = f"cuda:{device}" if device.isdigit() else device or "the default device"
        self._process: subprocess.Popen[str] | None = None

    def train(self, assignment: Assignment) -> Outcome:
        process = self._running(assignment)
        try:
            _pipe(process.stdin).write(json.dumps(asdict(assignment)) + "\n")
            _pipe(process.stdin).flush()
            answer = _pipe(process.stdout).readline()
        except (OSError, ValueError):
            answer = ""
        if not answer.endswith("\n"):
            return self._died(process)
        outcome = replace(Outcome(**json.loads(answer)), signal=None)
        if outcome.leaves_doubt:
            self.close()
        return outcome

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def close(self) -> None:
        """Let the child go; it ends when nobody speaks to it any more, or is ended."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            _close(pipe)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self, assignment: Assignment) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            if self._asked:
                environment[VISIBLE] = visible_to_child(self._asked)
            with open(assignment.log or os.devnull, "ab") as log:  # what it says before its first job
                self._process = subprocess.Popen(
                    [sys.executable, str(CHILD), str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the driver, which asks its children to stop
                )
        return self._process

    def _died(self, process: subprocess.Popen[str]) -> Outcome:
        self.close()
        code = process.returncode
        how = f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit code {code}"
        killed = " (the system does that when memory runs out)" if code == -9 else ""
        return Outcome(WORKER_DIED, f"the process that trained it ended with {how}{killed}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _close(pipe: IO[str] | None) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        _pipe(pipe).close()
