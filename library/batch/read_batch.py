"""A batch from its options to the ledger: what there is to do, checked before anything is begun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.batch.engines.devices import GPU_NAMES
from library.batch.jobs import job_state
from library.batch.jobs.config import OPTIONS, Prepared, prepare, write_config
from library.batch.jobs.expansion import chosen, expand
from library.batch.jobs.fingerprint import Digests, JobFingerprint, key_of
from library.batch.jobs.job import Job
from library.batch.jobs.jobs_file import JobsFile, read_jobs_file
from library.batch.jobs.ledger import DONE, Ledger, Record
from library.config.option import Settings
from library.config.options.batch import BATCH
from library.config.spec import declared, spec_of
from library.errors import ConfigError, raise_all


@spec_of(BATCH)
class BatchSpec:
    """The options on which jobs are done; field names are the options'."""

    jobs: Path | None = declared
    only: Sequence[str] | None = declared
    retry: str | None = declared
    verify: bool = declared


@dataclass(frozen=True)
class BatchOfJobs:
    """What is to be done: the file, the jobs that this start is about, the ledger, and all jobs of the file."""

    file: JobsFile
    prepared: Sequence[Prepared]
    ledger: Ledger
    everyone: Sequence[Prepared]

    @property
    def jobs(self) -> list[Job]:
        return [prepared.job for prepared in self.prepared]

    @property
    def records(self) -> list[Record]:
        return self.ledger.records([job.name for job in self.jobs])


def read_batch(settings: Settings) -> BatchOfJobs:
    """The batch of the options. Raises ConfigError with everything that is wrong."""
    spec = settings.take(BatchSpec)
    if spec.jobs is None:
        raise ConfigError("`--jobs` is missing: the TOML file that says which jobs there are.")
    file, problems = read_jobs_file(spec.jobs, OPTIONS)
    jobs = expand(file, OPTIONS, problems)
    prepared = prepare(settings, jobs, problems)
    raise_all(problems, ConfigError)
    if not jobs:
        raise ConfigError(f"{file.path.name} makes no job: everything is excluded.")
    names = {job.name for job in chosen(jobs, spec.only)}
    output_dir = Path(os.path.abspath(file.batch["output_dir"]))
    return BatchOfJobs(file, [p for p in prepared if p.job.name in names], Ledger(output_dir), prepared)


def refuse_other_jobs(batch: BatchOfJobs) -> None:
    """Raise ConfigError where a finished name is another job's now; nothing is written."""
    digests = Digests.load(batch.ledger.folder / "digests.json")
    known = [(prepared, record) for prepared, record in zip(batch.prepared, batch.records, strict=True) if record.key]
    job_state.refuse_other_jobs([(record, key_of(prepared, digests)) for prepared, record in known])


def bring_up(batch: BatchOfJobs, spec: BatchSpec) -> None:
    """Write the jobs and their configs into the ledger, with what changed since the last start.

    Raises ConfigError where a name in the ledger is another job's.
    """
    ledger = batch.ledger
    ledger.create()
    ledger.stop_file.unlink(missing_ok=True)
    digests = Digests.load(ledger.folder / "digests.json")
    keys = {prepared.job.name: key_of(prepared, digests) for prepared in batch.prepared}
    digests.save()
    found = [(ledger.read(name), key) for name, key in keys.items()]
    job_state.refuse_other_jobs(found)
    plan: dict[str, Any] = {"jobs_file": str(batch.file.path), "jobs": [job.name for job in batch.jobs]}
    if not spec.only:
        ledger.write_plan(plan)
    for prepared in batch.prepared:
        _bring_up_one(ledger, prepared, keys[prepared.job.name], spec)


def _bring_up_one(ledger: Ledger, prepared: Prepared, key: JobFingerprint, spec: BatchSpec) -> None:
    job = prepared.job
    with ledger.held(job.name) as mine:
        if not mine:  # another driver is at it
            return
        old = ledger.read(job.name)
        folder = ledger.output_dir / job.name
        if not key.agrees(old.key, old.parts) and old.state in job_state.FAILURES:
            ledger.set_aside(old)  # states of another configuration, which nothing can go on from
        new = job_state.brought_up(old, job, key, spec.retry, folder)
        if spec.verify and new.state == DONE:
            new = job_state.verified(new, folder)
        if new != old:
            ledger.write(new)
        if not job_state.settled(new) or not ledger.config(job.name).exists():
            write_config(prepared, ledger.config(job.name))


def read_devices(devices: str | None) -> list[str]:
    """The devices that `--devices` names: numbers or names of GPUs, or "cpu". Raises ConfigError.

    Numbers count those that an outer CUDA_VISIBLE_DEVICES leaves, as CUDA counts them.
    """
    if devices is None:
        return [""]
    names = [name.strip() for name in str(devices).split(",")]
    wrong = [name for name in names if not (name.isdigit() or name == "cpu" or name.startswith(GPU_NAMES))]
    if wrong:
        raise ConfigError(
            f"`--devices {devices}`: {wrong[0]!r} is neither the number of a GPU nor cpu, "
            "nor a name such as GPU-... or MIG-..."
        )
    return names
