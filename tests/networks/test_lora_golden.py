"""networks.lora and the file's names against figures of kohya-ss/sd-scripts, commit 48d368fa.

Full-size models on the meta device: every name, shape, rank, alpha, block number and parameter group.
The golden files name the functions that gave the figures.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from library.adapters.names import from_file_names, to_file_names
from library.models.family import Family
from library.models.standard import standard_configs
from networks import lora
from networks.lora_arguments import block_index

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> dict:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


BLOCKS = golden("lora_keys_block_dims")


@cache
def full_size(name: str) -> Any:
    """A model without weights. "sd2_single_file" has 1 x 1 convolutions where "sd2_diffusers" has linear layers."""
    family = Family(name[:4] if name == "sdxl" else name[:3])
    configs = standard_configs(family)
    if name == "sd2_single_file":
        configs["unet"]["use_linear_projection"] = False
    with torch.device("meta"):
        encoders: list[Any] = [CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))]
        if family is Family.SDXL:
            encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])))
        return SimpleNamespace(unet=UNet2DConditionModel(**configs["unet"]), text_encoders=encoders)


def network_on(model: Any, dim, alpha, **arguments) -> lora.LoRANetwork:
    encoders = model.text_encoders
    text_encoder = encoders if len(encoders) > 1 else encoders[0]
    return lora.create_network(1.0, dim, alpha, None, text_encoder, model.unet, **arguments)


@cache
def small_network(family: str, **arguments) -> lora.LoRANetwork:
    return network_on(full_size(family), 1, 1, **arguments)


def modules_of(network: lora.LoRANetwork, model: Any) -> dict[str, lora.LoRAModule]:
    return to_file_names({module.lora_name: module for module in network.loras}, model)


@pytest.mark.parametrize("name", ["sd1", "sd2_single_file", "sd2_diffusers", "sdxl"])
@pytest.mark.parametrize("conv", [False, True], ids=["lora", "locon"])
def test_a_networks_file_has_kohyas_names_shapes_and_alphas(name: str, conv: bool):
    variants = golden(f"lora_keys_{name}")["variants"]
    expected = variants["dim4_alpha1"]["modules"]
    if conv:
        expected = expected | variants["dim4_alpha1_conv4_alpha1"]["modules"]
    model = full_size(name)
    network = network_on(model, 4, 1, **({"conv_dim": "4", "conv_alpha": "1"} if conv else {}))
    found = {
        key: [list(module.lora_down.weight.shape), list(module.lora_up.weight.shape), float(module.alpha)]
        for key, module in modules_of(network, model).items()
    }
    assert found == {key: [down, up, alpha] for key, (down, up, alpha, _) in expected.items()}
    assert {module.alpha.dtype for module in network.loras} == {torch.float32}


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_names_come_back_from_the_file(name: str):
    model = full_size(name)
    own = [module.lora_name for module in network_on(model, 1, 1, conv_dim="1").loras]
    in_file = to_file_names({f"{key}.lora_up.weight": key for key in own}, model)
    assert from_file_names(in_file, model) == {f"{key}.lora_up.weight": key for key in own}
    assert to_file_names(in_file, model) == in_file  # the file's own names stay


@pytest.mark.parametrize("example", BLOCKS["examples"], ids=lambda e: f"{e['family']}-{e['case']}")
def test_blocks_have_kohyas_ranks_alphas_and_groups(example: dict):
    model = full_size(example["family"])
    network = network_on(model, example["network_dim"], example["network_alpha"], **example["network_args"])
    modules = modules_of(network, model)
    found = {k: [m.lora_dim, float(m.alpha)] for k, m in modules.items() if k.startswith("lora_unet")}
    assert found == example["modules"]
    assert {(m.lora_dim, float(m.alpha)) for m in network.text_encoder_loras} == {(4, 1.0)}
    if "param_groups" in example:
        groups, names = network.prepare_optimizer_params(5e-5, 1e-4, 1e-3)
        expected = dict(zip(example["lr_descriptions"], map(tuple, example["param_groups"]), strict=True))
        found = {n: (pytest.approx(g["lr"], rel=1e-12), len(g["params"])) for n, g in zip(names, groups, strict=True)}
        assert found == expected


@pytest.mark.parametrize("example", [e for e in BLOCKS["examples"] if e["block_index"]], ids=lambda e: e["family"])
def test_a_module_of_either_naming_is_in_kohyas_block(example: dict):
    is_sdxl = example["family"] == "sdxl"
    assert {name: block_index(name, is_sdxl) for name in example["block_index"]} == example["block_index"]
    own = from_file_names(example["block_index"], full_size(example["family"]))
    assert {name: block_index(name, is_sdxl) for name in own} == own
    assert not is_sdxl or not set(own) & set(example["block_index"])  # diffusers' names are others


@pytest.mark.parametrize("case", BLOCKS["param_groups"], ids=lambda c: f"{c['family']}-{c['network_args']}")
def test_parameter_groups_are_kohyas(case: dict):
    network = small_network(case["family"], **case["network_args"])
    groups, names = network.prepare_optimizer_params(case["text_encoder_lr"], case["unet_lr"], case["learning_rate"])
    assert names == case["descriptions"]
    expected = [[pytest.approx(lr, rel=1e-12), count] for lr, count in case["groups"]]
    assert [[group["lr"], len(group["params"])] for group in groups] == expected


@pytest.mark.parametrize("case", BLOCKS["odd_arguments"], ids=lambda c: f"{c['family']}-{list(c['network_args'])}")
def test_odd_block_arguments(case: dict):
    """As recorded, but what would be ignored silently (block_alphas or conv_block_dims alone) is an error."""
    arguments = case["network_args"]
    model = full_size(case["family"])
    if "raises" in case or list(arguments) in (["block_alphas"], ["conv_block_dims"]):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} (needs|has no effect)"):
            network_on(model, 4, 1, **arguments)
        return
    network = network_on(model, 4, 1, **arguments)
    assert network.arguments.lr_weights == pytest.approx(case["lr_weight"], rel=1e-12)
    assert len(network.loras) == case["modules"]
