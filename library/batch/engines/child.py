"""A child of `--engine local`: reads one assignment a line from its standard input, answers each with one line.

What a job prints goes into the log of its attempt. The process ends when its driver does: Linux sends it a signal, and
everywhere its standard input is closed, at which it leaves at once, also in the middle of a step.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from dataclasses import asdict
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from library.batch.engines.assignment import Assignment
from library.command import quiet_optional_libraries


def die_with(parent: int) -> None:
    """Linux: be killed when the thread that started this process ends. Leave now if that has happened already."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def assignments() -> queue.Queue[Assignment]:
    """What the driver asks for, as it comes; the process ends when the driver asks for nothing more."""
    waiting: queue.Queue[Assignment] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            waiting.put(Assignment.of(json.loads(line)))
        os._exit(0)

    threading.Thread(target=listen, name="driver", daemon=True).start()
    return waiting


def main() -> None:
    die_with(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    waiting = assignments()
    quiet_optional_libraries()
    trainer = None
    while True:
        assignment = waiting.get()
        if assignment.log:
            log = os.open(assignment.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(log, stream)
            os.close(log)
        if trainer is None:
            from library.batch.training import TrainerHere  # torch, once there is a log to tell of a broken one

            trainer = TrainerHere()
        outcome = trainer.train(assignment)
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
