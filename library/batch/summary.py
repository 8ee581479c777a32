"""The end of a batch: its table on the console and in files, its page, and the exit code."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from library.batch.jobs.job_state import FAILURES
from library.batch.jobs.ledger import DONE, RUNNING, Ledger, Record
from library.batch.read_batch import BatchOfJobs
from library.batch.results.evaluation import evaluate_jobs
from library.batch.results.metrics_files import not_compared, with_metrics
from library.batch.results.table import summary, table_text, write_table
from library.console import show
from library.errors import BatchFailed, BatchUnfinished, Interrupted

logger = logging.getLogger(__name__)


def show_results(batch: BatchOfJobs, title: str, *, was_stopped: bool) -> list[str]:
    """Print the table, write it and the page; the names of jobs whose pictures could not be measured."""
    config = batch.file.batch["evaluate"]
    failed = evaluate_jobs(batch.ledger, batch.jobs, config) if config and not was_stopped else []
    ledger = batch.ledger
    records = [with_metrics(record, ledger.output_dir / record.name) for record in batch.records]
    write_table(ledger, records)
    show(table_text(records))
    for line in not_compared(records):
        logger.info(line)
    show_page(ledger, records, title)
    return failed


def show_page(ledger: Ledger, records: Sequence[Record], title: str) -> None:
    """Write the page; one that cannot be written costs a line, not the batch."""
    try:
        from library.batch.results.page import write_batch_page  # matplotlib: a second, and nothing before needs it

        show(f"\nPage: {write_batch_page(ledger, records, title)}")
    except Exception as error:
        logger.info(f"the page could not be written: {type(error).__name__}: {error}")


def conclude(
    batch: BatchOfJobs, stopped_by: int | None, not_evaluated: Sequence[str] = (), *, others_may_run: bool = False
) -> None:
    """Print how many jobs are in which state, and raise what gives the exit code: it is never 0 with a failure."""
    records = batch.records
    show(f"\n{summary(records)}. Ledger: {batch.ledger.folder}")
    if stopped_by is not None:
        raise Interrupted(stopped_by)
    failed = [record for record in records if record.state in FAILURES]
    open_jobs = [record for record in records if record.state not in (DONE, *FAILURES)]
    left = [record for record in open_jobs if not (others_may_run and record.state == RUNNING)]
    if failed:
        names = ", ".join(record.name for record in failed[:3]) + (", ..." if len(failed) > 3 else "")
        rest = f"; {len(left)} are left" if left else ""
        raise BatchFailed(f"{len(failed)} of {len(records)} jobs failed: {names}{rest}")
    if not_evaluated:
        raise BatchFailed(f"the pictures of {len(not_evaluated)} jobs could not be measured: {not_evaluated[0]}")
    if left:
        raise BatchUnfinished(f"{len(left)} of {len(records)} jobs are left; the same command goes on with them")
