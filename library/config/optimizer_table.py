"""Optimizers by the names of `optimizer_type`, and what each does with learning rates. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """Where a class is, what to install for it, arguments that its name stands for, and how it takes learning rates."""

    module: str
    class_name: str
    package: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)  # always
    defaults: Mapping[str, Any] = field(default_factory=dict)  # unless given; they are written into the metadata
    finds_its_rate: bool = False  # it adapts one learning rate for all that it trains; the given one is a factor
    averages_weights: bool = False  # schedule-free: it needs no schedule


def _bitsandbytes(*names: str) -> dict[str, Known]:
    return {name.lower(): Known("bitsandbytes.optim", name, "bitsandbytes") for name in names}


def _dadaptation(module: str, *names: str) -> dict[str, Known]:
    return {name.lower(): Known(module, name, "dadaptation", finds_its_rate=True) for name in names}


def _schedulefree(*names: str) -> dict[str, Known]:
    return {name.lower(): Known("schedulefree", name, "schedulefree", averages_weights=True) for name in names}


NESTEROV: dict[str, Any] = {"arguments": {"nesterov": True}, "defaults": {"momentum": 0.9}}
KNOWN: dict[str, Known] = {
    "adamw": Known("torch.optim", "AdamW"),
    **_bitsandbytes("AdamW8bit", "PagedAdamW8bit", "PagedAdamW", "PagedAdamW32bit", "Lion8bit", "PagedLion8bit"),
    "sgdnesterov": Known("torch.optim", "SGD", **NESTEROV),
    "sgdnesterov8bit": Known("bitsandbytes.optim", "SGD8bit", "bitsandbytes", **NESTEROV),
    "lion": Known("lion_pytorch", "Lion", "lion-pytorch"),
    "adafactor": Known("transformers.optimization", "Adafactor"),
    "came": Known("came_pytorch", "CAME", "came-pytorch"),
    "prodigy": Known("prodigyopt", "Prodigy", "prodigyopt", finds_its_rate=True),
    "dadaptation": Known("dadaptation.experimental", "DAdaptAdamPreprint", "dadaptation", finds_its_rate=True),
    **_dadaptation("dadaptation.experimental", "DAdaptAdamPreprint", "DAdaptAdanIP"),
    **_dadaptation("dadaptation", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD"),
    **_schedulefree("RAdamScheduleFree", "AdamWScheduleFree", "SGDScheduleFree"),
}
"""By the name in lower case; the classes of torch.optim and any package.module.Class are found as they are written."""


NAMES = (
    *("AdamW", "AdamW8bit", "PagedAdamW8bit", "PagedAdamW", "PagedAdamW32bit", "Lion", "Lion8bit", "PagedLion8bit"),
    *("SGDNesterov", "SGDNesterov8bit", "Adafactor", "Prodigy", "DAdaptation", "DAdaptAdamPreprint", "DAdaptAdaGrad"),
    *("DAdaptAdam", "DAdaptAdan", "DAdaptAdanIP", "DAdaptLion", "DAdaptSGD", "CAME"),
    *("RAdamScheduleFree", "AdamWScheduleFree", "SGDScheduleFree"),
)
"""How people write them."""


def known(name: str) -> Known:
    """What `name` stands for; AdamW where it is empty.

    A class of any package takes learning rates as its name says: those of Prodigy's and D-Adaptation's kin find one,
    those that are schedule-free need no schedule.
    """
    if not name:
        return KNOWN["adamw"]
    if name.lower() in KNOWN:
        return KNOWN[name.lower()]
    module, _, class_name = name.rpartition(".")
    lowered = class_name.lower()
    return Known(
        module or "torch.optim",
        class_name,
        finds_its_rate="prodigy" in lowered or lowered.startswith("dadapt"),
        averages_weights=lowered.endswith("schedulefree"),
    )
