"""Schedules that begin again several times in a run: REX and a cosine, each cycle with a warm-up and a lower peak.

REX (Chen, Wolfe and Kyrillidis, 2021) keeps the rate high for long and lets it fall at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from library.errors import UserError

Shape = Callable[[float], float]
"""Progress in a cycle, 0 to 1 -> what is left of the rate, 1 to 0."""


def rex(progress: float, d: float = 0.5) -> float:
    """Equation 1 of the paper, which has d = 1/2; near 1 the rate falls later."""
    return (1 - progress) / ((1 - d) + d * (1 - progress))


def half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Restarts:
    """`warmup` steps of each cycle rise from the lowest rate to the peak, which is `gamma` times that of the cycle
    before; the rest of a cycle is `cycle_multiplier` times as long as before. `min_lr` is a rate, not a share.
    """

    cycles: int
    warmup: int
    gamma: float = 1.0
    cycle_multiplier: float = 1.0
    min_lr: float = 0.0

    def places(self, total_steps: int, shape: Shape) -> list[tuple[float, float]]:
        """For each step the peak of its cycle, as a share of the first, and what is left of it."""
        length = max(1, total_steps // self.cycles)
        peak, step, found = 1.0, 0, []
        for _ in range(total_steps):
            if step >= length:
                step, peak = 0, peak * self.gamma
                length = max(1, round((length - self.warmup) * self.cycle_multiplier) + self.warmup)
            if step < self.warmup:
                found.append((peak, step / self.warmup))
            else:
                found.append((peak, shape((step - self.warmup) / (length - self.warmup))))
            step += 1
        return found


def warm_restarts(
    name: str, cycles: int, warmup: int, lowest: float, arguments: Mapping[str, Any], total_steps: int
) -> Callable[[int, float], float]:
    """(step, rate of a group) -> its rate at that step. `lowest` is a share of the rate. Raises `UserError`."""
    accepted = ("gamma", "min_lr", "cycle_multiplier", *(("d",) if name == "rex" else ()))
    for key, value in arguments.items():
        if key not in accepted:
            raise UserError(f"`lr_scheduler = {name}` has no argument {key!r}; it takes {', '.join(accepted)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UserError(f"`lr_scheduler_args`: {key} is {value!r}, but must be a number from 0 on")
    given = dict(arguments)
    d = given.pop("d", 0.5)
    if d >= 1:
        raise UserError(f"`lr_scheduler_args`: d is {d}, but must be below 1")
    restarts = Restarts(cycles, warmup // cycles, **given)
    if restarts.warmup >= max(1, total_steps // cycles):
        raise UserError(
            f"`lr_warmup_steps` gives {restarts.warmup} steps to each of {cycles} cycles, which have "
            f"{total_steps // cycles}; give fewer, or a share (10%)"
        )
    places: Sequence[tuple[float, float]] = restarts.places(
        total_steps, half_cosine if name != "rex" else lambda progress: rex(progress, d)
    )

    def rate_at(step: int, rate: float) -> float:
        peak, left = places[min(step, total_steps - 1)]
        low = max(restarts.min_lr, lowest * rate)
        low = low if low < rate else 0.0
        return low + max(0.0, rate * peak - low) * left

    return rate_at
