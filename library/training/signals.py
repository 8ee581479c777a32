"""SIGINT and SIGTERM: a signal that arrives during a step waits for its end, so that a state can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from library.errors import Interrupted


class Signals:
    """Turns SIGINT and SIGTERM into `Interrupted`, at once outside `deferred()` and at its end inside.

    A second signal during the same wait raises at once: somebody who presses Ctrl-C twice means it. With `shared`,
    several processes must stop at the same step: the one that got the signal only passes it on (`arrived`), and all
    stop when they hear of it (`stop_all`).
    """

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._waiting = False
        self._agreed: int | None = None
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
        if self.arrived is None and (self._waiting or self._shared):
            self.arrived = number
            return
        raise Interrupted(number)

    def stop_all(self) -> None:
        """One of the processes was asked to stop: all of them do, at the end of this step."""
        self._agreed = self.arrived or signal.SIGTERM

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals back until the block has ended, then raise `Interrupted`."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        number = self._agreed if self._shared else self.arrived
        if number is not None:
            self.arrived = self._agreed = None
            raise Interrupted(number)
