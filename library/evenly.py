"""Which of many are taken, where only so many may be: evenly, and the same ones each time."""

from __future__ import annotations

import numpy as np


def every_nth(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`: each n-th from the first on, all of them where they are few."""
    return list(range(0, count, -(-count // most))) if count else []


def from_end_to_end(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())) if count else []
