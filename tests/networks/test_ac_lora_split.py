"""Split modules (an A and B for each of q, k, v) and convolutions in three dimensions as products of AC-LoRA."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from networks import ac_lora
from networks.ac_lora_options import read_options
from networks.ac_lora_products import joined, separated
from tests.networks import other_networks
from tests.networks.other_networks import WIDTHS, Block, LoRAModule

QKV = "lora_unet_qkv"
LOADED = {"joined": {}, "apart": {"apart": "True"}}


def a_network(rank: int = 6, **arguments: Any) -> tuple[Any, Block]:
    """A split network whose q, k and v have updates of rank 1, 2 and 4, and a plain layer one of rank 1."""
    torch.manual_seed(0)
    unet = Block()
    given = {"base_module": other_networks.__name__, "split": "True", "conv_dim": "2", "ac_mode": "product"}
    network: Any = ac_lora.create_network(1.0, rank, 3, None, None, unet, **{**given, **arguments})
    network.prepare_network(SimpleNamespace())
    network.apply_to(None, unet, False, True)
    network.prepare_grad_etc(None, unet)
    for module in network.matrices():
        true_rank = {f"{QKV}.0": 1, f"{QKV}.1": 2, f"{QKV}.2": 4, QKV: 3}.get(module.name, 1)
        with torch.no_grad():
            module.up.copy_(torch.randn(module.up.shape))
            module.up[:, true_rank:] = 0
    return network, unet


def fixed_ranks(pattern: str) -> tuple[Any, Block]:
    unet = Block()
    arguments = {"base_module": other_networks.__name__, "split": "True", "conv_dim": "2", "rank_pattern": pattern}
    network: Any = ac_lora.create_network(1.0, 6, 3, None, None, unet, **arguments)
    network.apply_to(None, unet, False, True)
    return network, unet


def progress(epochs: int, total: int = 10) -> SimpleNamespace:
    return SimpleNamespace(
        epochs_done=epochs, total_epochs=total, global_step=100 * epochs, total_steps=100 * total,
        loss_sum=20.0, relative_mse_sum=20.0, count=100,
    )  # fmt: skip


def output(unet: Block) -> Tensor:
    with torch.no_grad():
        return unet(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(5)))


def of_file(file: Any, **arguments: Any) -> Tensor:
    """The output of the model with a file, as the base module loads it for inference."""
    torch.manual_seed(0)
    unet = Block()
    network, tensors = other_networks.create_network_from_weights(1.0, file, None, None, unet, for_inference=True)
    network.apply_to(None, unet, False, True)
    network.load_state_dict(tensors, strict=True)
    return output(unet)


def test_each_part_of_a_split_module_is_a_product_with_a_rank_of_its_own():
    network, _ = a_network()
    assert [name for name in network.sizes() if "qkv" in name] == [f"{QKV}.{i}" for i in range(3)]
    ranks = network.on_progress(progress(1))["ranks"]
    assert ranks[f"{QKV}.0"] == 1 <= ranks[f"{QKV}.1"] <= 2 <= ranks[f"{QKV}.2"] <= 4
    assert ranks["lora_unet_conv3d"] == 1


def test_the_parts_make_the_restarts_that_lone_modules_of_their_weights_make():
    network, _ = a_network(ac_every_n_epochs="1")
    alone = {module.name: (module.down.detach().clone(), module.up.detach().clone()) for module in network.matrices()}
    network.on_progress(progress(1))
    for module in network.matrices():
        down, up = alone[module.name]
        lone = ac_lora.Module(module.name, down, up)
        ac_lora.restart_modules([lone], 0.9, network.options.choices, 0, 1)
        torch.testing.assert_close(
            lone.up.flatten(1) @ lone.down.flatten(1), module.up.flatten(1) @ module.down.flatten(1)
        )


@pytest.mark.parametrize("layout", LOADED)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_cut_file_computes_what_the_network_does_in_the_base_module(tmp_path, layout, dtype):
    network, unet = a_network(export_rank="energy:1", **LOADED[layout])
    network.save_weights(str(tmp_path / "cut.safetensors"), dtype, {})
    expected, tolerance = output(unet), 1e-5 if dtype is None else 2e-2
    assert (of_file(tmp_path / "cut.safetensors") - expected).norm() < tolerance * expected.norm()


def test_all_parts_have_one_rank_in_a_file_the_largest_that_one_wants(tmp_path):
    """Loaders cut what they find into equal parts: 4 for each here, of true ranks 1, 2 and 4."""
    network, _ = a_network(export_rank="energy:1")
    network.save_weights(str(tmp_path / "cut.safetensors"), None, {})
    tensors = load_file(tmp_path / "cut.safetensors")
    assert tensors[f"{QKV}.lora_down.weight"].shape == (3 * 4, 6)
    parts = separated(tensors[f"{QKV}.lora_down.weight"], tensors[f"{QKV}.lora_up.weight"], WIDTHS)
    assert parts is not None
    assert [up.shape for _, up in parts] == [(width, 4) for width in WIDTHS]
    assert tensors["lora_unet_conv3d.lora_down.weight"].shape == (1, 3, 1, 1, 1)
    with safe_open(tmp_path / "cut.safetensors", "pt") as file:
        ranks = json.loads(file.metadata()["ss_ac_lora_ranks"])
    assert [ranks[f"{QKV}.{i}"] for i in range(3)] == [4, 4, 4]
    assert network.findings() == ["AC-LoRA made no RESTART"]


def test_a_full_file_has_the_base_modules_tensors_and_the_alpha_that_loaders_need(tmp_path):
    network, unet = a_network(export_rank="full")
    network.save_weights(str(tmp_path / "full.safetensors"), None, {})
    tensors = load_file(tmp_path / "full.safetensors")
    plain = {name: tensor for name, tensor in network.state_dict().items() if "_extra_state" not in name}
    assert tensors.keys() == plain.keys()
    assert all(torch.equal(tensors[name], plain[name]) for name in tensors if not name.startswith(f"{QKV}.alpha"))
    torch.testing.assert_close(of_file(tmp_path / "full.safetensors"), output(unet))


@pytest.mark.parametrize("layout", LOADED)
@pytest.mark.parametrize("export", ["energy:1", "full"])
def test_going_on_from_a_file_computes_the_same_and_fills_up_to_the_maximum_rank(tmp_path, layout, export):
    network, unet = a_network(export_rank=export, **LOADED[layout])
    network.save_weights(str(tmp_path / "x.safetensors"), None, {})
    again, other = a_network(rank=8, **LOADED[layout])
    result = again.load_weights(str(tmp_path / "x.safetensors"))
    assert not result.missing_keys
    assert not result.unexpected_keys
    torch.testing.assert_close(output(other), output(unet), rtol=1e-4, atol=1e-5)
    assert all(module.down.shape[0] == 8 for module in again.matrices() if "qkv" in module.name)


def test_a_lora_of_the_whole_layer_goes_on_in_the_parts(tmp_path):
    network, unet = a_network(split="False", export_rank="full")
    network.save_weights(str(tmp_path / "x.safetensors"), None, {})
    again, other = a_network()
    again.load_weights(str(tmp_path / "x.safetensors"))
    torch.testing.assert_close(output(other), output(unet), rtol=1e-4, atol=1e-5)


def test_a_file_of_another_model_is_refused(tmp_path):
    network, _ = a_network()
    tensors = {f"{QKV}.lora_down.weight": torch.zeros(3, 6), f"{QKV}.lora_up.weight": torch.zeros(9, 3)}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="made for another model"):
        network.load_weights(str(tmp_path / "x.safetensors"))


def test_the_state_of_a_split_network_is_taken_up_exactly():
    network, again = a_network()[0], a_network()[0]
    network.on_progress(progress(1))
    again.load_state_dict({name: tensor.clone() for name, tensor in network.state_dict().items()}, strict=True)
    assert again.restarts == network.restarts
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_a_finished_run_is_a_rank_pattern_of_one_rank_for_all_parts(tmp_path):
    network, _ = a_network(export_rank="energy:1")
    network.save_weights(str(tmp_path / "cut.safetensors"), None, {})
    fixed, unet = fixed_ranks(str(tmp_path / "cut.safetensors"))
    qkv = next(lora for lora in fixed.unet_loras if lora.lora_name == QKV)
    assert [down.weight.shape[0] for down in qkv.lora_down] == [4, 4, 4]
    assert qkv.scale == pytest.approx(float(qkv.alpha) / qkv.lora_dim) == pytest.approx(0.5)
    assert output(unet).isfinite().all()


def test_lists_of_different_lengths_are_refused():
    network = other_networks.create_network(1.0, 4, 4, None, None, Block(), split="True")
    qkv: LoRAModule = next(lora for lora in network.unet_loras if lora.split_dims)
    qkv.lora_up = qkv.lora_up[:2]
    with pytest.raises(ValueError, match=f"{QKV} has a list lora_down without a list lora_up of its length"):
        ac_lora.restarting(network, read_options({})[0])


def test_parts_are_joined_and_separated_without_a_loss():
    parts = [(torch.randn(2, 5), torch.randn(width, 2)) for width in (3, 4)]
    back = separated(*joined(parts), (3, 4))
    assert back is not None
    assert all(
        torch.equal(a, b) for one, other in zip(parts, back, strict=True) for a, b in zip(one, other, strict=True)
    )
    assert separated(torch.randn(4, 5), torch.randn(7, 4), (3, 4)) is None
