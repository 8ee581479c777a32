"""Learning rates at every step, and optimizers by their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from library.config.option import Settings
from library.config.options.optimizer import RESTARTING
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.values import Noted, read_value
from library.errors import ConfigError, UserError
from library.training.optim.lr_schedulers import ScheduleSpec, create_schedule
from library.training.optim.optimizers import Optimizers, OptimizerSpec, create_optimizer
from library.training.saving.fingerprint import optimizer_text
from tests.golden_table.comparison import Comparison

TWO_RATES = "two learning rates for an optimizer that finds one are refused at the start; sd-scripts fails in a step"
NOT_INSTALLED = "any importable class is taken; this package is not among those that this page is made with"
SPACES = "spaces around an equals sign are left out"
INERT = "fused_backward_pass has no effect, and says so"
CHECKED_EARLIER = "two old flags that contradict each other are refused with the other options"
TOO_LONG = "a warm-up longer than the run is refused; sd-scripts never reaches the rate"
FLOATS = "a TOML float of 1 or more is a number of steps, where sd-scripts takes it for that many times the whole run"
PERCENT = "a percentage is also read from TOML"
UNSCALED = "the rate that Adafactor sets itself is shown as its step size, before it is scaled by a parameter's size"
NONE = "no warm-up written is no warm-up"
PER_PROCESS = "rates are per optimizer step, whatever the number of processes"
OF_THIS_PROJECT = "sd-scripts has no such schedule; here it is one of LoRA_Easy_Training_Scripts'"
OWN_RATE = "Adafactor with relative_step sets its own rate: a warm-up is said to have no effect; sd-scripts refuses it"


def made(words: list[str], rates: list[float] | None, **in_toml: Any) -> tuple[Settings, torch.optim.Optimizer]:
    """The optimizer that options ask for, on parameters of no consequence. Raises `UserError`."""
    settings = parse(words, *ALL_TRAIN_NETWORK, prog="", description="")
    for name, raw in in_toml.items():
        value = read_value(settings.options[name], raw)
        settings.values[name] = value.value if isinstance(value, Noted) else value
    spec = settings.take(OptimizerSpec)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(4, 4))], "lr": r} for r in rates or [spec.learning_rate]]
    return settings, create_optimizer(spec, groups)[0]


def optimizers(data: dict[str, Any]) -> Iterator[Comparison]:
    built = Comparison("class, first group and text in the metadata of an optimizer", relative=1e-9)
    for row in data["rows"]:
        name = " ".join(row["options"])
        try:
            settings, optimizer = made(row["options"], row["group_lrs"])
        except (UserError, ConfigError) as error:
            because = NOT_INSTALLED if "can be imported" in str(error) and "raises" not in row else None
            because = TWO_RATES if row.get("cpu_step_ok") is False else because
            built.add(name, "raises", "raises" if "raises" in row else row["ss_optimizer"], because)
            continue
        if "raises" in row:
            because = SPACES if "weight_decay = " in name else INERT if "fused" in name else CHECKED_EARLIER
            built.add(name, optimizer_text(optimizer, settings.take(OptimizerSpec).arguments), "raises", because)
            continue
        text = optimizer_text(optimizer, settings.take(OptimizerSpec).arguments)
        group = {key: _plain(optimizer.param_groups[0].get(key, "missing")) for key in row["group0"]}
        # AdamW's fused kernel gives the same numbers faster.
        theirs = row["group0"] | ({"fused": group["fused"]} if "fused" in group else {})
        built.add(f"{name}: text", text, row["ss_optimizer"])
        built.add(f"{name}: group", group, theirs)
        rates = [group["lr"] for group in optimizer.param_groups]
        built.add(f"{name}: rates", rates, row["group_lrs_in_optimizer"])
    yield built


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def learning_rates(data: dict[str, Any]) -> Iterator[Comparison]:
    compared = Comparison("learning rate at every step", relative=1e-6, absolute=1e-12)
    for row in data["rows"]:
        name, options, steps = " ".join(row["options"]), list(row["options"]), row["max_train_steps"]
        if "adafactor:1e-3" in options:  # how sd-scripts writes its own choice down
            options[options.index("adafactor:1e-3")] = "adafactor"
        theirs = "raises" if row.get("raises") or row.get("raises_while_stepping") else [r[:steps] for r in row["lr"]]
        try:
            ours: Any = _rates(options, row, steps)
        except (UserError, ConfigError):
            ours = "raises"
        if row.get("scheduler_class") == "AdafactorSchedule":
            ours, theirs = ours[0][0], theirs[0][1]  # the others depend on the parameters
        compared.add(name, ours, theirs, _reason(row, ours, theirs))
    yield compared


def _rates(options: list[str], row: dict[str, Any], steps: int) -> list[list[float]]:
    words = [*options, "--optimizer_type", row["optimizer_type"], "--learning_rate", str(row["group_lrs"][0])]
    settings, optimizer = made(words, row["group_lrs"], **row.get("values_set_as_by_toml", {}))
    spec = settings.take(OptimizerSpec)
    schedule = None if spec.has_own_rates else create_schedule(settings.take(ScheduleSpec), steps, optimizer)
    names = [str(i) for i in range(len(row["group_lrs"]))]
    run, rates = Optimizers(optimizer, schedule, names, 0.0), []
    for step in range(steps):
        run.set_learning_rates(step)
        rates.append([run.learning_rates[name] for name in names])
    return [list(group) for group in zip(*rates, strict=True)]


def _reason(row: dict[str, Any], ours: Any, theirs: Any) -> str | None:
    in_toml = row.get("values_set_as_by_toml", {}).get("lr_warmup_steps", 0)
    if in_toml is None:
        return NONE
    warm_up = row["parsed"]["lr_warmup_steps"]
    if row["num_processes"] > 1:
        return PER_PROCESS
    if isinstance(in_toml, float):
        return FLOATS
    if isinstance(in_toml, str):
        return PERCENT
    if isinstance(warm_up, int) and warm_up > row["max_train_steps"]:
        return TOO_LONG
    if row.get("scheduler_class") == "AdafactorSchedule":
        return UNSCALED
    if theirs == "raises" and not set(RESTARTING).isdisjoint(row["options"]):
        return OF_THIS_PROJECT
    return OWN_RATE if row["optimizer_type"] == "Adafactor" and theirs == "raises" else None
