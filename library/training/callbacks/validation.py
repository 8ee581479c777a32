"""Validation: the loss on pictures that are held out, always on the same noise. Does the run still learn, or only
remember?"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from library.config.spec import declared, spec
from library.data.batches import Batch
from library.data.dataset import Dataset
from library.errors import UserError
from library.training.callbacks.early_stopping import describe_stop, should_stop
from library.training.callbacks.overfit_verdict import Course, Verdict, judge, mean
from library.training.clock import Clock, Epochs, Interval, Steps
from library.training.objectives import SampleLoss
from library.training.runtime.distributed import Processes
from library.training.work import BatchSource, Work

logger = logging.getLogger(__name__)

EPOCH = 0
"""The epoch that the draws belong to; the run's own begin with 1. So order, posterior and noise are always the same."""
TIMESTEPS = 4
"""How many timesteps every picture is measured at, as in kohya's trainer."""


@spec
class ValidationSpec:
    """The options on validation; field names are the options'."""

    validate_every_n_steps: int | None = declared
    validate_every_n_epochs: int | None = declared
    max_validation_steps: int | None = declared
    validation_seed: int | None = declared
    save_best: bool = declared
    early_stop: bool = declared
    early_stop_patience: int = declared
    min_timestep: int | None = declared
    max_timestep: int | None = declared

    @property
    def seed(self) -> int:
        return self.validation_seed or 0

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """After every epoch, unless something else is asked for."""
        asked: list[Interval] = []
        if self.validate_every_n_steps:
            asked.append(Steps(self.validate_every_n_steps))
        if self.validate_every_n_epochs or not asked:
            asked.append(Epochs(self.validate_every_n_epochs or 1))
        return tuple(asked)

    def timesteps(self, count: int) -> list[int]:
        """Those that cut the run's range of `count` timesteps into equal parts: 200, 400, 600 and 800 of 1000."""
        low, high = self.min_timestep or 0, self.max_timestep or count
        return [low + (high - low) * (i + 1) // (TIMESTEPS + 1) for i in range(TIMESTEPS)]


def check_held_out(spec: ValidationSpec, dataset: Dataset) -> None:
    """Refuse to look for the best step on no picture; say how many pictures that takes from the training."""
    if not spec.save_best:
        return
    held_out = len(dataset.validation.pictures) if dataset.validation else 0
    if not held_out:
        raise UserError(
            "`save_best` needs pictures that are held out, and none is; set `validation_split` to the share of them, "
            "for example 0.2"
        )
    trained = sum(not picture.subset.is_reg for picture in dataset.pictures)
    logger.info(f"{held_out} of {held_out + trained} pictures are held out to find the best step (`validation_split`)")


class LossAtTimesteps(Protocol):
    """What validation asks of an objective."""

    @property
    def timestep_count(self) -> int: ...

    def loss_at(self, batch: Batch, timesteps: Tensor) -> SampleLoss: ...


class Validation:
    """Measures `objective` on `batches` when it is due; without batches nothing is held out, and nothing is due."""

    def __init__(
        self,
        spec: ValidationSpec | None = None,
        objective: LossAtTimesteps | None = None,
        batches: BatchSource | None = None,
    ) -> None:
        self._spec = spec or ValidationSpec()
        self._objective = objective
        self._batches = batches
        self.course = Course()
        self.keeps_best = batches is not None and self._spec.save_best

    def due(self, clock: Clock) -> bool:
        """Also at the end, where a best step is kept: it is compared with the last one."""
        if self._batches is None:
            return False
        at_end = clock.finished and self.keeps_best
        return at_end or any(clock.is_due(interval) for interval in self._spec.intervals)

    @property
    def has_seen_enough(self) -> bool:
        """Whether the run is to end early."""
        return self._spec.early_stop and should_stop(self.course, self._spec.early_stop_patience)

    def why_enough(self, clock: Clock) -> str:
        """A sentence for the end that comes early."""
        return describe_stop(self.course, self._spec.early_stop_patience, clock)

    def measure_if_due(self, work: Work) -> bool:
        """Log the validation loss, without a trace in the run: nothing here draws from torch's own generator.

        Returns whether it was due.
        """
        if not self.due(work.clock):
            return False
        with work.looked_at("validation"):
            figures = self.measure(work.processes, work.clock.global_step)
        work.journal.measured("validation", work.clock, **figures)
        return True

    def measure(self, processes: Processes, step: int) -> dict[str, Any]:
        """The loss on all that is held out after `step`, which joins the course: its mean, and at each timestep."""
        assert self._objective is not None
        timesteps = self._spec.timesteps(self._objective.timestep_count)
        losses, relative = self._measure(processes, timesteps)
        course = self.course if self.course.pictures == sorted(losses) else Course(pictures=sorted(losses))
        course.add(step, {name: mean(at) for name, at in losses.items()})
        self.course = course
        by_timestep = [mean([losses[name][i] for name in course.pictures]) for i in range(len(timesteps))]
        return {
            "validation_loss": course.last_loss,
            "validation_relative_mse": relative,
            "validation_loss_at": dict(zip(map(str, timesteps), by_timestep, strict=True)),
        }

    def _measure(self, processes: Processes, timesteps: Sequence[int]) -> tuple[dict[str, list[float]], float]:
        """Each picture's losses, by its id, and the mean relative error; over all processes."""
        assert self._objective is not None
        assert self._batches is not None
        losses: dict[str, list[float]] = {}
        errors: dict[str, float] = {}
        for micro_batches in _at_most(self._batches.epoch(EPOCH), self._spec.max_validation_steps):
            for batch in micro_batches:
                measured = [self._objective.loss_at(batch, torch.full((len(batch),), at)) for at in timesteps]
                loss = torch.stack([at.per_sample for at in measured], 1).cpu()  # (batch, timesteps)
                error = torch.stack([at.relative_mse for at in measured], 1).mean(1).cpu()  # (batch,)
                for i in (batch.weights > 0).nonzero().flatten().tolist():
                    losses[batch.sample_ids[i]] = loss[i].tolist()
                    errors[batch.sample_ids[i]] = float(error[i])
        for of_one, errors_of_one in processes.gather((losses, errors)):
            losses |= of_one
            errors |= errors_of_one
        return losses, mean([errors[name] for name in sorted(errors)])

    def verdict(self, kept: str | None) -> Verdict | None:
        """What the course says of the run; `kept` is the file of its best step, if there is one."""
        return judge(self.course, kept)

    def summary(self) -> list[str]:
        """A line for the end of the run, if one measurement is all there is."""
        course = self.course
        return (
            [f"Validation loss {course.last_loss:.4f} at step {course.last_step}."] if course.measurements == 1 else []
        )

    def state_dict(self) -> dict[str, Any]:
        return self.course.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.course = Course.of(state)


def _at_most(batches: Iterable[Sequence[Batch]], count: int | None) -> Iterable[Sequence[Batch]]:
    return batches if count is None else islice(batches, count)
