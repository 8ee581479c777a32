"""The page of a run, written by the run itself: after its checkpoints and at its end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from library.training.run import Run


class RunReport:
    """Writes `{name}-report.html` beside the log at `log`; None (any process but the main one, or not wanted): nothing.

    A page is made of the run's files only, and no failure of it touches the run: it is told once, as a warning.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._has_failed = False

    def write_if_due(self, run: Run) -> None:
        """After the files and samples of a step: what the page shows last is what is newest on disk.

        The last step's are on the page of the end, which follows at once.
        """
        if self._log is None or run.clock.finished:
            return
        if run.checkpoints.due(run.clock) or run.previews.due(run.clock):
            self._write(run, running=True)

    def write(self, run: Run) -> None:
        """At the end of the run, however it came."""
        if self._log is not None:
            self._write(run, running=False)

    def _write(self, run: Run, *, running: bool) -> None:
        assert self._log is not None
        try:
            if running:
                run.journal.take_stock(run)
            from library.report.run_page import write_run_page

            page = write_run_page(self._log, running=running)
        except Exception as error:  # whatever it is: the training is worth more than a page about it
            run.journal.saved = [path for path in run.journal.saved if path.suffix != ".html"]  # an old page
            if not self._has_failed:
                run.journal.say(f"the report could not be written, the training goes on: {error}", logging.WARNING)
            self._has_failed = True
        else:
            if page not in run.journal.saved:
                run.journal.saved.append(page)
