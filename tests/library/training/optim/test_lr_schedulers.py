"""Schedules beyond those that tests/golden_table compares with sd-scripts, and what is refused."""

from typing import Any

import pytest
import torch

from library.config.options.optimizer import SCHEDULERS
from library.errors import UserError
from library.training.optim.lr_schedulers import (
    ScheduleSpec,
    create_schedule,
    learning_rate_multiplier,
    parse_arguments,
)


def optimizer(*rates: float, kind: type[torch.optim.Optimizer] = torch.optim.AdamW) -> torch.optim.Optimizer:
    make: Any = kind  # a class of its own has defaults of its own
    return make([{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates])


NEEDED = {
    "cosine_with_min_lr": {"lr_scheduler_min_lr_ratio": 0.1},
    "piecewise_constant": {"lr_scheduler_args": ('step_rules="1:3,0.1:6,0.01"',)},
}


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "adafactor"])
def test_every_schedule_that_is_offered_gives_a_rate_for_every_step(name):
    schedule = create_schedule(ScheduleSpec(name, **NEEDED.get(name, {})), 10, optimizer(1e-3, 1e-4))
    for step in range(10):
        first, second = schedule(step)
        assert 0 <= first["lr"] <= 1e-3
        assert second["lr"] == pytest.approx(first["lr"] / 10)


def test_an_unknown_schedule_is_refused_with_the_known_names():
    with pytest.raises(UserError, match=r"rex.*cosine_with_restarts"):
        learning_rate_multiplier(ScheduleSpec("rex"), 10, 1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ScheduleSpec("constant", lr_warmup_steps=2), "has no warm-up"),
        (ScheduleSpec("cosine", lr_warmup_steps=11), "gives 11 steps, but the run has 10"),
        (
            ScheduleSpec("warmup_stable_decay", lr_warmup_steps=0.6, lr_decay_steps=6),
            r"6 \+ 6 steps",
        ),
        (ScheduleSpec("cosine_with_min_lr"), "lr_scheduler_min_lr_ratio"),
        (ScheduleSpec("piecewise_constant"), "step_rules"),
        (ScheduleSpec("adafactor"), "Adafactor"),
        (ScheduleSpec("linear", lr_scheduler_args=("steepness=2",)), "steepness"),
        (ScheduleSpec(lr_scheduler_type="NoSuchLR"), "NoSuchLR.*cannot|NoSuchLR.*not a class"),
        (ScheduleSpec(lr_scheduler_type="StepLR"), "StepLR.*step_size"),
        (ScheduleSpec(lr_scheduler_type="ReduceLROnPlateau"), "ReduceLROnPlateau.*step 2 of 10.*metrics"),
        (
            ScheduleSpec(lr_scheduler_type="OneCycleLR", lr_scheduler_args=("max_lr=0.1", "total_steps=5")),
            "OneCycleLR.*step 7 of 10",
        ),
        (ScheduleSpec(lr_scheduler_type="StepLR", lr_scheduler_args=("step_size=2",), lr_warmup_steps=1), "leave"),
    ],
    ids=str,
)
def test_what_cannot_work_in_this_run_is_refused_by_name(spec, message):
    with pytest.raises(UserError, match=message):
        create_schedule(spec, 10, optimizer(1e-3))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_foreign_class_sets_what_it_would_set_if_it_ran_along(kind):
    spec = ScheduleSpec(lr_scheduler_type="OneCycleLR", lr_scheduler_args=("max_lr=0.1", "total_steps=12"))
    ours = create_schedule(spec, 12, optimizer(1e-3, 2e-3, kind=kind))
    theirs = optimizer(1e-3, 2e-3, kind=kind)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.1, total_steps=12)
    for step in range(12):
        for changed, group in zip(ours(step), theirs.param_groups, strict=True):
            assert changed == {name: group[name] for name in changed}
        assert {"lr", "betas" if kind is torch.optim.AdamW else "momentum"} <= set(ours(step)[0])
        if step < 11:
            theirs.step()
            scheduler.step()


@pytest.mark.parametrize("text", ["weight_decay", "weight_decay=", "betas=(.9,", "a b=1"])
def test_an_argument_that_is_not_key_and_literal_is_refused_by_name(text):
    with pytest.raises(UserError, match="optimizer_args"):
        parse_arguments((text,), "optimizer_args")


def test_arguments_are_python_literals():
    assert parse_arguments(("betas=(0.9, 0.99)", "fused = True"), "optimizer_args") == {
        "betas": (0.9, 0.99),
        "fused": True,
    }
