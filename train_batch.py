"""Train every dataset with every method and seed: train_batch.py --config_file base.toml --jobs jobs.toml"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from library.batch.comparison import with_metrics
from library.batch.driver import Driver, Limits
from library.batch.engines.start import trainers
from library.batch.evaluation import evaluate_jobs
from library.batch.ledger import Ledger, Record
from library.batch.start import Batch, bring_up, conclude, read_batch, read_devices
from library.batch.status import show_plan, show_status
from library.batch.table import summary, table_text, write_table
from library.command import run_command
from library.config.option import Settings
from library.config.options.batch import BATCH
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse


def run_batch(argv: Sequence[str]) -> None:
    settings = parse(argv, BATCH, *ALL_TRAIN_NETWORK, prog="train_batch.py", description=str(__doc__))
    for line in settings.warnings:
        say(line)
    devices = read_devices(settings["devices"])
    batch = read_batch(settings)
    if settings["stop"]:
        batch.ledger.stop_file.touch()
        return
    if settings["status"] or settings["dry_run"]:
        (show_status if settings["status"] else show_plan)(batch)
        return
    bring_up(batch, settings, say)
    driver = Driver(batch.ledger, batch.jobs, limits(settings, batch.file.batch), say)
    driver.drive(trainers(settings, devices))
    not_evaluated = []
    if batch.file.batch["evaluate"] and not settings["worker"] and not driver.reason:
        not_evaluated = evaluate_jobs(batch.ledger, batch.jobs, batch.file.batch["evaluate"], say)
    finish(batch, settings)
    conclude(batch.records, driver.stopped_by, not_evaluated)


def limits(settings: Settings, table) -> Limits:
    return Limits(
        max_attempts=table["max_attempts"],
        min_free_disk=table["min_free_disk"],
        retry=settings["retry"],
        fail_fast=settings["fail_fast"],
        time_budget=settings["time_budget"],
        waits=not settings["worker"],
        beside=str(settings["config_file"].absolute().parent) if settings["config_file"] else "",
    )


def finish(batch: Batch, settings: Settings) -> None:
    """The table, on the console and in files, and the page."""
    ledger = batch.ledger
    records = [with_metrics(record, ledger.output_dir / record.name) for record in batch.records]
    if not settings["worker"]:
        write_table(ledger, records)
        print(table_text(records))
        show_page(ledger, records, settings["jobs"].stem)
    print(f"\n{summary(records)}. Ledger: {ledger.folder}")


def show_page(ledger: Ledger, records: Sequence[Record], title: str) -> None:
    """Write the page; a page that cannot be written costs a line, not the batch."""
    try:
        from library.batch.page import write_batch_page

        print(f"\nPage: {write_batch_page(ledger, records, title)}")
    except Exception as error:
        say(f"the page could not be written: {type(error).__name__}: {error}")


def say(line: str) -> None:
    print(f"batch: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run_batch, argv)


if __name__ == "__main__":
    sys.exit(main())
