"""Whether a job is begun: from its record, its key, and what was asked for at this start. Pure functions."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from library.batch.jobs.fingerprint import JobFingerprint
from library.batch.jobs.job import Job
from library.batch.jobs.ledger import CUT_OFF, DONE, FAILED, GAVE_UP, PENDING, RUNNING, Record
from library.errors import ConfigError, Problem, raise_all
from library.path_safety import path_inside

logger = logging.getLogger(__name__)

FAILURES = (FAILED, GAVE_UP)


def settled(record: Record) -> bool:
    """Whether nothing more is to be done for the job at this start."""
    return record.state in (DONE, *FAILURES)


def brought_up(record: Record, job: Job, key: JobFingerprint, retry: str | None, folder: Path) -> Record:
    """The record at the start of a batch: a new one filled in, and what may be tried again made pending.

    `folder` is where the job's outputs are looked for. What was done, and whose files are gone, is done again.
    """
    is_same = key.agrees(record.key, record.parts)
    record = replace(
        record, dataset=job.dataset.name, method=job.method, seed=job.seed, key=key.hash, parts=asdict(key)
    )
    if record.state == DONE and not outputs_there(record, folder):
        return replace(record, state=PENDING)
    if record.state in FAILURES and (retry == "failed" or not is_same):
        return replace(record, state=PENDING, forgiven=len(record.attempts))
    return record


def refuse_other_jobs(found: Sequence[tuple[Record, JobFingerprint]]) -> None:
    """Raise ConfigError where a name has files of another job: they would be written over, or taken for this one's."""
    problems = []
    for record, key in found:
        has_files = record.state == DONE or any(attempt.steps for attempt in record.attempts)
        if key.agrees(record.key, record.parts) or not has_files or record.state in FAILURES:
            continue
        changes = key.differences(record.parts) or ["the version of the ledger has changed"]
        what = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")
        problems.append(Problem(f"{record.name} is in the ledger as another job: {what}."))
    if problems:
        advice = (
            "Give the new jobs another `output_name` or `output_dir`, or delete the folders and records of the old."
        )
        raise_all([*problems, Problem(advice)], ConfigError)


def outputs_there(record: Record, folder: Path) -> bool:
    """Whether all that a job left is there, by name and size; a name that leads out of `folder` is not."""
    paths = [(path_inside(folder, output["path"]), output["bytes"]) for output in record.outputs]
    return all(path is not None and path.is_file() and path.stat().st_size == size for path, size in paths)


def verified(record: Record, folder: Path) -> Record:
    """A finished job whose files have other bytes than it left is done again."""
    for output in record.outputs:
        with open(folder / output["path"], "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != output["sha256"]:
                logger.info(f"{record.name}: {output['path']} is not the file that the job left; it is trained again")
                return replace(record, state=PENDING)
    return record


def after_a_cut(record: Record, now: float) -> Record:
    """A record that says `running` under a free lock: its driver died. That attempt does not count."""
    if record.state != RUNNING:
        return record
    attempts = [
        a if a.ended is not None else replace(a, ended=now, exit=CUT_OFF, error_class=CUT_OFF) for a in record.attempts
    ]
    return replace(record, state=PENDING, attempts=attempts)


def state_after(record: Record, max_attempts: int, retry: str | None) -> str:
    """The state of a job after its last attempt has failed through no fault of a person."""
    return GAVE_UP if record.failures >= max_attempts or retry == "none" else PENDING
