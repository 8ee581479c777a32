"""The proofs of averages, rank by timestep and rectified flow: their arms, their options, what their tables count."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.models.family import Family
from library.models.load import load_model
from library.training.optim.weight_averages import WeightAverages
from miniworld import flow_model
from miniworld.prove.arms import command_line
from miniworld.prove.variants import averages, flow, t_lora
from miniworld.tiny import build


def test_each_arm_is_one_run_and_the_first_seed_of_everything_comes_first():
    arms = list(averages.keys(["oil"], 200, 2))
    assert [arm["seed"] for arm in arms] == [0] * 4 + [1] * 4
    assert len({tuple(arm.items()) for arm in arms}) == 8
    arms = list(t_lora.keys(["oil"], ["id01"], 200, 1))
    assert [(arm["subject"], arm["pictures"]) for arm in arms[::5]] == [("id01", 1), ("oil", 1), ("oil", 15)]
    assert [arm["what"] for arm in flow.keys(["oil"], 200, 1)] == [flow.UNTRAINED] * 2 + [flow.TRAINED] * 2


@pytest.mark.parametrize("method", t_lora.METHODS.values(), ids=lambda method: method.name)
def test_the_arguments_of_a_method_are_those_of_its_module(method, tmp_path):
    settings = parse(command_line(method, tmp_path, 10, 0), *ALL_TRAIN_NETWORK, prog="", description="")
    assert settings["network_args"] == (list(method.arguments) or None)
    assert settings["network_module"] == method.module


def test_averages_are_carried_over_restarts_only_inside_the_proof():
    before = WeightAverages.begin_again
    with averages.carried_over():
        assert WeightAverages.begin_again is not before
    assert WeightAverages.begin_again is before


def test_the_tables_count_what_is_better():
    arm = {"method": "LoRA 16", "decay": 0.99, "restarts": "", "steps": 200, "seed": 0}
    for what, loss in (("last", 0.2), ("best", 0.1), ("average", 0.3)):
        arm |= {f"{what}_loss": loss, f"{what}_frechet": 1.0, f"{what}_style_score": 0.5, f"{what}_content_score": 0.5}
    last, best, average = averages.table([arm]).splitlines()[2:]
    assert "| 0.2000 |" in last
    assert best.endswith("| 1 of 1 |")
    assert average.endswith("| 0 of 1 |")


def test_the_table_of_t_lora_has_each_loss_over_that_of_the_lora_of_the_same_task():
    task = {"pictures": 1, "steps": 200, "seed": 0}
    arms: list[dict[str, Any]] = [
        {"subject": "oil", "method": "T-LoRA", "held_out": 0.1, "held_out_masked": 0.2},
        {"subject": "id01", "method": "T-LoRA", "held_out": 0.3, "identity": 0.75},
        {"subject": "id01", "method": "LoRA", "held_out": 0.4},
    ]
    rows = t_lora.table([arm | task for arm in arms]).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| people", "| people", "| styles"]
    assert rows[0].startswith("| people | 1 | LoRA | 1 | 0.4000 |  |")
    assert rows[1].startswith("| people | 1 | T-LoRA | 1 | 0.3000 | 0.75 |  |")
    assert rows[2].startswith("| styles | 1 | T-LoRA | 1 | 0.1000 |  | 0.2000 |")


def test_the_flow_model_goes_on_where_it_was_stopped_and_its_folder_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(flow_model, "BATCH", 1)
    monkeypatch.setattr(flow_model, "load_model", lambda folder: build(Family.SD1))
    never = float("inf")
    flow_model.train(tmp_path / "whole", 2, never)
    flow_model.train(tmp_path / "parts", 2, time.monotonic())  # no time at all: nothing is done
    saved = torch.load(tmp_path / "parts" / "training.pt", weights_only=True)
    assert saved["step"] == 0
    flow_model.train(tmp_path / "parts", 2, never)
    one, other = (load_model(tmp_path / name / "model") for name in ("whole", "parts"))
    assert one.is_flow
    weights, same = one.unet.state_dict(), other.unet.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in weights.items())
