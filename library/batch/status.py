"""How far a batch is, and what it would do: read from the ledger and the options, nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from library.batch.jobs.config import Prepared
from library.batch.jobs.forecast import Forecast, forecasts
from library.batch.jobs.job_state import settled
from library.batch.jobs.jobs_file import OF_THE_BATCH
from library.batch.jobs.ledger import PENDING, RUNNING, Record
from library.batch.jobs.progress import progress_of
from library.batch.read_batch import BatchOfJobs
from library.batch.results.table import summary, table_text, time_text
from library.config.datasets import plan_datasets
from library.console import show, without_notes
from library.formatting import aligned, file_size
from library.training.saving.file_names import SavingSpec

OF_EVERY_JOB = (*OF_THE_BATCH, "sample_prompts")
UNKNOWN = "-"


def show_status(batch: BatchOfJobs) -> None:
    """The table of all jobs, and how far those are that are trained now.

    A job that says `running` while nobody holds its lock was cut off: it waits for the next start.
    """
    running = [r.name for r in batch.records if r.state == RUNNING] if batch.ledger.jobs.is_dir() else []
    cut = {name for name in running if batch.ledger.is_free(name)}
    records = [replace(r, state=PENDING) if r.name in cut else r for r in batch.records]
    show(table_text(records))
    show(f"\n{summary(records)}")
    for name in running:
        if name not in cut and (progress := progress_of(batch.ledger.output_dir, name)):
            show(f"{name}: {progress}")
    if cut:
        show(f"Cut off, and taken up by the next start: {', '.join(sorted(cut))}")


def show_plan(batch: BatchOfJobs, *, counts: bool = False) -> None:
    """Every job with its state, the disk space and the time that it takes, where its file goes, and what is set for it.

    `counts`: where no job alike is done, disk space is counted as `train_network.py --plan` does, which needs torch.
    """
    records = batch.records
    known = [(prepared, batch.ledger.read(prepared.job.name)) for prepared in batch.everyone]
    asked = list(zip(batch.prepared, records, strict=True))
    expected = forecasts(asked, known, counted_bytes) if counts else forecasts(asked, known)
    lines = [plan_line(*row) for row in zip(batch.prepared, records, expected, strict=True)]
    show(aligned([["job", "state", "disk", "time", "output", "set for it"], *lines]))
    show(f"\n{summary(records)}\n{to_come(records, expected, batch.ledger.output_dir)}")


def plan_line(prepared: Prepared, record: Record, expected: Forecast) -> list[str]:
    job = prepared.job
    own = [f"{w.option.name}={w.raw}" for w in job.written if w.option.name not in OF_EVERY_JOB]
    about = "" if expected.measured else "~"
    return [
        job.name,
        record.state if record.attempts or record.state != PENDING else "new",
        UNKNOWN if expected.size is None else f"{about}{file_size(round(expected.size))}",
        UNKNOWN if expected.seconds is None else f"{about}{time_text(expected.seconds)}",
        output_of(prepared),
        " ".join(own if job.trains else ["trains nothing", *own]),
    ]


def counted_bytes(prepared: Prepared) -> float | None:
    """What the job's weights and states will take; None for pictures alone, and for networks that cannot be counted."""
    if not prepared.job.trains:
        return None
    from library.training.plan.plan import make_plan  # torch: only where it is asked for

    settings = prepared.settings
    with without_notes():
        plan = make_plan(settings, plan_datasets(settings))
    if plan.network is None and settings["network_module"] is not None:
        return None
    sizes = [
        file.size * file.number for file in plan.files if file.size and settings["output_dir"] in file.path.parents
    ]
    return float(sum(sizes))


def output_of(prepared: Prepared) -> str:
    """The file that a job is for; of one that trains nothing, the folder of its pictures."""
    saving = prepared.settings.take(SavingSpec)
    path = saving.file(saving.last_stem) if prepared.job.trains else saving.output_dir / "sample"
    inside = os.path.relpath(path)
    return str(path) if inside.startswith(os.pardir) else inside


def to_come(records: Sequence[Record], expected: Sequence[Forecast], output_dir: Path) -> str:
    """What the jobs that are left take together, as far as it is known, and the disk space that there is."""
    left = [forecast for record, forecast in zip(records, expected, strict=True) if not settled(record)]
    if not left:
        return "Nothing is left to do."
    sizes = [forecast.size for forecast in left if forecast.size is not None]
    times = [forecast.seconds for forecast in left if forecast.seconds is not None]
    there = next(folder for folder in (output_dir, *output_dir.parents) if folder.is_dir())
    disk = f"disk {file_size(round(sum(sizes))) if sizes else 'unknown'}{_of(sizes, left)}"
    time = f"time {time_text(sum(times)) if times else 'unknown'}{_of(times, left)}"
    lines = [f"Still to come: {disk}, of {file_size(shutil.disk_usage(there).free)} free; {time}, one after another."]
    if len(sizes) < len(left) or len(times) < len(left):
        alike = "one with the same options on other pictures, under another seed, or of another length"
        lines.append(f"`{UNKNOWN}`: not known before a job alike is finished ({alike}); `--plan` counts the disk now.")
    if sizes or times:
        lines.append("`~`: what finished jobs alike took, or what `--plan` counted: weights and states alone.")
    return "\n".join(lines)


def _of(known: Sequence[float], left: Sequence[Forecast]) -> str:
    return f" (for {len(known)} of {len(left)} jobs)" if 0 < len(known) < len(left) else ""
