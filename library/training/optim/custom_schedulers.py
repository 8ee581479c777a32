"""Schedulers of other people (`lr_scheduler_type`): any class like those of torch.optim.lr_scheduler.

Such a class changes an optimizer as it goes and keeps what it needs to itself. It is run once through all steps on a
stand-in, and what it did is looked up from then on: like our own schedules it has no state, and what it cannot do shows
before the training.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from library.errors import UserError

CHANGED = ("lr", "momentum", "betas")
"""What schedulers set in a parameter group (OneCycleLR and CyclicLR also the momentum)."""


class StandIn(torch.optim.Optimizer):
    """An optimizer's parameter groups with all their numbers, on parameters of no consequence."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            | {"params": [torch.nn.Parameter(torch.zeros(1))]}
            for group in optimizer.param_groups
        ]
        super().__init__(groups, dict(optimizer.defaults))

    def step(self, closure: Any = None) -> None:
        """Nothing: only the groups' numbers count."""


def scheduler_class(name: str) -> type:
    """The class `package.module.Class`, or of torch.optim.lr_scheduler. Raises `UserError`."""
    module, _, class_name = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module or "torch.optim.lr_scheduler"), class_name)
    except (ImportError, AttributeError):
        raise UserError(
            f"`lr_scheduler_type = {name}` is not a class that can be imported; give one of "
            "torch.optim.lr_scheduler, such as CosineAnnealingLR, or package.module.Class"
        ) from None


def custom_schedule(
    name: str, arguments: Mapping[str, Any], total_steps: int, optimizer: torch.optim.Optimizer
) -> Callable[[int], Sequence[Mapping[str, Any]]]:
    """What the class `name` sets each group of `optimizer` to at every step. Raises `UserError` where it fails."""
    stand_in = StandIn(optimizer)
    rows: list[list[dict[str, Any]]] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps in an order that means nothing here
            scheduler = scheduler_class(name)(stand_in, **arguments)
            for step in range(total_steps):
                if step:
                    stand_in.step()
                    scheduler.step()
                rows.append([{n: group[n] for n in CHANGED if n in group} for group in stand_in.param_groups])
    except UserError:
        raise
    except Exception as error:  # whatever a class that we do not know raises
        place = f"step {len(rows) + 1} of {total_steps}" if rows else "its arguments"
        raise UserError(
            f"`lr_scheduler_type = {name}` fails at {place}: {error}; change `lr_scheduler_args`"
        ) from error
    bad = [step for step, groups in enumerate(rows) if not all(math.isfinite(float(group["lr"])) for group in groups)]
    if bad:
        raise UserError(f"`lr_scheduler_type = {name}` gives a learning rate that is not finite at step {bad[0] + 1}")
    varying = [n for n in CHANGED if any(n in groups[0] and groups != rows[0] for groups in rows)] or ["lr"]
    table = [[{n: float(g[n]) if n == "lr" else g[n] for n in varying if n in g} for g in groups] for groups in rows]
    return lambda step: table[min(step, len(table) - 1)]
