"""A run: what the loop orders, put together."""

from __future__ import annotations

from dataclasses import dataclass

from library.training.checkpoints import Checkpoints
from library.training.lock import OutputLock
from library.training.previews import Previews
from library.training.reports import RunReport
from library.training.validation import Validation
from library.training.work import Work


@dataclass(kw_only=True)
class Run(Work):
    """The work of a training, and the rooms around its step."""

    checkpoints: Checkpoints
    previews: Previews
    lock: OutputLock
    validation: Validation
    report: RunReport
