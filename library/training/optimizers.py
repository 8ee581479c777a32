"""The optimizer of a run and its learning rates."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from library.errors import UserError
from library.training.precision import Precision
from library.training.schedules import Multiplier, parse_arguments

EIGHT_BIT = {"adamw8bit": "AdamW8bit"}


@dataclass(frozen=True)
class OptimizerSpec:
    """The options that choose the optimizer; field names are the options'."""

    optimizer_type: str = "AdamW"
    optimizer_args: Sequence[str] | None = None
    learning_rate: float = 2e-6
    max_grad_norm: float = 1.0


def optimizer_class(name: str, device: torch.device) -> tuple[type[torch.optim.Optimizer], str | None]:
    """The class that kohya's `optimizer_type` names, and a line to say if another one stands in for it.

    Known are AdamW and AdamW8bit (bitsandbytes) in any case, the classes of torch.optim, and any `package.Class`.
    Raises `UserError` for a name that leads nowhere.
    """
    lowered = (name or "AdamW").lower()
    if lowered == "adamw":
        return torch.optim.AdamW, None
    if lowered in EIGHT_BIT:
        return _eight_bit(EIGHT_BIT[lowered], device)
    module_name, _, class_name = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name or "torch.optim"), class_name)
    except (ImportError, AttributeError):
        raise UserError(
            f"`optimizer_type = {name}` is not an optimizer that can be imported; "
            "use AdamW, AdamW8bit, a class of torch.optim such as RMSprop, or package.module.Class"
        ) from None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise UserError(f"`optimizer_type = {name}` is not a torch.optim.Optimizer")
    return found, None


def _eight_bit(class_name: str, device: torch.device) -> tuple[type[torch.optim.Optimizer], str | None]:
    try:
        import bitsandbytes.optim
    except ImportError:
        return torch.optim.AdamW, f"{class_name} needs bitsandbytes (pip install bitsandbytes): AdamW is used instead"
    if device.type == "cpu":
        return torch.optim.AdamW, f"{class_name} saves GPU memory and there is no GPU here: AdamW is used instead"
    return getattr(bitsandbytes.optim, class_name), None


def create_optimizer(
    spec: OptimizerSpec, groups: Sequence[dict[str, Any]], device: torch.device
) -> tuple[torch.optim.Optimizer, str | None]:
    """The optimizer over `groups` (each with its own `lr`), and a line to say if another class stands in.

    The list and the dicts are handed over as they are: networks may keep them to read the live learning rate.
    """
    chosen, note = optimizer_class(spec.optimizer_type, device)
    arguments: dict[str, Any] = {"lr": spec.learning_rate}
    arguments |= parse_arguments(spec.optimizer_args or (), "optimizer_args")
    if chosen is torch.optim.AdamW:
        arguments.setdefault("fused", _can_fuse(groups))
    try:
        return chosen(list(groups), **arguments), note
    except TypeError as error:
        raise UserError(f"`optimizer_args` does not fit {chosen.__name__}: {error}") from None


def _can_fuse(groups: Sequence[dict[str, Any]]) -> bool:
    return all(parameter.dtype.is_floating_point for group in groups for parameter in group["params"])


class Optimizers:
    """One optimizer, its learning rates over the run, and the gradient norm that it clips to.

    `descriptions` names each parameter group in the logs ("textencoder", "unet", ...).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: Multiplier,
        descriptions: Sequence[str],
        max_grad_norm: float,
    ) -> None:
        self.optimizer = optimizer
        self.descriptions = tuple(descriptions)
        self.max_grad_norm = max_grad_norm
        self._multiplier = multiplier
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def set_learning_rates(self, step: int) -> None:
        """Those in effect at step `step` (0-based)."""
        factor = self._multiplier(step)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    @property
    def learning_rates(self) -> dict[str, float]:
        """Description of each group -> its learning rate now."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return dict(zip(self.descriptions, rates, strict=True))

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
        elif finite.is_cuda and getattr(self.optimizer, "_step_supports_amp_scaling", False):
            self.optimizer.found_inf = (~finite).float()  # pyright: ignore[reportAttributeAccessIssue]
            self.optimizer.step()
            del self.optimizer.found_inf  # pyright: ignore[reportAttributeAccessIssue]
        elif bool(finite):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
