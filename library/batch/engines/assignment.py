"""What a driver gives to whatever trains, and what comes back: plain data, so that it travels between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from library.batch.jobs.ledger import BY_USER, STOPPED

FAULT, OUT_OF_MEMORY, NO_ROOM, WORKER_DIED = "fault", "out of memory", "disk full", "worker died"
"""Error classes that are not a person's doing: a bug, or what may go better in a fresh process or later."""


@dataclass(frozen=True)
class Assignment:
    """One attempt at a job. `config` is its file; `stop_files` ask it to stop when one of them is there.

    `beside` is the folder of the config of all jobs: modules that lie there are found.
    """

    name: str
    config: str
    resume: bool = False
    trains: bool = True
    stop_files: tuple[str, ...] = ()
    log: str = ""
    beside: str = ""

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Assignment:
        """From `asdict` of one, as it has come through JSON."""
        return cls(**{**plain, "stop_files": tuple(plain["stop_files"])})


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `error_class` is empty where it is done; `signal` is the one that stopped it, if any."""

    error_class: str = ""
    message: str = ""
    signal: int | None = None
    steps: int = 0
    peak_gb: float | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return not self.error_class

    @property
    def stopped(self) -> bool:
        return self.error_class == STOPPED

    @property
    def leaves_doubt(self) -> bool:
        """Whether what trained may not be trusted with another job."""
        return self.error_class not in ("", BY_USER, STOPPED)


class Trainer(Protocol):
    """What an engine offers for one device."""

    device: str

    def train(self, assignment: Assignment) -> Outcome:
        """Make one attempt; never raises for what the job did."""
        ...

    def close(self) -> None: ...
