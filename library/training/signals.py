"""SIGINT and SIGTERM: a signal that arrives during a step waits for its end, so that a state can be written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from library.errors import Interrupted

PATIENCE = 3  # so many signals, and the process leaves at once


class Signals:
    """Turns SIGINT and SIGTERM into `Interrupted`, at once between steps, and at the step's end inside `deferred()`.

    A step is never torn: its weights and the clock belong together. The third signal leaves the process at once, with
    nothing written. With `shared`, several processes must stop at the same step: the one that got the signal only
    passes it on (`arrived`), and all stop when they hear of it (`stop_all`).
    """

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._waiting = False
        self._agreed: int | None = None
        self._count = 0
        self.arrived: int | None = None

    def __enter__(self) -> Signals:
        # Python delivers signals to the main thread alone; elsewhere (a trainer inside a server) the host decides.
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._arrive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _arrive(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count >= PATIENCE:
            os._exit(128 + number)
        if self._waiting or self._shared:
            self.arrived = self.arrived or number
            return
        raise Interrupted(number)

    def stop_all(self) -> None:
        """One of the processes was asked to stop: all of them do, at the end of this step."""
        self._agreed = self.arrived or signal.SIGTERM

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back, for what must be finished once it is begun, such as writing the last state."""
        before, self._waiting = self._waiting, True
        try:
            yield
        finally:
            self._waiting = before

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals back until the block has ended, then raise `Interrupted`."""
        with self.held():
            yield
        number = self._agreed if self._shared else self.arrived
        if number is not None:
            self.arrived = self._agreed = None
            raise Interrupted(number)
