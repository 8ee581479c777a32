"""NaN and divergence: a step of non-finite loss or gradients is left out and named, several in a row end the run; a
finite loss far outside of what the run has seen puts its weights in doubt."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from library.errors import UserError

LIMIT = 5
FAR = 5.0
"""A loss so many times above the highest one before is far outside of what the run has seen. Losses differ by timestep:
among ten drawn from an exponential distribution, the largest is exceeded so far by one in 100,000."""
SETTLING = 10
"""A loss counts as seen after so many steps, so that one that climbs step by step is not taken for usual."""
ENOUGH = 5
"""Fewer losses seen tell nothing."""


@dataclass(frozen=True)
class BadStep:
    """A step that was left out, and what was in it."""

    step: int
    loss: float
    gradient_norm: float
    files: tuple[str, ...]
    timesteps: tuple[int, ...]

    def __str__(self) -> str:
        what = "loss is" if not math.isfinite(self.loss) else "gradients are"
        return (
            f"step {self.step} was left out: its {what} not finite (loss {self.loss}, gradient norm "
            f"{self.gradient_norm}; files {', '.join(self.files)}; timesteps {', '.join(map(str, self.timesteps))})"
        )


class TooManyBadSteps(UserError):
    """The run cannot go on; the steps that were left out have changed no weight."""


class Guard:
    """Counts steps that were left out, and knows whether the losses put the weights in doubt.

    `scaled` says that the loss is scaled for fp16, where an overflow of the gradients alone is how the scale is found
    and is not counted. `doubt` is a phrase on the last loss if it was not a usual one, `trusted_to` the last step with
    a usual loss, `far_at` the last one whose loss was finite and far outside: such a step has changed the weights.
    """

    def __init__(self, *, scaled: bool = False) -> None:
        self.in_a_row = 0
        self.skipped = 0
        self.doubt: str | None = None
        self.judged_to = self.trusted_to = self.far_at = 0
        self._scaled = scaled
        self._highest = 0.0
        self._seen = 0
        self._settling: deque[float] = deque()

    def judge(self, step: BadStep) -> BadStep | None:
        """`step`'s figures: the step itself if it had to be left out, else None."""
        self.judged_to = step.step
        if not (math.isfinite(step.loss) and (self._scaled or math.isfinite(step.gradient_norm))):
            self.in_a_row += 1
            self.skipped += 1
            self.doubt = self.doubt or f"step {step.step} had a loss or gradients that are not finite"
            return step
        self.in_a_row = 0
        if self._seen >= ENOUGH and step.loss > FAR * self._highest:
            self.far_at = step.step
            where = f"where the losses before were at most {self._highest:.3g}"
            self.doubt = self.doubt or f"the loss of step {step.step} was {step.loss:.3g}, {where}"
            return None
        self.doubt, self.trusted_to = None, step.step
        self._settling.append(step.loss)
        if len(self._settling) > SETTLING:
            self._highest = max(self._highest, self._settling.popleft())
            self._seen += 1
        return None

    def check(self, last: BadStep | None) -> None:
        """Raise `TooManyBadSteps` when the last `LIMIT` steps were all left out."""
        if last is not None and self.in_a_row >= LIMIT:
            raise TooManyBadSteps(
                f"{LIMIT} steps in a row had a loss or gradients that are not finite; the last: {last}. "
                f"They have changed no weight; the last step with a usual loss was {self.trusted_to}. Lower the "
                "learning rate, use bf16 instead of fp16, or look at the files named above"
            )

    def state_dict(self) -> dict[str, Any]:
        changed = self.far_at > self.trusted_to  # a step of a far loss has changed the weights, one left out has not
        return {"highest": self._highest, "seen": self._seen, "settling": list(self._settling), "changed": changed}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Go on at `step` with what the run has seen up to a state."""
        self.judged_to = self.trusted_to = step
        self._highest, self._seen = float(state.get("highest", 0.0)), int(state.get("seen", 0))
        self._settling = deque(state.get("settling", ()))
