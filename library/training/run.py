"""A run: what the loop orders, put together."""

from __future__ import annotations

from dataclasses import dataclass

from library.training.callbacks.checkpoints import Checkpoints
from library.training.callbacks.report import RunReport
from library.training.callbacks.samples import Previews
from library.training.callbacks.validation import Validation
from library.training.saving.lock import OutputLock
from library.training.work import Work


@dataclass(kw_only=True)
class Run(Work):
    """The work of a training, and what surrounds its step."""

    checkpoints: Checkpoints
    previews: Previews
    lock: OutputLock
    validation: Validation
    report: RunReport
