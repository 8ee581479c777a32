"""The loop of a batch: take a job that is free, let it be trained, write down how it ended; one for each device."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from library.batch.engines.assignment import FAULT, Assignment, Outcome, Trainer
from library.batch.jobs import job_state
from library.batch.jobs.job import Job
from library.batch.jobs.ledger import BY_USER, DONE, FAILED, GAVE_UP, PENDING, RUNNING, Attempt, Ledger, Record
from library.batch.jobs.progress import progress_of
from library.errors import DiskFull

logger = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at what others do
PAUSE_FOR_DISK = 10.0
PROGRESS = 60.0  # seconds between two lines on a job that is trained


@dataclass
class Limits:
    """When a driver stops by itself, and what it tries again."""

    max_attempts: int = 2
    min_free_disk: int = 0
    retry: str | None = None
    fail_fast: bool = False
    time_budget: float | None = None
    waits: bool = True
    """Whether to wait for jobs that other drivers train."""
    beside: str = ""
    """The folder of the config of all jobs."""


@dataclass
class Driver:
    """Drives `jobs` through `ledger`. `say` shows a line; `started` is the monotonic time of the start."""

    ledger: Ledger
    jobs: Sequence[Job]
    limits: Limits
    started: float = field(default_factory=time.monotonic)
    stopped_by: int | None = None
    reason: str = ""
    broken: list[BaseException] = field(default_factory=list)
    _signalled: bool = False
    _reported: float = field(default_factory=time.monotonic)
    _busy: set[str] = field(default_factory=set)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @property
    def stop_file(self) -> Path:
        """What asks those who train for this driver to stop."""
        return self.ledger.folder / f"stop-{socket.gethostname()}-{os.getpid()}"

    def stop(self, reason: str, number: int | None = None) -> None:
        """Begin no job, and let those that are under way stop with a state."""
        if not self.reason:
            self.reason, self.stopped_by = reason, number
            logger.info(f"stopping: {reason}")
            try:
                self.stop_file.touch()
            except OSError as error:
                logger.info(f"what is under way is trained to its end: {error}")

    @property
    def stopping(self) -> bool:
        budget = self.limits.time_budget
        if not self.reason and budget is not None and time.monotonic() - self.started > budget:
            self.stop("the time budget is used up")
        if not self.reason and self.ledger.stop_file.exists():
            self.stop("--stop was asked for")
        return bool(self.reason)

    def drive(self, trainers: Sequence[Trainer]) -> None:
        """Train until nothing is left, or a stop. One trainer is driven here, several each in a thread of its own."""
        self.stop_file.unlink(missing_ok=True)  # of a driver that was killed and had our number
        with _Handlers(self):
            try:
                if len(trainers) == 1:
                    self._watched(trainers[0])
                else:
                    self._in_threads(trainers)
            finally:
                for trainer in trainers:
                    trainer.close()
                self.stop_file.unlink(missing_ok=True)
        if self.broken:
            raise self.broken[0]

    def _in_threads(self, trainers: Sequence[Trainer]) -> None:
        threads = [threading.Thread(target=self._guarded, args=(trainer,), name=trainer.device) for trainer in trainers]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(PAUSE)
            _ = self.stopping
            self.report_progress()

    def _watched(self, trainer: Trainer) -> None:
        """Work here, while a thread looks at the clock and for a stop."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(PAUSE) and not self.stopping:
                self.report_progress()

        thread = threading.Thread(target=watch, name="clock", daemon=True)
        thread.start()
        try:
            self.work(trainer)
        finally:
            over.set()
            thread.join()

    def report_progress(self) -> None:
        """Now and then a line on each job that is trained here."""
        if time.monotonic() - self._reported < PROGRESS:
            return
        self._reported = time.monotonic()
        with self._mutex:
            busy = sorted(self._busy)
        for name in busy:
            if progress := progress_of(self.ledger.output_dir, name):
                logger.info(f"{name}: {progress}")

    def _guarded(self, trainer: Trainer) -> None:
        try:
            self.work(trainer)
        except BaseException as error:
            self.broken.append(error)
            self.stop("an error of the batch itself")

    def work(self, trainer: Trainer) -> None:
        """One device's loop."""
        while not self.stopping and not self._pausing_for_disk():
            taken = self._next()
            if taken is None:
                return
            if not taken:
                time.sleep(PAUSE)
                continue
            job = taken[0]
            try:
                self._one(job, trainer)
            finally:
                with self._mutex:
                    self._busy.discard(job.name)

    def _next(self) -> list[Job] | None:
        """A job to try for; none yet ([]) while others train the last ones; None when nothing is left to do."""
        with self._mutex:
            open_jobs = []
            for i, job in enumerate(self.jobs):
                if job.name in self._busy:
                    open_jobs.append((True, 0, i, job))
                    continue
                record = self.ledger.read(job.name)
                if not job_state.settled(record):
                    elsewhere = record.state == RUNNING and not self.ledger.is_free(job.name)
                    open_jobs.append((elsewhere, record.failures, i, job))
            free = [entry for entry in open_jobs if not entry[0]]
            if free:
                job = min(free, key=lambda entry: entry[1:3])[3]
                self._busy.add(job.name)
                return [job]
            return [] if open_jobs and self.limits.waits else None

    def _one(self, job: Job, trainer: Trainer) -> None:
        """Hold the job's lock, and make one attempt, unless another driver was quicker."""
        with self.ledger.held(job.name) as mine:
            if not mine:
                time.sleep(PAUSE / 5)
                return
            record = job_state.after_a_cut(self.ledger.read(job.name), time.time())
            if job_state.settled(record):
                return
            number = len(record.attempts) + 1
            log = self.ledger.logs / f"{job.name}.{number}.log"
            attempt = Attempt(socket.gethostname(), os.getpid(), trainer.device, time.time(), log=log.name)
            assignment = Assignment(
                name=job.name,
                config=str(self.ledger.config(job.name)),
                resume=bool(record.attempts) and job.trains,
                trains=job.trains,
                stop_files=(str(self.ledger.stop_file), str(self.stop_file)),
                log=str(log),
                beside=self.limits.beside,
            )
            record = replace(record, state=RUNNING, attempts=[*record.attempts, attempt])
            self.ledger.write(record)
            self.ledger.event("begun", job=job.name, attempt=number, device=trainer.device)
            logger.info(f"{job.name}: begun on {trainer.device}" + (f", attempt {number}" if number > 1 else ""))
            outcome = trainer.train(assignment)
            self._conclude(record, attempt, outcome)

    def _conclude(self, record: Record, attempt: Attempt, outcome: Outcome) -> None:
        ended = replace(
            attempt,
            ended=time.time(),
            exit="ok" if outcome.done else outcome.error_class,
            error_class=outcome.error_class,
            message=outcome.message,
            steps=outcome.steps,
            peak_gb=outcome.peak_gb,
        )
        record = replace(record, attempts=[*record.attempts[:-1], ended])
        if outcome.done:
            record = replace(record, state=DONE, outputs=outcome.outputs, results=outcome.results)
        elif outcome.stopped:
            record = replace(record, state=PENDING)
        elif outcome.error_class == BY_USER:
            record = replace(record, state=FAILED)
        else:
            record = replace(record, state=job_state.state_after(record, self.limits.max_attempts, self.limits.retry))
        self._write(record)
        self.ledger.event("ended", job=record.name, attempt=len(record.attempts), exit=ended.exit, state=record.state)
        logger.info(sentence(record))
        if outcome.signal is not None:  # the run caught what was meant for this process
            self.stop(outcome.message, outcome.signal)
        if self.limits.fail_fast and record.state in (FAILED, GAVE_UP):
            self.stop(f"{record.name} has failed")

    def _write(self, record: Record) -> None:
        """Keep the result, also where the disk is full for the moment: it is tried for as long as somebody waits."""
        while True:
            try:
                self.ledger.write(record)
                return
            except DiskFull as error:
                logger.info(f"{error}")
                time.sleep(PAUSE_FOR_DISK)
                if self.stopping:
                    raise

    def _pausing_for_disk(self) -> bool:
        """Wait while there is less disk space than asked for; True if the batch was stopped meanwhile."""
        reported = False
        while (free := shutil.disk_usage(self.ledger.output_dir).free) < self.limits.min_free_disk:
            if not reported:
                asked = f"`min_free_disk` asks for {self.limits.min_free_disk / 1e9:g}"
                logger.info(f"{self.ledger.output_dir} has {free / 1e9:.2f} GB free, and {asked}: waiting for more")
                self.ledger.event("waits for disk", free=free)
                reported = True
            for _ in range(int(PAUSE_FOR_DISK / PAUSE)):
                if self.stopping:
                    return True
                time.sleep(PAUSE)
        return False

    def arrive(self, number: int) -> None:
        """A signal to the driver: the first stops with states, the second at once."""
        if self._signalled:
            os._exit(128 + number)
        self._signalled = True
        self.stop(signal.Signals(number).name, number)


class _Handlers:
    """SIGINT and SIGTERM go to the driver inside."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._arrive)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrive(self, number: int, _frame: FrameType | None) -> None:
        self._driver.arrive(number)


def sentence(record: Record) -> str:
    """How a job's last attempt ended, in a line."""
    last = record.last
    assert last is not None
    took = f"{(last.ended or last.begun) - last.begun:.1f} s"
    if record.state == DONE:
        return f"{record.name}: done in {took}"
    first = last.message.splitlines()[0] if last.message else last.exit
    end = {FAILED: "failed", PENDING: "stopped" if not last.counts else "will be tried again", GAVE_UP: "given up"}
    return f"{record.name}: {end[record.state]} after {took}: {first}" + (f" ({FAULT})" if last.exit == FAULT else "")
