"""The part of a run's page that changes while it trains: step, time left, speed, loss, free memory, last warning.

The rest of the page is made anew when there is something new to draw; this part alone is put into it in between, which
takes milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from library.formatting import duration, file_size
from library.report.page import TEMPLATES, render

BEGIN, END = "<!-- live: begin -->", "<!-- live: end -->"
RELOADS = 20
"""Seconds between two reloads of a page whose run is under way."""
WIDTH, HEIGHT = 600.0, 80.0


@dataclass(frozen=True)
class LiveFigures:
    """How a run is doing now; None where it is not known yet. `course` is (step, average loss)."""

    step: int
    total_steps: int
    seconds_left: float | None = None
    seconds_per_step: float | None = None
    loss: float | None = None
    course: Sequence[tuple[int, float]] = field(default=())
    free_memory: int | None = None
    memory_of: str = ""
    warning: str = ""

    @property
    def percent(self) -> float:
        return round(100 * self.step / max(1, self.total_steps), 1)

    @property
    def facts(self) -> list[tuple[str, str, str]]:
        """(name, value, note) as the page's head shows them."""
        left = "-" if self.seconds_left is None else duration(self.seconds_left)
        speed = "-" if self.seconds_per_step is None else f"{self.seconds_per_step:.3g} s"
        rows = [
            ("Step", f"{self.step:,}", f"of {self.total_steps:,}"),
            ("Time left", left, "samples and saving included"),
            ("Speed", speed, "per step"),
        ]
        if self.loss is not None:
            rows.append(("Loss", f"{self.loss:.4f}", "average of an epoch"))
        if self.free_memory is not None:
            rows.append(("Free memory", file_size(self.free_memory), self.memory_of))
        return rows

    @property
    def points(self) -> str:
        """The course of the loss as the points of a line in a field of `WIDTH` by `HEIGHT`."""
        if len(self.course) < 2:
            return ""
        steps, losses = zip(*self.course, strict=True)
        low, span = min(losses), (max(losses) - min(losses)) or 1.0
        first, length = steps[0], (steps[-1] - steps[0]) or 1
        return " ".join(
            f"{WIDTH * (step - first) / length:.1f},{HEIGHT * (1 - (loss - low) / span):.1f}"
            for step, loss in self.course
        )


def with_live_figures(html: str, figures: LiveFigures) -> str:
    """The page with these figures in place of those that it has."""
    before, _, rest = html.partition(BEGIN)
    _, _, after = rest.partition(END)
    block = render(TEMPLATES / "live.html", live=figures, written=time.strftime("%Y-%m-%d %H:%M:%S"))
    return f"{before}{BEGIN}{block}{END}{after}"
