"""The average of the weights: its numbers in closed form, its files, and that a resume and a RESTART leave it right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from library.training.optim.weight_averages import AverageSpec, WeightAverages, decay_at
from library.training.trained.full_module import ModuleTrainable


def trainable(start: float = 0.0, name: str = "one") -> ModuleTrainable:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, start)
    return ModuleTrainable(name, layer, 1e-3, kind="lora")


def value(of: ModuleTrainable) -> float:
    return float(of.parameters[0].detach())


def set_to(of: ModuleTrainable, number: float) -> None:
    with torch.no_grad():
        of.parameters[0].fill_(number)


def weighted_sum(start: float, weights: list[float], decays: list[float]) -> float:
    """sum_i (1 - d_i) prod_{j > i} d_j w_i, and the start times the product of all d."""
    total, left = 0.0, 1.0
    for weight, decay in zip(reversed(weights), reversed(decays), strict=True):
        total += left * (1 - decay) * weight
        left *= decay
    return total + left * start


@pytest.mark.parametrize("decay", [0.15, 0.5, 0.999])
def test_after_n_steps_the_average_is_the_weighted_sum_of_all_weights(decay):
    one = trainable(2.0)
    averages = WeightAverages(AverageSpec(decay), [one])
    weights = [float(n * n % 7) for n in range(1, 21)]
    for weight in weights:
        set_to(one, weight)
        averages.update([one])
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, 21)]
    with averages.weights_for_use():
        assert value(one) == pytest.approx(weighted_sum(2.0, weights, decays), rel=1e-6)
    assert value(one) == weights[-1]


def test_an_update_every_third_step_forgets_as_much_as_three_updates():
    one = trainable(1.0)
    averages = WeightAverages(AverageSpec(0.3, 3), [one])
    for weight in (5.0, 6.0, 7.0, 8.0):
        set_to(one, weight)
        averages.update([one])
    with averages.weights_for_use():
        decay = min(0.3, 4 / 13) ** 3
        assert value(one) == pytest.approx(decay * 1.0 + (1 - decay) * 7.0, rel=1e-6)


def test_only_what_is_trained_in_a_step_is_averaged_in_it_and_counts_it():
    one, other = trainable(1.0, "one"), trainable(1.0, "other")
    averages = WeightAverages(AverageSpec(0.9), [one, other])
    set_to(one, 3.0)
    set_to(other, 3.0)
    averages.update([one])
    averages.update([other])
    with averages.weights_for_use():
        first = decay_at(1, 0.9) * 1.0 + (1 - decay_at(1, 0.9)) * 3.0
        assert [value(one), value(other)] == pytest.approx([first, first], rel=1e-6)


def test_the_average_of_half_precision_weights_is_of_full_precision():
    one = trainable(1.0)
    one.parameters[0].data = one.parameters[0].data.bfloat16()
    averages = WeightAverages(AverageSpec(0.9), [one])
    for _ in range(3):
        set_to(one, 1.0078125)  # the next number after 1 in bfloat16
        averages.update([one])
    (average,) = [tensor for name, tensor in averages.state_dict().items() if name == "one.0"]
    assert average.dtype == torch.float32
    assert 1.0 < float(average) < 1.0078125


def test_after_weights_were_put_into_another_form_the_average_begins_there():
    one = trainable(1.0)
    averages = WeightAverages(AverageSpec(0.999), [one])
    set_to(one, 5.0)
    averages.begin_again(one)
    averages.update([one])
    with averages.weights_for_use():
        assert value(one) == pytest.approx(5.0)


def test_a_restart_of_ac_lora_begins_the_average_again(train, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(WeightAverages, "begin_again", lambda self, trainable: begun.append(trainable.name))
    options = {"network_train_unet_only": True, "network_module": "networks.ac_lora", "network_args": ["ac_p=0.9"]}
    options["network_args"].append("ac_every_n_epochs=1")
    assert train(max_train_steps=None, max_train_epochs=3, train_batch_size=7, ema_decay=0.9, **options) == 0
    lines = (tmp_path / "out" / "t-log.jsonl").read_text(encoding="utf-8").splitlines()
    restarts = [line for line in map(json.loads, lines) if line.get("event") == "restart"]
    assert begun == ["network"] * len(restarts) == ["network"] * 2


AVERAGED = {"ema_decay": 0.7, "ema_update_every": 2}
WORD = {"token_string": "zwx", "init_word": "person", "use_object_template": True, "network_train_unet_only": True}


def test_resumed_in_the_middle_the_averaged_files_are_the_same_bit_for_bit_and_the_weights_as_without(train, tmp_path):
    whole, parts, without = tmp_path / "whole", tmp_path / "parts", tmp_path / "without"
    assert train(output_dir=whole, max_train_steps=5, **AVERAGED, **WORD) == 0
    assert train(output_dir=parts, max_train_steps=3, save_state_on_train_end=True, **AVERAGED, **WORD) == 0
    assert train(output_dir=parts, max_train_steps=5, resume="latest", **AVERAGED, **WORD) == 0
    assert train(output_dir=without, max_train_steps=5, **WORD) == 0
    for name in ("t-ema.safetensors", "t-ema_emb.safetensors"):
        average, weights = load_file(whole / name), load_file(whole / name.replace("-ema", ""))
        assert same(average, load_file(parts / name))
        assert same(weights, load_file(without / name.replace("-ema", "")))
        assert not same(average, weights)
        files = [whole / name, whole / name.replace("-ema", "")]
        assert [is_said_to_be_averaged(file) for file in files] == [True, False]


def test_what_is_measured_and_kept_as_the_best_step_is_the_average_and_old_averages_go(train, tmp_path):
    options = {"validation_split": 0.5, "validate_every_n_steps": 1, "save_best": True, "train_batch_size": 1}
    options |= {"ema_decay": 0.5, "max_train_steps": 3, "save_every_n_steps": 1, "save_last_n_steps": 1}
    out = tmp_path / "out"
    assert train(network_train_unet_only=True, ema_validate=True, **options) == 0
    losses = validation_losses(out)
    assert min(losses, key=lambda step: losses[step]) == 3, losses
    best = load_file(out / "t-best.safetensors")
    assert same(best, load_file(out / "t-ema.safetensors"))
    assert not same(best, load_file(out / "t.safetensors"))
    steps = {f"t-step0000000{n}{kind}.safetensors" for n in (2, 3) for kind in ("", "-ema")}
    files = {"t.safetensors", "t-ema.safetensors", "t-best.safetensors"}
    assert {path.name for path in out.glob("*.safetensors")} == steps | files


def is_said_to_be_averaged(file: Path) -> bool:
    with safe_open(file, "pt") as opened:
        return opened.metadata().get("ss_ema_weights") == "True"


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def validation_losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["validation_loss"] for line in lines if line.get("event") == "validation"}


def test_a_decay_of_one_is_refused_before_a_model_is_loaded(train, capsys):
    assert train(ema_decay=1, pretrained_model_name_or_path=Path(__file__)) == 2
    assert "never leaves the start" in capsys.readouterr().err
