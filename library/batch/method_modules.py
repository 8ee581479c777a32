"""Whether the network modules of a batch's methods are there, before the first job is begun."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from library.batch.jobs.config import Prepared
from library.batch.read_batch import BatchOfJobs
from library.config.module_search import ROOT, is_nowhere, where_it_may_be
from library.config.option import Settings
from library.errors import ConfigError, Problem, UserError, raise_all

logger = logging.getLogger(__name__)

OURS = {f"networks.{file.stem}" for file in (ROOT / "networks").glob("*.py")}


def without_missing(batch: BatchOfJobs, settings: Settings, *, imports: bool = False) -> BatchOfJobs:
    """The batch without the jobs whose module is not there, with `skip_missing`; else ConfigError where one is not.

    `imports`: modules of others are really imported, which finds what they lack themselves and takes torch's seconds.
    """
    missing = {}
    for name in sorted({module_of(prepared) for prepared in batch.prepared} - {""}):
        if why := why_missing(name, settings["config_file"], imports=imports and name not in OURS):
            missing[name] = why
    if not missing:
        return batch
    lines = [sentence(name, why, batch.prepared) for name, why in missing.items()]
    if not settings["skip_missing"]:
        advice = Problem("Install what is missing, or add `--skip_missing` to train the other methods.")
        raise_all([*map(Problem, lines), advice], ConfigError)
    left = [prepared for prepared in batch.prepared if module_of(prepared) not in missing]
    for line in lines:
        logger.info(f"left out: {line}")
    if not left:
        raise ConfigError("`--skip_missing` leaves no job: no method's module is there.")
    return replace(batch, prepared=left)


def module_of(prepared: Prepared) -> str:
    """The network module of a job; empty where it trains without one, or nothing."""
    return (prepared.settings["network_module"] or "") if prepared.job.trains else ""


def why_missing(name: str, config: Path | None, *, imports: bool) -> str | None:
    """What stops a module from being imported, and what to do; None where nothing does, as far as was looked."""
    if is_nowhere(name, config):
        return f"`{name}` cannot be found; {where_it_may_be(name).rstrip('.')}"
    if imports:
        from library.training.trained.plugins import import_plugin

        try:
            import_plugin(name, "network_module", ("create_network",), config)
        except UserError as error:
            return str(error)
    return None


def sentence(name: str, why: str, jobs: Sequence[Prepared]) -> str:
    mine = [prepared.job for prepared in jobs if module_of(prepared) == name]
    methods = ", ".join(dict.fromkeys(job.method for job in mine))
    return f"{methods} ({len(mine)} of {len(jobs)} jobs): {why}."
