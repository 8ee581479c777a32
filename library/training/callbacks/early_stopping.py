"""Early stopping (`early_stop`): a run ends when its held-out loss has not come down for so many measurements."""

from __future__ import annotations

from library.training.callbacks.overfit_verdict import Course
from library.training.clock import Clock


def should_stop(course: Course, patience: int) -> bool:
    """Whether the loss has not come down for `patience` measurements."""
    return course.since_lowest >= patience


def describe_stop(course: Course, patience: int, clock: Clock) -> str:
    """A sentence for the end that comes early."""
    return (
        f"ended at step {clock.global_step} of {clock.total_steps}: the held-out loss has not come down for "
        f"{course.since_lowest} measurements, since step {course.step} (`early_stop_patience` = {patience})"
    )
