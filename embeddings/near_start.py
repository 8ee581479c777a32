"""What the initializers here share: a pull towards the start, and a bound on the vectors' norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from embeddings.contract import Context, EmbeddingInitializer, number, one_of

OPTIONS = {
    "reg_weight": "weight of the pull towards the start (else the option reg_weight)",
    "reg_type": "l2: mean distance of the vectors to their start; mse: mean squared difference of all numbers",
    "norm_control": "none; clamp:1.25 keeps each norm within that factor of its start; rescale keeps it at the start's",
}
EPSILON = 1e-6


def distance_to_start(rows: Tensor, start: Tensor) -> Tensor:
    """(1/n) sum_i ||v_i - v0_i||_2, smooth at zero: at the start both its value and its gradient are 0.

    Its gradient has length 1/n for each vector, however far it is.
    """
    squares = (rows - start).pow(2).sum(dim=-1)  # (n,)
    return ((squares + EPSILON**2).sqrt() - EPSILON).mean()


def mean_squared_difference(rows: Tensor, start: Tensor) -> Tensor:
    return (rows - start).pow(2).mean()


def clamp_norms(rows: Tensor, start: Tensor, factor: float) -> None:
    """Shorten, in place, each vector that is longer than `factor` times its start."""
    bound = factor * start.norm(dim=-1, keepdim=True)
    rows.mul_((bound / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1.0))


def rescale_norms(rows: Tensor, start: Tensor) -> None:
    """Give each vector, in place, the norm of its start."""
    rows.mul_(start.norm(dim=-1, keepdim=True) / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12))


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": distance_to_start, "mse": mean_squared_difference}


class NearStart(EmbeddingInitializer):
    """An initializer whose vectors are held near where they start, as far as a person asks for it."""

    usual_weight = 0.0
    """The pull's weight where neither the argument nor the option says one."""

    def __init__(self, args: Any, kwargs: dict[str, str]) -> None:
        weight = getattr(args, "reg_weight", None)
        weight = self.usual_weight if weight is None else float(weight)
        self.reg_weight = number("reg_weight", kwargs["reg_weight"]) if "reg_weight" in kwargs else weight
        self.distance = DISTANCES[one_of("reg_type", kwargs.get("reg_type", "l2"), list(DISTANCES))]
        self.norm_control = kwargs.get("norm_control", "none")
        kind, _, factor = self.norm_control.partition(":")
        one_of("norm_control", kind, ("none", "clamp", "rescale"))
        self.clamp = number("norm_control", factor) if kind == "clamp" else None
        self.notes: list[str] = []

    def regularization(self, ctx: Context, rows: Tensor) -> Tensor | None:
        if self.reg_weight == 0 or ctx.start is None:
            return None
        return self.reg_weight * self.distance(rows, ctx.start)

    def after_step(self, ctx: Context, rows: Tensor, step: int) -> None:
        if ctx.start is None or self.norm_control == "none":
            return
        if self.clamp is not None:
            clamp_norms(rows, ctx.start, self.clamp)
        else:
            rescale_norms(rows, ctx.start)

    def metadata(self) -> dict[str, str]:
        return {"ss_reg_weight": str(self.reg_weight)}


def cycled(ids: list[int], count: int) -> list[int]:
    """The first `count` of the ids, from the beginning again where they run out."""
    return [ids[i % len(ids)] for i in range(count)]
