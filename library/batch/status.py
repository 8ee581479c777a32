"""How a batch stands, and what it would do: read from the ledger and the options, nothing is written."""

from __future__ import annotations

from library.batch.ledger import PENDING, RUNNING
from library.batch.start import Batch
from library.batch.table import summary, table_text


def show_status(batch: Batch) -> None:
    """The table of all jobs; a job that says `running` while nobody holds its lock was cut off."""
    records = batch.records
    print(table_text(records))
    print(f"\n{summary(records)}")
    if batch.ledger.jobs.is_dir():
        cut = [r.name for r in records if r.state == RUNNING and batch.ledger.is_free(r.name)]
        if cut:
            print(f"Cut off, and taken up by the next start: {', '.join(cut)}")


def show_plan(batch: Batch) -> None:
    """Every job with its state, and what is set for it."""
    width = max(len(job.name) for job in batch.jobs)
    for prepared, record in zip(batch.prepared, batch.records, strict=True):
        job = prepared.job
        own = [f"{w.option.name}={w.raw}" for w in job.written if w.option.name not in OF_EVERY_JOB]
        state = record.state if record.attempts or record.state != PENDING else "new"
        print(f"{job.name:<{width}}  {state:<8}  {'' if job.trains else 'trains nothing  '}{' '.join(own)}")
    print(f"\n{summary(batch.records)}; each leaves its files in {batch.ledger.output_dir}/NAME")


OF_EVERY_JOB = ("output_dir", "output_name", "seed", "train_data_dir", "dataset_config", "sample_prompts")
