"""Schedules beyond those that tests/golden_table compares with sd-scripts, and what is refused."""

from typing import Any

import pytest
import torch

from library.config.options.optimizer import SCHEDULERS
from library.config.plugin_arguments import parse_arguments
from library.errors import UserError
from library.training.optim.lr_schedulers import (
    ScheduleSpec,
    create_schedule,
    learning_rate_multiplier,
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
    with pytest.raises(UserError, match=r"wave.*cosine_with_restarts"):
        learning_rate_multiplier(ScheduleSpec("wave"), 10, 1e-4)


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


def test_rex_restarts_as_the_scheduler_of_easy_training_scripts_does():
    arguments = ("d=0.9", "gamma=0.9", "min_lr=1e-6")
    spec = ScheduleSpec("rex", lr_scheduler_args=arguments, lr_scheduler_num_cycles=2, lr_warmup_steps=2)
    schedule = create_schedule(spec, 10, optimizer(1e-3, 2e-4))
    first = [1e-6, 1e-3, 9.67774193548387e-4, 9.09181818181818e-4, 7.69461538461539e-4]  # recorded from its class
    second = [1e-6, 9e-4, 8.71e-4, 8.18272727272727e-4, 6.92538461538462e-4]
    assert [schedule(step)[0]["lr"] for step in range(10)] == pytest.approx([*first, *second], rel=1e-12)
    assert schedule(3)[1]["lr"] == pytest.approx(1.8190909090909091e-4, rel=1e-12)


def test_rex_of_the_paper_is_at_two_thirds_in_the_middle():
    schedule = create_schedule(ScheduleSpec("rex"), 10, optimizer(3e-3))
    assert [schedule(step)[0]["lr"] for step in (0, 5)] == pytest.approx([3e-3, 2e-3])


def test_cosine_restarts_at_a_lower_peak():
    spec = ScheduleSpec(
        "cosine_annealing_warm_restarts",
        lr_scheduler_num_cycles=2,
        lr_scheduler_args=("gamma=0.5",),
        lr_scheduler_min_lr_ratio=0.1,
    )
    schedule = create_schedule(spec, 8, optimizer(1.0))
    assert [schedule(step)[0]["lr"] for step in (0, 2, 4, 6)] == pytest.approx([1.0, 0.55, 0.5, 0.3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("d=1",), "d is 1, but must be below 1"),
        (("gama=1",), "no argument 'gama'; it takes gamma, min_lr, cycle_multiplier, d"),
        (("gamma='a'",), "gamma is 'a', but must be a number"),
    ],
)
def test_arguments_of_rex_are_checked(arguments, message):
    with pytest.raises(UserError, match=message):
        create_schedule(ScheduleSpec("rex", lr_scheduler_args=arguments), 10, optimizer(1e-3))


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "os.path"])
def test_what_is_no_scheduler_is_not_called(name):
    with pytest.raises(UserError, match=r"is no class of a scheduler|is not a class"):
        create_schedule(ScheduleSpec(lr_scheduler_type=name), 10, optimizer(1e-3))


def test_a_rex_class_that_is_not_there_names_the_schedule():
    with pytest.raises(UserError, match="`lr_scheduler = rex` needs no class"):
        create_schedule(ScheduleSpec(lr_scheduler_type="Missing.RexAnnealing"), 10, optimizer(1e-3))
