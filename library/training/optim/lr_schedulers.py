"""LR schedulers under kohya's names, and any class like torch's (`lr_scheduler_type`): functions of the step, without
state to resume.

A class changes an optimizer as it goes and keeps what it needs to itself. It is run once through all steps on a
stand-in, and what it did is looked up from then on, so what it cannot do shows before the training.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from library.config.options.optimizer import RESTARTING, SCHEDULERS
from library.config.plugin_arguments import parse_arguments
from library.config.schedule_rules import WITHOUT_WARMUP, ScheduleSpec, as_steps, length_problems, schedule_problems
from library.errors import UserError
from library.training.optim.warm_restarts import warm_restarts

Multiplier = Callable[[int], float]
Schedule = Callable[[int], Sequence[Mapping[str, Any]]]
"""Step (0-based) -> what each parameter group is set to for it."""


def create_schedule(spec: ScheduleSpec, total_steps: int, optimizer: torch.optim.Optimizer) -> Schedule:
    """What each group of `optimizer` is set to at every step. Raises `UserError` for what cannot work in this run."""
    refuse(schedule_problems(spec))
    if spec.lr_scheduler_type:
        arguments = parse_arguments(spec.lr_scheduler_args or (), "lr_scheduler_args")
        return custom_schedule(spec.lr_scheduler_type, arguments, total_steps, optimizer)
    base_rates = [float(group["lr"]) for group in optimizer.param_groups]
    if spec.lr_scheduler in RESTARTING:
        rate_at = warm_restarts(
            spec.lr_scheduler,
            spec.lr_scheduler_num_cycles,
            as_steps(spec.lr_warmup_steps, total_steps),
            spec.lr_scheduler_min_lr_ratio or 0.0,
            parse_arguments(spec.lr_scheduler_args or (), "lr_scheduler_args"),
            total_steps,
        )
        return lambda step: [{"lr": rate_at(step, rate)} for rate in base_rates]
    multiplier = learning_rate_multiplier(spec, total_steps, optimizer.defaults["lr"])

    def schedule(step: int) -> list[dict[str, float]]:
        factor = multiplier(step)
        return [{"lr": rate * factor} for rate in base_rates]

    return schedule


def refuse(problems: Iterable[tuple[str, str]]) -> None:
    for name, why in problems:
        raise UserError(f"`{name}`{why}")


def learning_rate_multiplier(spec: ScheduleSpec, total_steps: int, learning_rate: float) -> Multiplier:
    """The factor on every group's learning rate in effect at step k (0-based), from transformers' schedules.

    Raises `UserError` for an unknown name, for a warm-up where the schedule has none or that is longer than the run.
    """
    refuse(schedule_problems(spec))
    name = spec.lr_scheduler
    warmup = as_steps(spec.lr_warmup_steps, total_steps)
    decay = as_steps(spec.lr_decay_steps, total_steps)
    if name == "adafactor":
        raise UserError(
            "`lr_scheduler = adafactor` is for `optimizer_type = Adafactor` with relative_step, which sets its rate; "
            "choose another schedule"
        )
    if name not in SCHEDULERS:
        raise UserError(f"`lr_scheduler = {name}` is not a schedule; known are {', '.join(SCHEDULERS)}")
    refuse(length_problems(spec, total_steps))
    specific = _specific_arguments(spec, total_steps, warmup, decay)
    specific.update(parse_arguments(spec.lr_scheduler_args or (), "lr_scheduler_args"))
    return _from_transformers(name, warmup, total_steps, learning_rate, specific)


def _specific_arguments(spec: ScheduleSpec, total_steps: int, warmup: int, decay: int) -> dict[str, Any]:
    if spec.lr_scheduler == "cosine_with_restarts":
        return {"num_cycles": spec.lr_scheduler_num_cycles}
    if spec.lr_scheduler == "polynomial":
        return {"power": spec.lr_scheduler_power}
    if spec.lr_scheduler == "inverse_sqrt":
        return {"timescale": spec.lr_scheduler_timescale}
    if spec.lr_scheduler == "cosine_with_min_lr":
        ratio = spec.lr_scheduler_min_lr_ratio
        return {"num_cycles": spec.lr_scheduler_num_cycles / 2} | ({} if ratio is None else {"min_lr_rate": ratio})
    if spec.lr_scheduler == "warmup_stable_decay":
        return {
            "num_stable_steps": total_steps - warmup - decay,
            "num_decay_steps": decay,
            "num_cycles": spec.lr_scheduler_num_cycles / 2,
            "min_lr_ratio": spec.lr_scheduler_min_lr_ratio or 0.0,
        }
    return {}


def _from_transformers(
    name: str, warmup: int, total_steps: int, learning_rate: float, specific: Mapping[str, Any]
) -> Multiplier:
    from diffusers.optimization import get_piecewise_constant_schedule
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType

    # The library's schedules are LambdaLR objects around a pure function of the step; only that function is wanted.
    carrier = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate or 1.0)
    arguments: dict[str, Any] = dict(specific)
    if name not in WITHOUT_WARMUP:
        arguments["num_warmup_steps"] = warmup
    if name not in (*WITHOUT_WARMUP, "constant_with_warmup", "inverse_sqrt", "warmup_stable_decay"):
        arguments["num_training_steps"] = total_steps
    try:
        if name == "piecewise_constant":  # diffusers' own: transformers has none
            scheduler = get_piecewise_constant_schedule(carrier, **arguments)
        else:
            scheduler = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)](carrier, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"`lr_scheduler = {name}` does not accept its arguments: {error}") from None
    function = scheduler.lr_lambdas[0]

    def multiplier(step: int) -> float:
        value = function(step)
        return value if math.isfinite(value) else 0.0

    return multiplier


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
        found = getattr(importlib.import_module(module or "torch.optim.lr_scheduler"), class_name)
    except (ImportError, AttributeError, ValueError):
        ours = "; `lr_scheduler = rex` needs no class" if class_name.lower().startswith("rex") else ""
        raise UserError(
            f"`lr_scheduler_type = {name}` is not a class that can be imported{ours}; give one of "
            "torch.optim.lr_scheduler, such as CosineAnnealingLR, or package.module.Class"
        ) from None
    if not (isinstance(found, type) and callable(getattr(found, "step", None))):  # before anything of it is called
        raise UserError(
            f"`lr_scheduler_type = {name}` is no class of a scheduler: it has no step(); give one of "
            "torch.optim.lr_scheduler, such as CosineAnnealingLR"
        )
    return found


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
