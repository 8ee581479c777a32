"""Learning rates against those recorded from an unmodified sd-scripts, at every step."""

import gzip
import json
from pathlib import Path

import pytest

from library.errors import UserError
from library.training.schedules import NAMES, ScheduleSpec, as_steps, learning_rate_multiplier, parse_arguments

GOLDEN = Path(__file__).parents[2] / "golden" / "lr_schedules.json.gz"
NUMBERS = {
    "lr_scheduler_num_cycles": int,
    "lr_scheduler_power": float,
    "lr_scheduler_timescale": int,
    "lr_scheduler_min_lr_ratio": float,
}


def recorded() -> list[dict]:
    rows = json.loads(gzip.decompress(GOLDEN.read_bytes()))["rows"]
    return [row for row in rows if row["num_processes"] == 1 and _name(row) in NAMES]


def _name(row: dict) -> str:
    return row["options"][row["options"].index("--lr_scheduler") + 1]


def _spec(row: dict) -> ScheduleSpec:
    values: dict = {"lr_scheduler": _name(row)}
    options = row["options"]
    for name, number in NUMBERS.items():
        if f"--{name}" in options:
            values[name] = number(options[options.index(f"--{name}") + 1])
    if "--lr_scheduler_args" in options:
        values["lr_scheduler_args"] = tuple(options[options.index("--lr_scheduler_args") + 1 :])
    return ScheduleSpec(**values, **row["parsed"])


@pytest.mark.parametrize("row", recorded(), ids=lambda row: " ".join(row["options"][2:]).replace("--", ""))
def test_the_learning_rate_at_every_step_is_the_one_sd_scripts_uses(row):
    spec = _spec(row)
    if row["raises"] or as_steps(spec.lr_warmup_steps, row["max_train_steps"]) > row["max_train_steps"]:
        with pytest.raises(UserError):
            learning_rate_multiplier(spec, row["max_train_steps"], row["group_lrs"][0])
        return
    multiplier = learning_rate_multiplier(spec, row["max_train_steps"], row["group_lrs"][0])
    for base, rates in zip(row["group_lrs"], row["lr"], strict=True):
        ours = [base * multiplier(step) for step in range(row["max_train_steps"])]
        assert ours == pytest.approx(rates[: row["max_train_steps"]], rel=1e-6, abs=1e-12)


def test_an_unknown_schedule_is_refused_with_the_known_names():
    with pytest.raises(UserError, match=r"rex.*cosine_with_restarts"):
        learning_rate_multiplier(ScheduleSpec("rex"), 10, 1e-4)


@pytest.mark.parametrize("text", ["weight_decay", "weight_decay=", "betas=(.9,", "a b=1"])
def test_an_argument_that_is_not_key_and_literal_is_refused_by_name(text):
    with pytest.raises(UserError, match="optimizer_args"):
        parse_arguments((text,), "optimizer_args")


def test_arguments_are_python_literals():
    assert parse_arguments(("betas=(0.9, 0.99)", "fused = True"), "optimizer_args") == {
        "betas": (0.9, 0.99),
        "fused": True,
    }
