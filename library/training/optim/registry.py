"""Optimizers by the names that kohya's `optimizer_type` takes. Packages that not every run needs are imported here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from library.config.suggest import did_you_mean
from library.errors import UserError


@dataclass(frozen=True)
class Known:
    """Where a class is, what to install for it, and arguments that its name stands for."""

    module: str
    class_name: str
    package: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)  # always
    defaults: Mapping[str, Any] = field(default_factory=dict)  # unless given; they are written into the metadata


def _bitsandbytes(*names: str) -> dict[str, Known]:
    return {name.lower(): Known("bitsandbytes.optim", name, "bitsandbytes") for name in names}


def _dadaptation(module: str, *names: str) -> dict[str, Known]:
    return {name.lower(): Known(module, name, "dadaptation") for name in names}


def _schedulefree(*names: str) -> dict[str, Known]:
    return {name.lower(): Known("schedulefree", name, "schedulefree") for name in names}


NESTEROV: dict[str, Any] = {"arguments": {"nesterov": True}, "defaults": {"momentum": 0.9}}
KNOWN: dict[str, Known] = {
    "adamw": Known("torch.optim", "AdamW"),
    **_bitsandbytes("AdamW8bit", "PagedAdamW8bit", "PagedAdamW", "PagedAdamW32bit", "Lion8bit", "PagedLion8bit"),
    "sgdnesterov": Known("torch.optim", "SGD", **NESTEROV),
    "sgdnesterov8bit": Known("bitsandbytes.optim", "SGD8bit", "bitsandbytes", **NESTEROV),
    "lion": Known("lion_pytorch", "Lion", "lion-pytorch"),
    "adafactor": Known("transformers.optimization", "Adafactor"),
    "prodigy": Known("prodigyopt", "Prodigy", "prodigyopt"),
    "dadaptation": Known("dadaptation.experimental", "DAdaptAdamPreprint", "dadaptation"),
    **_dadaptation("dadaptation.experimental", "DAdaptAdamPreprint", "DAdaptAdanIP"),
    **_dadaptation("dadaptation", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD"),
    **_schedulefree("RAdamScheduleFree", "AdamWScheduleFree", "SGDScheduleFree"),
}
"""By the name in lower case; the classes of torch.optim and any package.module.Class are found as they are written."""


NAMES = (
    *("AdamW", "AdamW8bit", "PagedAdamW8bit", "PagedAdamW", "PagedAdamW32bit", "Lion", "Lion8bit", "PagedLion8bit"),
    *("SGDNesterov", "SGDNesterov8bit", "Adafactor", "Prodigy", "DAdaptation", "DAdaptAdamPreprint", "DAdaptAdaGrad"),
    *("DAdaptAdam", "DAdaptAdan", "DAdaptAdanIP", "DAdaptLion", "DAdaptSGD"),
    *("RAdamScheduleFree", "AdamWScheduleFree", "SGDScheduleFree"),
)
"""How people write them."""


def known(name: str) -> Known:
    """What `name` stands for; AdamW where it is empty."""
    if not name:
        return KNOWN["adamw"]
    if name.lower() in KNOWN:
        return KNOWN[name.lower()]
    module, _, class_name = name.rpartition(".")
    return Known(module or "torch.optim", class_name)


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class itself. Raises `UserError` for a name that leads nowhere, and for a package that is not installed."""
    place = known(name)
    try:
        found = getattr(importlib.import_module(place.module), place.class_name)
    except ImportError as error:
        if not place.package:
            raise UserError(_unknown(name)) from None
        raise UserError(
            f"`optimizer_type = {name}` needs the package {place.package}, which cannot be imported ({error}): "
            f"pip install {place.package}"
        ) from None
    except AttributeError:
        raise UserError(_unknown(name)) from None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise UserError(f"`optimizer_type = {name}` is not a torch.optim.Optimizer")
    return found


def _unknown(name: str) -> str:
    classes = [n for n, found in vars(torch.optim).items() if isinstance(found, type) and n != "Optimizer"]
    return (
        f"`optimizer_type = {name}` is not an optimizer that can be imported"
        f"{did_you_mean(name, [*NAMES, *classes])} Known are {', '.join(NAMES)}, the classes of torch.optim, "
        "and any package.module.Class"
    )
