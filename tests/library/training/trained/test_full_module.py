"""A whole module as a trainable: float32 weights, its own names, its state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from library.errors import UserError
from library.training.trained.full_module import ModuleTrainable


def trainable(seed: int = 0, **options) -> ModuleTrainable:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).half().requires_grad_(False)
    return ModuleTrainable("unet", module, 1e-3, kind="unet", **options)


def test_all_weights_are_trained_in_float32_in_one_group():
    (group,) = trainable().parameter_groups()
    assert [tuple(p.shape) for p in group["params"]] == [(2, 3), (2,), (1, 2), (1,)]
    assert all(p.dtype == torch.float32 and p.requires_grad for p in group["params"])
    assert group["lr"] == 1e-3


def test_the_file_has_the_modules_own_names_in_the_precision_asked_for(tmp_path: Path):
    trainable(save_dtype=torch.float16).save(tmp_path / "g.safetensors", {"pivot_prompt": "a photo of a sks man"})
    tensors = load_file(tmp_path / "g.safetensors")
    assert sorted(tensors) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    with safe_open(tmp_path / "g.safetensors", "pt") as file:
        assert file.metadata()["pivot_prompt"] == "a photo of a sks man"


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path):
    broken = trainable()
    with torch.no_grad():
        broken.module.get_parameter("0.weight").fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        broken.save(tmp_path / "g.safetensors", {})
    assert not (tmp_path / "g.safetensors").exists()


def test_its_state_brings_back_weights_and_start():
    first, second = trainable(0), trainable(1)
    with torch.no_grad():
        for parameter in first.parameters:
            parameter += 1
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))
    findings = second.findings()
    assert (findings.moved, findings.tensors) == (4, 4)
    assert findings.change == pytest.approx(1.0, rel=1e-3)


def test_a_state_of_another_module_is_refused():
    state = trainable().state_dict()
    state["module.2.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"2\.weight"):
        trainable().load_state_dict(state)
