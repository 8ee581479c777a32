"""The page of a run, written by the run itself: at its start, at least every minute, after its checkpoints and samples
and validations, and at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psutil
import torch

from library.config.spec import declared, spec
from library.models.accelerator import accelerator
from library.report.live import LiveFigures, with_live_figures
from library.report.page import write_page
from library.training.clock import Clock
from library.training.work import Work

FIRST, EVERY = 2.0, 20.0
"""Seconds from the start to the first page, and between two that have only new figures."""
SHARE = 20
"""A page after a validation is made at most so often that it takes one part in `SHARE` of the time."""
WHOLE, WHOLE_SHARE = 120.0, 100
"""The same for a whole page that the thread makes on its own, for its plots: at most every `WHOLE` seconds."""


@spec
class ReportSpec:
    """The option on the page of a run; the field's name is the option's."""

    report: bool = declared


class HasFiles(Protocol):
    """What leaves something on disk that a page shows."""

    def due(self, clock: Clock) -> bool: ...


class RunReport:
    """Writes `{name}-report.html` beside the log at `log`; None (any process but the main one, or not wanted): nothing.

    It is made anew where one of `shown` is due, and now and then where one of `measured` is. In between a thread puts
    new figures into it, which costs the loop nothing. A page is made of the run's files and of what the loop knows, and
    no failure of it touches the run: it is reported once, as a warning.
    """

    def __init__(self, log: Path | None, shown: Sequence[HasFiles], measured: Sequence[HasFiles] = ()) -> None:
        self._log = log
        self._shown = shown
        self._measured = measured
        self._has_failed = False
        self._html: str | None = None
        self._mutex = threading.RLock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._warnings = _LastWarning()
        self._cost = self._written_at = 0.0

    def begin(self, work: Work) -> None:
        """From here on the page is kept up to date."""
        if self._log is None:
            return
        logging.getLogger().addHandler(self._warnings)
        self._thread = threading.Thread(target=self._keep_up, args=(work,), name="page of the run", daemon=True)
        self._thread.start()

    def _keep_up(self, work: Work) -> None:
        pause = FIRST
        while not self._over.wait(pause):
            with self._mutex:
                if not self._over.is_set():
                    self.refresh(work)
            pause = EVERY

    def refresh(self, work: Work) -> None:
        """Write the page with figures of now; nothing of the run is drawn, measured or waited for."""
        assert self._log is not None
        try:
            figures = live_figures(work, self._warnings.text)
            from library.report.run_page import live_page, page_of

            begun = time.monotonic()
            age = begun - self._written_at
            if self._html is None or age > max(WHOLE, WHOLE_SHARE * self._cost):
                self._html = live_page(self._log, figures)
                self._written_at = time.monotonic()
                self._cost = self._written_at - begun
            else:
                self._html = with_live_figures(self._html, figures)
            write_page(page_of(self._log), self._html)
        except Exception as error:
            self._failed(work, error)

    def renew(self) -> None:
        """There is something new to show, such as the first samples: the next page is a whole one."""
        self._html = None

    def write_if_due(self, work: Work) -> None:
        """After the files and samples of a step: what the page shows last is what is newest on disk.

        The last step's are on the page of the end, which follows at once.
        """
        if self._log is None or work.clock.finished:
            return
        if any(part.due(work.clock) for part in self._shown) or (
            time.monotonic() - self._written_at > SHARE * self._cost
            and any(part.due(work.clock) for part in self._measured)
        ):
            self._write(work, running=True)

    def write(self, work: Work) -> None:
        """At the end of the run, however it came."""
        if self._log is None:
            return
        logging.getLogger().removeHandler(self._warnings)
        self._over.set()
        self._write(work, running=False)
        if self._thread is not None:
            self._thread.join(timeout=EVERY)

    def _write(self, work: Work, *, running: bool) -> None:
        assert self._log is not None
        begun = time.monotonic()
        with self._mutex:
            try:
                if running:
                    work.journal.take_stock(work.trainables, work.clock, work.processes.device)
                from library.report.run_page import live_page, page_of, write_run_page

                if running:
                    self._html = live_page(self._log, live_figures(work, self._warnings.text))
                    page = page_of(self._log)
                    write_page(page, self._html)
                else:
                    page = write_run_page(self._log, running=False)
            except Exception as error:  # whatever it is: the training is worth more than a page about it
                self._failed(work, error)
            else:
                if page not in work.journal.saved:
                    work.journal.saved.append(page)
        self._written_at = time.monotonic()
        self._cost = self._written_at - begun

    def _failed(self, work: Work, error: Exception) -> None:
        work.journal.saved = [path for path in work.journal.saved if path.suffix != ".html"]  # an old page
        if not self._has_failed:
            self._has_failed = True
            work.journal.say(f"the report could not be written, the training goes on: {error}", logging.WARNING)


class _LastWarning(logging.Handler):
    """Keeps the last warning that any module has logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def live_figures(work: Work, warning: str = "") -> LiveFigures:
    """How the run is doing, from what its loop knows without asking the device."""
    clock, journal = work.clock, work.journal
    done = clock.global_step - journal.first_step
    per_step = journal.seconds / done if done else None
    free, owner = free_memory(work.processes.device)
    course = list(journal.course.points)
    return LiveFigures(
        step=clock.global_step,
        total_steps=clock.total_steps,
        seconds_left=None if per_step is None else per_step * max(0, clock.total_steps - clock.global_step),
        seconds_per_step=per_step,
        loss=course[-1][1] if course else None,
        course=course,
        free_memory=free,
        memory_of=owner,
        warning=journal.last_warning or warning,
    )


def free_memory(device: torch.device) -> tuple[int | None, str]:
    """Bytes that are free where the run computes, and whose they are."""
    if (gpu := accelerator(device)) is not None:
        return gpu.mem_get_info(device)[0], "of the GPU"
    return psutil.virtual_memory().available, "of this computer"
