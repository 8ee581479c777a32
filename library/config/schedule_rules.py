"""The options of the learning rate's schedule, and what cannot go together in them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from library.config.options.optimizer import RESTARTING
from library.config.spec import declared, spec

WITHOUT_WARMUP = ("constant", "piecewise_constant")


@spec
class ScheduleSpec:
    """The options that shape the learning rate over the run; field names are the options'."""

    lr_scheduler: str = declared
    lr_scheduler_type: str = declared
    lr_scheduler_args: Sequence[str] | None = declared
    lr_warmup_steps: float = declared
    lr_decay_steps: float = declared
    lr_scheduler_num_cycles: int = declared
    lr_scheduler_power: float = declared
    lr_scheduler_timescale: int | None = declared
    lr_scheduler_min_lr_ratio: float | None = declared

    @property
    def argument_names(self) -> set[str]:
        return {argument.partition("=")[0].strip() for argument in self.lr_scheduler_args or ()}


def as_steps(value: float, total_steps: int) -> int:
    """An int is a number of steps, a float up to 1 a share of the run."""
    return int(value * total_steps) if isinstance(value, float) and value <= 1 else int(value)


def length_problems(spec: ScheduleSpec, total_steps: int) -> Iterator[tuple[str, str]]:
    """What does not fit into a run of `total_steps`, as `schedule_problems` has it.

    A number of steps for the warm-up that is the whole run is a mistake, too: the learning rate would never be reached.
    """
    warmup = as_steps(spec.lr_warmup_steps, total_steps)
    has_decay = not spec.lr_scheduler_type and spec.lr_scheduler not in RESTARTING
    decay = as_steps(spec.lr_decay_steps, total_steps) if has_decay else 0
    never_reached = isinstance(spec.lr_warmup_steps, int) and warmup == total_steps
    for option, steps, wrong in (
        ("lr_warmup_steps", warmup, warmup > total_steps or never_reached),
        ("lr_decay_steps", decay, decay > total_steps),
    ):
        if wrong:
            yield option, f" gives {steps} steps, but the run has {total_steps}; give fewer, or a share (10%)."
    if max(warmup, decay) <= total_steps < warmup + decay:
        both = f"{warmup} + {decay} steps, but the run has {total_steps}"
        yield "lr_warmup_steps", f" and `lr_decay_steps` give {both}; give fewer, or shares (10%)."


def schedule_problems(spec: ScheduleSpec) -> Iterator[tuple[str, str]]:
    """What is wrong whatever the run's length is: the option, and the rest of a sentence that begins with its place."""
    name = spec.lr_scheduler
    if spec.lr_scheduler_type:
        if spec.lr_warmup_steps:
            why = f"{spec.lr_scheduler_type} brings its own schedule (`lr_scheduler_type`); leave the warm-up out."
            yield "lr_warmup_steps", f": {why}"
        return
    if spec.lr_warmup_steps and name in WITHOUT_WARMUP:
        advice = "use `constant_with_warmup`, or leave the warm-up out."
        yield "lr_warmup_steps", f": the scheduler `{name}` has no warm-up; {advice}"
    ratio, given = spec.lr_scheduler_min_lr_ratio, spec.argument_names
    if name == "cosine_with_min_lr" and ratio is None and not {"min_lr", "min_lr_rate"} & given:
        yield "lr_scheduler", f" = {name} needs `lr_scheduler_min_lr_ratio`, for example 0.1."
    if name == "piecewise_constant" and "step_rules" not in given:
        example = 'step_rules="1:100,0.1:200,0.01".'
        yield "lr_scheduler", f" = {name} needs `lr_scheduler_args`, for example {example}"
