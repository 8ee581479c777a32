"""Whole runs on a device that is not the CPU: nothing meets what lies elsewhere, nothing waits, and the weights are the
CPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from library.files import read_tensors
from library.models.family import Family
from library.models.save import save_folder
from miniworld.tiny import build, tiny_configs
from tests.pretend_gpu import Steps, trained_on_gpu

Train = Callable[..., int]
LORA = {"network_module": "networks.lora", "network_train_unet_only": True}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors that a run wrote, by file and name."""
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {f"{file.name}:{name}": t for file in files for name, t in read_tensors(file)[0].items()}


@pytest.fixture(scope="module")
def smallest_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SD1.x with two levels and one layer in each: a fourth of the operations of the tiny model."""
    model = build(Family.SD1)
    shape: dict[str, Any] = {
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.unet = UNet2DConditionModel(**tiny_configs(Family.SD1)["unet"] | shape).requires_grad_(False).eval()
    folder = tmp_path_factory.mktemp("models") / "smallest"
    save_folder(model, folder)
    return folder


@pytest.fixture
def beside_cpu(train: Train, smallest_model: Path, tmp_path: Path) -> Callable[..., Steps]:
    """Train on the CPU and on the pretend GPU, and compare what was written; the waits of each step on the GPU."""

    def run(**options: object) -> Steps:
        options = {"pretrained_model_name_or_path": smallest_model, **options}
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's own kernel rounds differently
            assert train(**options, output_dir=tmp_path / "cpu") == 0
        with trained_on_gpu() as steps:
            assert train(**options, output_dir=tmp_path / "gpu") == 0
        on_cpu, on_gpu = weights(tmp_path / "cpu"), weights(tmp_path / "gpu")
        assert on_cpu.keys() == on_gpu.keys()
        assert [name for name in on_cpu if not torch.equal(on_cpu[name], on_gpu[name])] == []
        return steps

    return run


AC_LORA = {"network_module": "networks.ac_lora", "network_args": ["ac_every_n_steps=2", "ac_mode=product"]}
NO_WAIT = [
    {},
    {"train_batch_size": 2},
    {"gradient_accumulation_steps": 2},
    {"cache_text_encoder_outputs": True},
]


@pytest.mark.parametrize("options", NO_WAIT, ids=lambda options: "-".join(map(str, options)) or "AdamW")
def test_a_lora_has_the_weights_of_the_cpu_and_no_step_waits(beside_cpu: Callable[..., Steps], options: dict[str, Any]):
    steps = beside_cpu(**LORA, **options)
    assert len(steps) >= 4
    assert not steps.settled


def test_an_optimizer_that_cannot_leave_out_a_step_on_the_device_waits_once_for_whether_it_may(
    beside_cpu: Callable[..., Steps],
):
    steps = beside_cpu(**LORA, optimizer_type="SGD", learning_rate=1e-2)
    assert sum(steps.settled.values()) == 1
    assert all(what == "a value is read" and "optimizers.py" in place for what, place in steps.settled)


def test_ac_lora_has_the_weights_of_the_cpu(beside_cpu: Callable[..., Steps]):
    beside_cpu(**LORA | AC_LORA)
