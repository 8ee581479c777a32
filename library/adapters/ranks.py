"""How many singular values to keep: the rules of kohya's resize command, by their names there.

Each keeps one more than its threshold asks for, as that command does, so that the same option gives the same rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Rule = Callable[[Tensor, float], int]


def sv_ratio(values: Tensor, target: float) -> int:
    """How many values are more than the largest / target."""
    return int((values > values[0] / target).sum())


def sv_cumulative(values: Tensor, target: float) -> int:
    """How many of the largest values have the share `target` of the sum of all."""
    return _reach(values, target)


def sv_fro(values: Tensor, target: float) -> int:
    """How many of the largest values have the share `target` of the Frobenius norm."""
    return _reach(values**2, target**2)


def _reach(parts: Tensor, target: float) -> int:
    shares = parts.cumsum(0) / parts.sum()
    return int(torch.searchsorted(shares, target)) + 1


RULES: dict[str, Rule] = {"sv_ratio": sv_ratio, "sv_fro": sv_fro, "sv_cumulative": sv_cumulative}


@dataclass(frozen=True)
class RankChoice:
    """The ranks asked for; with `method` they are the most, and `param` is the method's target."""

    rank: int
    conv_rank: int
    method: str | None = None
    param: float | None = None

    def of(self, values: Tensor, *, is_convolution: bool) -> int:
        """The rank for falling singular values: never more than there are, 1 for a layer that does nothing."""
        most = min(self.conv_rank if is_convolution else self.rank, len(values))
        if values[0] == 0:
            return 1
        if self.method is None or self.param is None:
            return most
        return min(max(RULES[self.method](values, self.param), 1) + 1, most)
