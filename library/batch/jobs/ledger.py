"""What has become of each job, in files: the truth of a batch, whatever engine trains and however it was stopped.

    _batch/batch.json              what was asked for: the jobs in their order
    _batch/jobs/NAME.json          one job, replaced as a whole; NAME.lock beside it is held by who trains it
    _batch/configs/NAME.toml       its options, as train_network.py runs them alone
    _batch/events.jsonl            what happened when, for eyes
    _batch/logs/NAME.ATTEMPT.log   what an attempt printed

A lock is the kernel's: it is free the moment that its process ends, however it ends. So a job that says `running` while
its lock is free was cut off, and is taken up again.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from library.atomic import atomic, sweep_temporaries
from library.batch.jobs.expansion import LEDGER
from library.errors import UserError

VERSION = 1
PENDING, RUNNING, DONE, FAILED, GAVE_UP, CANCELLED = "pending", "running", "done", "failed", "gave_up", "cancelled"
BY_USER = "user"
"""The error class of what a person did: tried again only when something has changed."""
STOPPED = "stopped"
"""That of an attempt which was asked to stop: it does not count."""
CUT_OFF = "cut off"
"""That of an attempt whose driver died with it: it does not count either."""


@dataclass
class Attempt:
    """One time that a job was begun. Times are seconds since 1970; `exit` is "ok", a signal, or what went wrong."""

    host: str
    pid: int
    device: str
    begun: float
    ended: float | None = None
    exit: str = ""
    error_class: str = ""
    message: str = ""
    steps: int = 0
    peak_gb: float | None = None
    log: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is one of the `max_attempts`."""
        return self.ended is not None and self.error_class not in ("", STOPPED, CUT_OFF)


@dataclass
class Record:
    """One job as the ledger knows it. `outputs`: path, bytes and sha256 of what it left; `results`: its figures.

    `forgiven` is how many attempts were made before `--retry failed` began to count anew.
    """

    name: str
    dataset: str = ""
    method: str = ""
    seed: int = 0
    key: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    state: str = PENDING
    attempts: list[Attempt] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    forgiven: int = 0

    @property
    def failures(self) -> int:
        """The attempts that count against the job."""
        return sum(attempt.counts for attempt in self.attempts[self.forgiven :])

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None


class Ledger:
    """The ledger in the `_batch` folder of `output_dir`."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.folder = output_dir / LEDGER
        self.jobs, self.configs, self.logs = (self.folder / name for name in ("jobs", "configs", "logs"))
        self.stop_file = self.folder / "stop"
        self._written: dict[str, tuple[int, Record]] = {}

    def create(self) -> None:
        """The folders, without what killed drivers left in them."""
        try:
            for folder in (self.jobs, self.configs, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the ledger `{self.folder}` cannot be written: {error.strerror}") from None
        for folder in (self.folder, self.jobs, self.configs):
            sweep_temporaries(folder)

    def config(self, name: str) -> Path:
        return self.configs / f"{name}.toml"

    def read(self, name: str) -> Record:
        """The record of a job; a new one if there is none. Raises `UserError` for a file that is no record."""
        path = self.jobs / f"{name}.json"
        try:
            data = json.loads(path.read_bytes())
            data["attempts"] = [Attempt(**attempt) for attempt in data["attempts"]]
            if data["name"] != name:  # what is written and moved goes by it
                raise ValueError(f"it is the record of {data['name']!r}")
            known = {item.name for item in fields(Record)}
            return Record(**{key: value for key, value in data.items() if key in known})
        except FileNotFoundError:
            return Record(name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"`{path}` is no record of a job ({error}); delete it to train this job anew") from None

    def write(self, record: Record) -> None:
        write_json(self.jobs / f"{record.name}.json", {"version": VERSION, **asdict(record)})

    def set_aside(self, record: Record) -> None:
        """Move what a failed job has left into `_batch/replaced`: its name now belongs to a job of other options."""
        folder = self.output_dir / record.name
        if folder.exists():
            place = self.folder / "replaced" / f"{record.name}.{len(record.attempts)}"
            place.parent.mkdir(exist_ok=True)
            with suppress(OSError):
                folder.rename(place)

    def ask_to_stop(self) -> None:
        """Raises `UserError` where there is no batch to stop."""
        try:
            self.stop_file.touch()
        except OSError:
            raise UserError(f"there is no batch in `{self.output_dir}` to be stopped") from None

    def write_plan(self, plan: dict[str, Any]) -> None:
        write_json(self.folder / "batch.json", {"version": VERSION, **plan})

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Hold the lock of a job inside, if it is free; says whether it is held."""
        lock = FileLock(self.jobs / f"{name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def is_free(self, name: str) -> bool:
        with self.held(name) as mine:
            return mine

    def event(self, what: str, **facts: Any) -> None:
        """One line for eyes; a disk that is full must not lose a job for it."""
        line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "host": socket.gethostname(), "pid": os.getpid()}
        with suppress(OSError), open(self.folder / "events.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"event": what} | facts, ensure_ascii=False) + "\n")

    def records(self, names: Sequence[str]) -> list[Record]:
        return [self.read(name) for name in names]


def write_json(path: Path, data: Any) -> None:
    """JSON that comes to be all at once."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
