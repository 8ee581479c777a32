"""Numbers as bars: a table whose rows carry their share of the longest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """`share`: of the longest bar, in percent."""

    name: str
    value: float
    share: float


def bars_of(values: Iterable[tuple[str, float]]) -> list[Bar]:
    pairs = list(values)
    longest = max((value for _, value in pairs), default=0) or 1
    return [Bar(name, value, round(100 * value / longest, 1)) for name, value in pairs]
