"""What a trainable found out, in a form that logs, pictures and reports can show without knowing the method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    """A value for every row and column, None where there is none; `label` says what the values are.

    `groups` names for every row the part that it belongs to, where rows are many: those of a part are together.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    label: str = ""
    groups: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers under `columns`; the first cell of a row names it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Sheet:
    """Pictures side by side: for every name in `rows`, one file for each of `columns` (None: there is none)."""

    columns: Sequence[str]
    rows: Sequence[str]
    files: Sequence[Sequence[str | None]]


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
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: dict[str, Sheet] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.series or self.heat_maps)


def read_figures(plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of a plugin, which hands them over as plain data: {"series": {title: ...}, "heat_maps": {...},
    "tables": {...}, "pictures": {...}}, as arguments of `Findings`."""
    return {
        kind: {title: shape(**values) for title, values in plain.get(kind, {}).items()}
        for kind, shape in (("series", Series), ("heat_maps", HeatMap), ("tables", Table), ("pictures", Sheet))
    }


def as_plain(findings: Findings) -> dict[str, Any]:
    """Findings as a log can hold them: what is not finite becomes None."""
    return _finite(asdict(findings))


def from_plain(plain: Mapping[str, Any]) -> Findings:
    """Findings as a log holds them."""
    figures = read_figures(plain)
    return Findings(
        moved=plain["moved"],
        tensors=plain["tensors"],
        change=plain["change"],
        lines=list(plain.get("lines", ())),
        failure=plain.get("failure"),
        **figures,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
