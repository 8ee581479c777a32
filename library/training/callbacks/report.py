"""The page of a run, written by the run itself: after its checkpoints and at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from library.training.clock import Clock
from library.training.work import Work


class Room(Protocol):
    """What leaves something on disk that a page shows."""

    def due(self, clock: Clock) -> bool: ...


class RunReport:
    """Writes `{name}-report.html` beside the log at `log`; None (any process but the main one, or not wanted): nothing.

    It is due where one of `shown` is. A page is made of the run's files only, and no failure of it touches the run: it
    is told once, as a warning.
    """

    def __init__(self, log: Path | None, shown: Sequence[Room]) -> None:
        self._log = log
        self._shown = shown
        self._has_failed = False

    def write_if_due(self, work: Work) -> None:
        """After the files and samples of a step: what the page shows last is what is newest on disk.

        The last step's are on the page of the end, which follows at once.
        """
        if self._log is None or work.clock.finished:
            return
        if any(part.due(work.clock) for part in self._shown):
            self._write(work, running=True)

    def write(self, work: Work) -> None:
        """At the end of the run, however it came."""
        if self._log is not None:
            self._write(work, running=False)

    def _write(self, work: Work, *, running: bool) -> None:
        assert self._log is not None
        try:
            if running:
                work.journal.take_stock(work.trainables, work.clock, work.processes.device)
            from library.report.run_page import write_run_page

            page = write_run_page(self._log, running=running)
        except Exception as error:  # whatever it is: the training is worth more than a page about it
            work.journal.saved = [path for path in work.journal.saved if path.suffix != ".html"]  # an old page
            if not self._has_failed:
                work.journal.say(f"the report could not be written, the training goes on: {error}", logging.WARNING)
            self._has_failed = True
        else:
            if page not in work.journal.saved:
                work.journal.saved.append(page)
