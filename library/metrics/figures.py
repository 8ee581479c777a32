"""One measured figure: its value with an interval over prompts, what it was measured with, and the values behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.metrics.catalogue import Metric
from library.metrics.prompts import PromptedPicture
from library.metrics.statistics import by_prompt, t_interval

NOT_COMPARABLE = "not comparable"


@dataclass
class MetricFigure:
    """What is known of one metric. `value` is None where it was not measured, and `not_measured` then says why.

    `each`: by file name, of metrics that are of single pictures. `p`: that two sets are of one kind (KID).
    `references`: a hash of the pictures that it compares with, if it does.
    """

    metric: Metric
    value: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    n_pictures: int = 0
    n_prompts: int = 0
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    references: str = ""
    preprocessing: str = ""
    seconds: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)
    each: dict[str, float] = field(default_factory=dict)
    not_measured: str | None = None
    note: str | None = None

    @property
    def line(self) -> str:
        """Why it was not measured, as a sentence."""
        return f"{self.metric.name}: not measured, {self.not_measured}"

    def as_json(self) -> dict[str, Any]:
        if self.value is None:
            return {"not_measured": self.not_measured}
        facts = {
            "value": finite(self.value),
            "better": self.metric.better,
            "interval": list(self.interval) if self.interval else None,
            "p": self.p,
            "n_pictures": self.n_pictures,
            "n_prompts": self.n_prompts,
            "weights": self.weights,
            "references": self.references,
            "preprocessing": self.preprocessing,
            "seconds": round(self.seconds, 3),
            "note": self.note,
            **self.more,
        }
        return {name: value for name, value in facts.items() if value not in (None, {}, "")}


def finite(value: float) -> float | None:
    """JSON has no infinity: the PSNR of identical pictures is null in it."""
    return value if math.isfinite(value) else None


def of_pictures(metric: Metric, asked: Sequence[PromptedPicture], values: Mapping[Path, float]) -> MetricFigure:
    """The mean over prompts of each prompt's mean, with its t interval; without prompts every picture is its own.

    Pictures without a value (no face in them) do not count.
    """
    measured = [one for one in asked if one.path in values]
    figure = MetricFigure(metric, n_pictures=len(measured), each={one.path.name: values[one.path] for one in measured})
    groups = by_prompt([values[one.path] for one in measured], [unit_of(one) for one in measured])
    figure.n_prompts = len({one.prompt for one in measured if one.prompt})
    mean = t_interval(list(groups.values()))
    figure.value = mean.value
    if mean.low is not None and mean.high is not None and math.isfinite(mean.low):
        figure.interval = (mean.low, mean.high)
    return figure


def unit_of(asked: PromptedPicture) -> str:
    """What counts as one observation: a prompt, or a picture whose prompt is not known."""
    return asked.prompt or f"picture {asked.path.name}"
