"""How the learning rate moves over the steps of a stage, and how many steps fit into a time."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int | None, peak: float, warm_up: int, flat: float = 0.0) -> float:
    """A linear warm-up, the peak until the share `flat` of all steps, then a half cosine down to zero.

    Without a number of steps (it is not known before the first ones have been timed) the peak holds.
    """
    rate = peak * min(1.0, (step + 1) / warm_up)
    if steps is None:
        return rate
    done = (step / max(steps, 1) - flat) / (1 - flat)
    return rate * (0.5 + 0.5 * math.cos(math.pi * min(max(done, 0.0), 1.0)))


def steps_in(seconds: float, seconds_per_step: float, at_least: int) -> int:
    """Steps that fit into a time."""
    return max(at_least, int(seconds / seconds_per_step))
