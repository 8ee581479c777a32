"""Non-finite losses and gradients: the step is left out and named; several in a row end the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from library.errors import UserError

LIMIT = 5


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
    """The run cannot go on; the weights are those of the last good step."""


class Guard:
    """Counts steps that were left out. `scaled` says that the loss is scaled for fp16, where an overflow of the
    gradients alone is how the scale is found and is not counted."""

    def __init__(self, *, scaled: bool = False) -> None:
        self.in_a_row = 0
        self.skipped = 0
        self._scaled = scaled

    def judge(self, step: BadStep) -> BadStep | None:
        """`step`'s figures: the step itself if it had to be left out, else None."""
        if math.isfinite(step.loss) and (self._scaled or math.isfinite(step.gradient_norm)):
            self.in_a_row = 0
            return None
        self.in_a_row += 1
        self.skipped += 1
        return step

    def check(self, last: BadStep | None) -> None:
        """Raise `TooManyBadSteps` when the last `LIMIT` steps were all left out."""
        if last is not None and self.in_a_row >= LIMIT:
            raise TooManyBadSteps(
                f"{LIMIT} steps in a row had a loss or gradients that are not finite; the last: {last}. "
                "The weights saved are those of the last good step. Lower the learning rate, use bf16 instead of "
                "fp16, or look at the files named above"
            )
