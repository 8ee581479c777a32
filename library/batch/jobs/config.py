"""The options of each job: the config of all, what the jobs file changes, and the command line; written as one file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.atomic import atomic
from library.batch.jobs.job import Job
from library.batch.jobs.jobs_file import OF_THE_BATCH
from library.config.checks import problems as option_problems
from library.config.checks import there_is_something_to_train
from library.config.datasets import dataset_problems, plan_datasets
from library.config.image_folders import SourceSpec
from library.config.option import Option, Settings, Written, by_name
from library.config.options.config import CONFIG
from library.config.options.dataset import DATASET, DATASETS_OF_BATCH
from library.config.options.logging import LOGGING
from library.config.options.plan import PLAN
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import settle
from library.config.toml_file import toml_text
from library.config.values import path_or_name, written_form
from library.errors import Problem, UserError

OPTIONS = by_name(ALL_TRAIN_NETWORK)
STAYS_WITH_THE_BATCH = tuple(option.name for option in (*CONFIG, *PLAN))
PICTURES = tuple(option.name for option in DATASET if option.of_batch == DATASETS_OF_BATCH)
ALONE = "train_network.py --config_file"


@dataclass(frozen=True)
class Prepared:
    """A job with its options, read and checked."""

    job: Job
    settings: Settings


def prepare(base: Settings, jobs: Iterable[Job], problems: list[Problem]) -> list[Prepared]:
    """The jobs with their options. What is wrong in several of them is reported once, with the name of the first."""
    problems += base_problems(base)
    taken = [name for name in base if name in OPTIONS and base.explicit(name) and name not in STAYS_WITH_THE_BATCH]
    file, spoken = (
        [_written(base, name) for name in taken if base.origins[name].kind == kind] for kind in ("file", "command line")
    )
    prepared = []
    found: dict[str, list[str]] = defaultdict(list)
    empty: dict[Path, list[Problem]] = {}
    for job in jobs:
        settings, wrong = effective(job, file, spoken)
        prepared.append(Prepared(job, settings))
        if not wrong:
            if job.dataset.path not in empty:
                empty[job.dataset.path] = no_images(settings)
            wrong = empty[job.dataset.path]
        for problem in wrong:
            found[str(problem)].append(job.name)
    for message, names in found.items():
        where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        problems.append(Problem(message, where))
    return prepared


def effective(job: Job, file: Sequence[Written], spoken: Sequence[Written]) -> tuple[Settings, list[Problem]]:
    """A job's settings: the config file, the jobs file over it, the command line over both."""
    wrong: list[Problem] = []
    under = [item for item in file if item.option.name not in PICTURES]
    settings = settle(OPTIONS, [*under, *job.written, *spoken], wrong)
    settings.dataset_tables = job.dataset.tables
    # Jobs share what they have encoded, so it is kept on disk; the posteriors are the same as in memory.
    if settings.take(SourceSpec).cache_latents and not settings.explicit("cache_latents_to_disk"):
        settings.values["cache_latents_to_disk"] = True
        settings.origins["cache_latents_to_disk"] = settings.origins["cache_latents"]
    for name, option in OPTIONS.items():
        value = settings[name]
        if settings.explicit(name) and option.type is Path and isinstance(value, Path):
            settings.values[name] = Path(os.path.abspath(value))
        elif settings.explicit(name) and option.type is path_or_name and value and os.path.exists(value):
            settings.values[name] = os.path.abspath(value)
    wrong += dataset_problems(settings)
    idle = [] if job.trains else [problem.message for problem in there_is_something_to_train(settings)]
    wrong += [problem for problem in option_problems(settings) if problem.message not in idle]
    return settings, wrong


def no_images(settings: Settings) -> list[Problem]:
    """The problem of a dataset whose folders have no image in them."""
    try:
        plan_datasets(settings)
    except UserError as error:
        return [Problem(str(error))]
    return []


def base_problems(base: Settings) -> Iterator[Problem]:
    """What the config of all jobs cannot say."""
    if base.dataset_tables is not None:
        yield Problem(
            f"{base.dataset_tables.path.name} has [[datasets]], but a batch takes its pictures from `datasets` of its "
            "jobs file; write them into a file of their own and name it there."
        )
    for name in OF_THE_BATCH.keys() - {option.name for option in LOGGING} - {*STAYS_WITH_THE_BATCH}:
        spoken = base.origins[name].kind == "command line"
        if spoken or (name in ("resume", "debug_dataset") and base.explicit(name) and base[name]):
            yield Problem(f"{base.place(name)} cannot be used in a batch: {OF_THE_BATCH[name]}.")


def write_config(prepared: Prepared, path: Path) -> None:
    """The job as a config that train_network.py runs alone, to the same weights."""
    settings = prepared.settings
    values: dict[str, Any] = {
        name: written_form(settings[name])
        for name, option in OPTIONS.items()
        if settings.explicit(name) and settings[name] is not None and not _is_kept_back(option)
    }
    if settings.dataset_tables is not None:
        values |= dict(settings.dataset_tables.tables)
    with atomic(path) as temporary:
        title = f"# Job {prepared.job.name}. Alone: {ALONE} {path.name}\n"
        temporary.write_text(title + toml_text(values), encoding="utf-8", newline="\n")


def _is_kept_back(option: Option) -> bool:
    return option.secret or option.name in STAYS_WITH_THE_BATCH


def _written(base: Settings, name: str) -> Written:
    return Written(OPTIONS[name], written_form(base[name]), base.origins[name])
