"""A job: one dataset, one method, one seed, and the options that this makes."""

from __future__ import annotations

from dataclasses import dataclass

from library.batch.jobs.datasets import DatasetSource
from library.config.option import Written


@dataclass(frozen=True)
class Job:
    """One training. `written` are the options that the jobs file sets for it, later ones over earlier ones.

    `trains` False is the model as it is: only its samples and its validation loss.
    """

    name: str
    dataset: DatasetSource
    method: str
    seed: int
    written: tuple[Written, ...] = ()
    trains: bool = True
