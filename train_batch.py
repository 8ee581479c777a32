"""Train every dataset with every method and seed: train_batch.py --config_file base.toml --jobs jobs.toml"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from library.batch.driver import Driver, Limits
from library.batch.engines.create import EngineSpec, refuse_devices, trainers
from library.batch.method_modules import without_missing
from library.batch.read_batch import BatchOfJobs, BatchSpec, bring_up, read_batch, read_devices, refuse_other_jobs
from library.batch.status import show_plan, show_status
from library.batch.summary import conclude, show_results
from library.command import run_command
from library.config.option import Settings
from library.config.options.batch import BATCH
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.console import Console, log_to

logger = logging.getLogger(__name__)


def run_batch(argv: Sequence[str]) -> None:
    settings = parse(argv, BATCH, *ALL_TRAIN_NETWORK, prog="train_batch.py", description=str(__doc__))
    log_to(Console(prefix="batch"), "library.batch", __name__)
    for line in settings.warnings:
        logger.info(line)
    devices = read_devices(settings["devices"])
    batch = read_batch(settings)
    if settings["stop"]:
        batch.ledger.ask_to_stop()
    elif settings["status"]:
        show_status(batch)
    elif settings["dry_run"] or settings["plan"]:
        refuse_devices(settings.take(EngineSpec), devices)
        batch = without_missing(batch, settings, imports=True)
        refuse_other_jobs(batch)
        show_plan(batch, counts=settings["plan"])
    else:
        train(settings, devices, without_missing(batch, settings))


def train(settings: Settings, devices: Sequence[str], batch: BatchOfJobs) -> None:
    """Bring the ledger up to what is asked for, train what is not done, and show what came out."""
    refuse_devices(settings.take(EngineSpec), devices)
    bring_up(batch, settings.take(BatchSpec))
    driver = Driver(batch.ledger, batch.jobs, limits(settings, batch))
    driver.drive(trainers(settings.take(EngineSpec), devices))
    is_one_of_many = settings["worker"]
    not_evaluated: list[str] = []
    if not is_one_of_many:
        not_evaluated = show_results(batch, settings["jobs"].stem, was_stopped=bool(driver.reason))
    conclude(batch, driver.stopped_by, not_evaluated, others_may_run=is_one_of_many)


def limits(settings: Settings, batch: BatchOfJobs) -> Limits:
    config = settings["config_file"]
    return Limits(
        max_attempts=batch.file.batch["max_attempts"],
        min_free_disk=batch.file.batch["min_free_disk"],
        retry=settings["retry"],
        fail_fast=settings["fail_fast"],
        time_budget=settings["time_budget"],
        waits=not settings["worker"],
        beside=str(config.absolute().parent) if config else "",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run_batch, argv)


if __name__ == "__main__":
    sys.exit(main())
