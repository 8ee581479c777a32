"""What a trainable found out, in a form that logs, pictures and reports can show without knowing the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Series:
    """Lines over a common `x`: name -> one value for each x."""

    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A value for every row and column, None where there is none; `label` says what the values are."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    label: str = ""


@dataclass
class Findings:
    """What a trainable did, for the last paragraph and for reports.

    `moved` of `tensors` trained tensors differ from their start; `change` is the median over tensors of the change's
    root mean square. `failure` is a sentence where the method did not do what it was on for. The rest is shown under
    its title.
    """

    moved: int
    tensors: int
    change: float
    lines: list[str] = field(default_factory=list)
    failure: str | None = None
    series: dict[str, Series] = field(default_factory=dict)
    heat_maps: dict[str, HeatMap] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.series or self.heat_maps)


def read_figures(plain: Mapping[str, Any]) -> tuple[dict[str, Series], dict[str, HeatMap]]:
    """The figures of a plugin, which hands them over as plain data: {"series": {title: ...}, "heat_maps": {...}}."""
    series = {title: Series(**values) for title, values in plain.get("series", {}).items()}
    heat_maps = {title: HeatMap(**values) for title, values in plain.get("heat_maps", {}).items()}
    return series, heat_maps
