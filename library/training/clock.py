"""When things are due. One number is state, the optimizer steps done; the epoch and the place in it follow from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from library.config.spec import declared, spec
from library.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Steps:
    """Every so many optimizer steps."""

    every: int


@dataclass(frozen=True)
class Epochs:
    """At the end of every so many epochs."""

    every: int


Interval = Steps | Epochs


@dataclass
class Clock:
    """Place of a run: `global_step` optimizer steps are done, of `total_steps`."""

    steps_per_epoch: int
    total_steps: int
    global_step: int = 0

    @property
    def total_epochs(self) -> int:
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def epochs_done(self) -> int:
        """Whole epochs done; a run that ends inside an epoch counts that one as done at its end."""
        return self.total_epochs if self.finished else self.global_step // self.steps_per_epoch

    @property
    def step_in_epoch(self) -> int:
        return self.global_step % self.steps_per_epoch

    @property
    def finished(self) -> bool:
        return self.global_step >= self.total_steps

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last of its epoch (or of the run)."""
        return self.global_step > 0 and (self.step_in_epoch == 0 or self.finished)

    def epochs(self) -> Iterator[int]:
        """The numbers (1-based) of the epochs that are still to be run, the one begun included."""
        while not self.finished:
            yield self.global_step // self.steps_per_epoch + 1

    def tick(self) -> None:
        self.global_step += 1

    def end_here(self) -> None:
        """Let the step just done be the last."""
        self.total_steps = self.global_step

    def is_due(self, interval: Interval | None) -> bool:
        """Whether the step just done completes `interval`."""
        if interval is None or self.global_step == 0:
            return False
        if isinstance(interval, Steps):
            return self.global_step % interval.every == 0
        return self.epoch_ended and self.epochs_done % interval.every == 0

    def progress_is_due(self, every_n_steps: int | None) -> bool:
        """Whether networks are given the progress before the next step: after every epoch, and every n steps if set.

        It depends on the position alone, so that a resumed run makes the call that its state was written before.
        """
        if self.global_step == 0 or self.finished:
            return False
        return self.step_in_epoch == 0 or bool(every_n_steps and self.global_step % every_n_steps == 0)


@spec
class LengthSpec:
    """The options on where a run begins and ends; field names are the options'."""

    max_train_steps: int | None = declared
    max_train_epochs: int | None = declared
    initial_epoch: int | None = declared
    initial_step: int | None = declared
    skip_until_initial_step: bool = declared


def new_clock(spec: LengthSpec, steps_per_epoch: int, *, resumed: bool) -> Clock:
    """The clock of a run before its first step; a state that is resumed sets it to its own place afterwards.

    Raises `UserError` where nothing is left to train. A place that a state makes void is logged.
    """
    total = total_steps(steps_per_epoch, spec.max_train_steps, spec.max_train_epochs)
    begin = first_step(spec, steps_per_epoch)
    if begin >= total:
        name = "initial_epoch" if spec.initial_step is None else "initial_step"
        raise UserError(
            f"`{name} = {getattr(spec, name)}` begins the run after step {begin}, but the run has {total} steps; "
            "train for longer, or begin earlier"
        )
    if begin and resumed:
        logger.info("`initial_epoch` and `initial_step` have no effect with `resume`: a state knows its place")
    return Clock(steps_per_epoch, total, global_step=0 if resumed else begin)


def first_step(spec: LengthSpec, steps_per_epoch: int) -> int:
    """Optimizer steps that count as done when a new run begins: learning rates, samples and names go on from there.

    `initial_epoch` counts from 1. `initial_step` begins at the start of the epoch that it lies in, or, with
    `skip_until_initial_step`, at its very place in it.
    """
    if spec.initial_step is None:
        return ((spec.initial_epoch or 1) - 1) * steps_per_epoch
    whole_epochs = spec.initial_step // steps_per_epoch * steps_per_epoch
    return spec.initial_step if spec.skip_until_initial_step else whole_epochs


def total_steps(steps_per_epoch: int, max_train_steps: int | None, max_train_epochs: int | None) -> int:
    """Optimizer steps of a run: the epochs' where a number of epochs is given, as in kohya's trainer."""
    if max_train_epochs is not None:
        return max_train_epochs * steps_per_epoch
    return max_train_steps if max_train_steps is not None else 1600
