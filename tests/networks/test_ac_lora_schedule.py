"""When RESTARTs come, what of the options reaches them, and what a cut file keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from networks.ac_lora_restart import Choices
from networks.ac_lora_schedule import every_n_epochs
from tests.networks.test_ac_lora import a_network, progress


def test_counted_in_steps_the_strength_follows_the_share_of_the_run_that_is_done():
    network, _, _ = a_network(ac_every_n_steps="30")
    event = network.on_progress(progress(1, 11, global_step=60, total_steps=110, loss=0.3))
    assert event["p"] == pytest.approx(1 - 0.3**1.5)


def test_the_window_is_emptied_even_where_no_restart_was_possible():
    network, _, _ = a_network(ac_every_n_epochs="1")
    ups = [module.up.data.clone() for module in network.matrices()]
    for module in network.matrices():
        module.up.data.zero_()
    assert network.on_progress(progress(1, 10, loss=0.9)) is None
    for module, up in zip(network.matrices(), ups, strict=True):
        module.up.data.copy_(up)
    assert network.on_progress(progress(2, 10, loss=0.1))["loss"] == pytest.approx(0.1)


def test_no_restart_is_made_where_no_step_would_follow():
    network, _, _ = a_network(ac_every_n_epochs="1")
    before = [p.clone() for p in network.parameters()]
    assert network.on_progress(progress(10, 10)) is None
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (14, 1), (15, 2), (25, 3), (96, 10), (100, 10)])
def test_automatic_epochs_are_a_tenth_of_the_run_rounded(epochs, every):
    assert every_n_epochs(a_network()[0].options, epochs, 100) == every


def test_the_seed_and_the_number_of_the_restart_reach_the_noise():
    def after(**arguments):
        network, _, _ = a_network(ac_mode="product", ac_every_n_epochs="1", **arguments)
        network.on_progress(progress(1, 9))
        return network

    assert torch.equal(after().matrices()[0].down, after(ac_seed="0").matrices()[0].down)
    assert not torch.allclose(after().matrices()[0].down, after(ac_seed="1").matrices()[0].down, atol=1e-6)
    again = after()
    again.restarts.append(again.restarts[0])  # the next is the third, not the second
    second = after()
    for network in (second, again):
        network.on_progress(progress(2, 9))
    assert not torch.allclose(second.matrices()[0].down, again.matrices()[0].down, atol=1e-6)


def test_a_minimum_of_steps_holds_where_steps_are_counted():
    network, _, _ = a_network(ac_every_n_steps="10", ac_min_steps="25", ac_p="0.9")
    made = [network.on_progress(progress(1, 4, global_step=step, total_steps=100)) for step in range(10, 100, 10)]
    assert [event["step"] for event in made if event] == [30, 60, 90]


def test_a_module_of_which_one_half_is_frozen_is_left_alone():
    network, _, _ = a_network()
    first = network.unet_loras[0]
    first.lora_down.weight.requires_grad_(False)
    assert first.lora_name not in network.on_progress(progress(1, 10))["ranks"]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_cut_file_keeps_the_fewest_slots_that_hold_the_share(share, tmp_path):
    from safetensors.torch import load_file

    network, _, _ = a_network(export_rank=f"energy:{share}")
    network.save_weights(str(tmp_path / "x.safetensors"), None, {})
    tensors = load_file(tmp_path / "x.safetensors")
    for module in network.matrices():
        energy = torch.linalg.svdvals((module.up.flatten(1) @ module.down.flatten(1)).detach().double()) ** 2
        fewest = int((energy.cumsum(0) < share * energy.sum()).sum()) + 1
        assert tensors[f"{module.name}.lora_down.weight"].shape[0] == fewest


def test_the_mean_rank_is_that_of_the_modules_that_have_learned_something():
    network, _, _ = a_network()
    network.unet_loras[0].lora_up.weight.data.zero_()
    event = network.on_progress(progress(1, 10))
    alive = [rank for rank in event["ranks"].values() if rank]
    assert len(alive) == len(event["ranks"]) - 1
    assert event["mean_rank"] == pytest.approx(sum(alive) / len(alive))


def test_a_restart_is_shared_between_the_processes_before_it_counts(monkeypatch):
    from networks import ac_lora

    seen = []
    monkeypatch.setattr(
        ac_lora, "shared_between_processes", lambda modules, event: seen.append(modules) or {**event, "from": 0}
    )
    network, _, _ = a_network()
    assert network.on_progress(progress(1, 10))["from"] == network.restarts[-1]["from"] == 0
    assert [m.name for m in seen[0]] == [m.name for m in network.matrices()]


@pytest.mark.parametrize("name", ["dropout", "rank_dropout", "module_dropout"])
def test_dropout_is_warned_of(name, caplog):
    arguments: dict[str, Any] = {name: "0.1"}
    a_network(**arguments)
    assert any("dropout raises the training loss" in record.message for record in caplog.records)


@pytest.mark.parametrize("arguments", [{"dropout": "0.0", "rank_dropout": "0"}, {"dropout": "0.1", "ac_p": "0.9"}])
def test_dropout_of_nothing_or_where_p_is_fixed_is_not_warned_of(arguments, caplog):
    a_network(**arguments)
    assert "dropout" not in caplog.text


def test_a_very_short_run_is_advised_against_the_first_restart():
    assert any("ac_first_epoch=false" in line for line in a_network()[0].announce(9, 90))
    assert not any("ac_first_epoch=false" in line for line in a_network()[0].announce(9, 100))
    assert not any("ac_first_epoch=false" in line for line in a_network(ac_first_epoch="false")[0].announce(9, 90))


def test_found_ranks_are_those_of_the_last_restart_and_a_module_without_one_keeps_all(tmp_path):
    from safetensors.torch import load_file

    network, _, _ = a_network(export_rank="found")
    names = [module.name for module in network.matrices()]
    network.restarts += [{"ranks": dict.fromkeys(names, 1)}, {"ranks": {**dict.fromkeys(names, 2), names[0]: 0}}]
    network.trainer_options = SimpleNamespace(no_metadata=True)
    network.save_weights(str(tmp_path / "x.safetensors"), None, {})
    tensors = load_file(tmp_path / "x.safetensors")
    assert [tensors[f"{name}.lora_down.weight"].shape[0] for name in names] == [8, *[2] * (len(names) - 1)]


def test_every_choice_reaches_the_restart_as_it_was_given():
    from networks.ac_lora_options import read_options

    assert read_options({})[0].choices == Choices()
    given = {"ac_mode": "product", "ac_sum": "plain", "ac_noise": "full", "ac_noise_scale": "0.3", "ac_shrink": "soft"}
    assert read_options(given)[0].choices == Choices(True, False, "full", 0.3, True)


def test_a_threshold_of_zero_is_a_number_and_not_automatic():
    network, _, _ = a_network(ac_p="0")
    assert network.on_progress(progress(1, 10, loss=0.2))["p"] == 0


def test_quantiles_are_of_many_too():
    from networks.ac_lora_report import quantiles

    assert quantiles(list(range(101))) == [0, 25, 50, 75, 100]
