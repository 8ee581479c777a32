"""The optimizer of a run, its learning rates, and gradient clipping."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from library.config.optimizer_table import known
from library.config.plugin_arguments import parse_arguments
from library.config.spec import declared, spec
from library.errors import UserError
from library.models.accelerator import accelerator
from library.training.optim.lr_schedulers import Schedule
from library.training.optim.registry import optimizer_class
from library.training.optim.state import load_exactly
from library.training.runtime.mixed_precision import Precision


@spec
class OptimizerSpec:
    """The options that choose the optimizer; field names are the options'."""

    optimizer_type: str = declared
    optimizer_args: Sequence[str] | None = declared
    learning_rate: float = declared
    max_grad_norm: float = declared

    @property
    def name(self) -> str:
        return self.optimizer_type or "AdamW"

    @property
    def arguments(self) -> dict[str, Any]:
        """What is written of the arguments into the metadata: those given, and those that the name stands for."""
        given = parse_arguments(self.optimizer_args or (), "optimizer_args")
        arguments = {**known(self.name).defaults, **given}
        if known(self.name).class_name == "Adafactor" and "." not in self.name:
            # transformers refuses warmup_init without relative_step; kohya's trainer takes it for both.
            relative = arguments.get("relative_step", True) or arguments.get("warmup_init", False)
            arguments["relative_step"] = relative
        return arguments

    @property
    def has_own_rates(self) -> bool:
        """Whether the optimizer finds its learning rate itself, so that no schedule is laid over it."""
        return known(self.name).averages_weights or bool(self.arguments.get("relative_step", False))


def trial_optimizer(spec: OptimizerSpec) -> torch.optim.Optimizer:
    """One on a parameter of no consequence, to see that name, package and arguments work. Raises `UserError`."""
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": spec.learning_rate}
    return create_optimizer(spec, [group])[0]


def create_optimizer(spec: OptimizerSpec, groups: Sequence[dict[str, Any]]) -> tuple[torch.optim.Optimizer, list[str]]:
    """The optimizer over `groups` (each with its own `lr`), ready to train, and lines worth knowing.

    The list and the dicts are handed over as they are: networks may keep them to read the live learning rate.
    """
    chosen = optimizer_class(spec.name)
    arguments: dict[str, Any] = {"lr": spec.learning_rate, **known(spec.name).arguments, **spec.arguments}
    rates = {group.get("lr", spec.learning_rate) for group in groups}
    if chosen is torch.optim.AdamW and "foreach" not in arguments:
        arguments.setdefault("fused", True)
    if arguments.get("relative_step"):
        arguments["lr"] = None
        for group in groups:
            group["lr"] = None  # Adafactor refuses a rate beside its own
    if known(spec.name).finds_its_rate and len(rates - {0.0}) > 1:
        raise UserError(
            f"`optimizer_type = {spec.name}` finds one learning rate for all, but there are groups with "
            f"{', '.join(f'{rate:g}' for rate in sorted(rates))}; give the same rate to all of them, usually 1.0"
        )
    try:
        optimizer = chosen(list(groups), **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        accepted = [n for n in inspect.signature(chosen).parameters if n not in ("params", "lr")]
        raise UserError(
            f"`optimizer_args` does not fit {chosen.__name__}: {error}; it takes {', '.join(accepted)}"
        ) from None
    if callable(getattr(optimizer, "train", None)):
        optimizer.train()  # pyright: ignore[reportAttributeAccessIssue]
    return optimizer, list(_advice(spec, rates))


def _advice(spec: OptimizerSpec, rates: set[float]) -> Iterator[str]:
    if known(spec.name).finds_its_rate and max(rates) <= 0.1:
        yield f"{spec.name} multiplies the rate that it finds by `learning_rate`, which is {max(rates):g}; 1.0 is usual"
    if spec.arguments.get("relative_step"):
        yield f"{spec.name} sets its own learning rate (relative_step): the options for the rate have no effect"
        if spec.max_grad_norm:
            yield f"{spec.name} limits its own updates: `max_grad_norm = 0` is advised"
    elif spec.has_own_rates:
        yield f"{spec.name} needs no schedule: `lr_scheduler` and its options have no effect"


class Optimizers:
    """One optimizer, its learning rates over the run, and the gradient norm that it clips to.

    `schedule` gives what each group is set to at a step; None leaves the rates to the optimizer. `descriptions` names
    each parameter group in the logs ("textencoder", "unet", ...), `arguments` what a person set of the optimizer.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | None,
        descriptions: Sequence[str],
        max_grad_norm: float,
        arguments: Collection[str] = (),
    ) -> None:
        self.optimizer = optimizer
        self.descriptions = tuple(descriptions)
        self.max_grad_norm = max_grad_norm
        self._schedule = schedule
        self._arguments = arguments

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def set_learning_rates(self, step: int) -> None:
        """Those in effect at step `step` (0-based)."""
        if self._schedule is not None:
            for group, values in zip(self.optimizer.param_groups, self._schedule(step), strict=True):
                group.update(values)

    @property
    def learning_rates(self) -> dict[str, float]:
        """Description of each group -> its learning rate now; "d*lr/..." is what an adaptive optimizer makes of it."""
        rates = {}
        for name, group in zip(self.descriptions, self.optimizer.param_groups, strict=True):
            rates[name] = relative_step_size(group, self.optimizer) if group["lr"] is None else float(group["lr"])
            if "d" in group:
                rates[f"d*lr/{name}"] = float(group["d"]) * rates[name]
        return rates

    def clip(self, parameters: Sequence[Tensor]) -> Tensor:
        """Scale the gradients of `parameters` down to `max_grad_norm` (0: never); returns their norm before."""
        bound = self.max_grad_norm or math.inf
        return torch.nn.utils.clip_grad_norm_(parameters, bound)

    def step(self, finite: Tensor, precision: Precision) -> None:
        """Apply the gradients if `finite` (a boolean scalar on their device) is true, and drop them in any case.

        Where the optimizer can leave its step out on the device itself, nothing waits for the answer.
        """
        if precision.scaler.is_enabled():
            precision.step(self.optimizer)
        elif accelerator(finite.device) and getattr(self.optimizer, "_step_supports_amp_scaling", False):
            self.optimizer.found_inf = (~finite).float()  # pyright: ignore[reportAttributeAccessIssue]
            self.optimizer.step()
            del self.optimizer.found_inf  # pyright: ignore[reportAttributeAccessIssue]
        elif bool(finite):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def weights_for_use(self) -> Iterator[None]:
        """Inside, the weights are those to save, measure and draw with; afterwards exactly those of before.

        Schedule-free optimizers compute gradients at other weights than the averaged ones that they are for. Their own
        way back rounds, and a run that saves would end elsewhere than one that does not: so a copy is put back.
        """
        if not callable(getattr(self.optimizer, "eval", None)):
            yield
            return
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer.eval()  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            self.optimizer.train()  # pyright: ignore[reportAttributeAccessIssue]
            with torch.no_grad():
                for parameter, trained in zip(self.parameters, kept, strict=True):
                    parameter.copy_(trained)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any], *, keeps_its_own: bool = False) -> None:
        """Go on where `state` was written. With `keeps_its_own`, the options of this run count where they differ: its
        rates and `optimizer_args`, not what an optimizer finds and keeps beside them."""
        names = {"lr", *self._arguments} if keeps_its_own else set()
        own = [{name: group[name] for name in names if name in group} for group in self.optimizer.param_groups]
        load_exactly(self.optimizer, state)
        for group, values in zip(self.optimizer.param_groups, own, strict=True):
            group.update(values)

    def rates_of(self, step: int) -> list[float] | None:
        """What the schedule gives each group at `step` (0-based); None where the optimizer finds its own rates."""
        return None if self._schedule is None else [float(values["lr"]) for values in self._schedule(step)]


def relative_step_size(group: dict[str, Any], optimizer: torch.optim.Optimizer) -> float:
    """rho_t of Adafactor (Shazeer & Stern 2018, section 8), before it is scaled by the size of a parameter.

    min(0.01, 1/sqrt(t)), or with warmup_init min(1e-6 t, 1/sqrt(t)), t counted from 1.
    """
    step = optimizer.state[group["params"][0]].get("step", 0) + 1
    largest = 1e-6 * step if group.get("warmup_init") else 1e-2
    return min(largest, 1.0 / math.sqrt(step))
