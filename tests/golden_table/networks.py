"""LoRA files of full-size models: every name, shape, rank, alpha, block and parameter group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from library.adapters.names import to_file_names
from library.models.family import Family
from library.models.standard import standard_configs
from networks import lora
from networks.lora_arguments import block_index
from tests.golden_table.comparison import Comparison

FLOAT_ALPHA = "alpha is a float32 tensor, also where the option is a whole number (theirs: int64)"
NOT_SILENT = "block_alphas or conv_block_dims without block_dims are refused, not ignored"


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


def network_on(model: Any, dim: Any, alpha: Any, **arguments: Any) -> lora.LoRANetwork:
    encoders = model.text_encoders
    text_encoder = encoders if len(encoders) > 1 else encoders[0]
    return lora.create_network(1.0, dim, alpha, None, text_encoder, model.unet, **arguments)


@cache
def small_network(family: str, **arguments: Any) -> lora.LoRANetwork:
    return network_on(full_size(family), 1, 1, **arguments)


def modules_of(network: lora.LoRANetwork, model: Any) -> dict[str, lora.LoRAModule]:
    return to_file_names({module.lora_name: module for module in network.loras}, model)


def keys(name: str) -> Callable[[dict[str, Any]], Iterator[Comparison]]:
    """The comparison of one layout's file."""

    def compare(data: dict[str, Any]) -> Iterator[Comparison]:
        model, variants = full_size(name), data["variants"]
        plain = variants["dim4_alpha1"]["modules"]
        for title, more, arguments in (
            ("LoRA", {}, {}),
            ("LoCon", variants["dim4_alpha1_conv4_alpha1"]["modules"], {"conv_dim": "4", "conv_alpha": "1"}),
        ):
            modules = modules_of(network_on(model, 4, 1, **arguments), model)
            theirs = plain | more
            c = Comparison(f"{title}: names, shapes and alphas of all modules")
            c.add("names", sorted(modules), sorted(theirs))
            for key, (down, up, alpha, _) in theirs.items():
                module = modules[key]
                shapes = [list(module.lora_down.weight.shape), list(module.lora_up.weight.shape)]
                c.add(key, [*shapes, float(module.alpha)], [down, up, alpha])
            yield c
            kinds = Comparison(f"{title}: dtype of alpha")
            for key, row in theirs.items():
                ours = str(modules[key].alpha.dtype).removeprefix("torch.")
                kinds.add(key, ours, row[3], FLOAT_ALPHA if ours != row[3] else None)
            yield kinds

    return compare


def blocks(data: dict[str, Any]) -> Iterator[Comparison]:
    ranks = Comparison("rank and alpha of each U-Net module under block arguments", relative=1e-12)
    indices = Comparison("block number of each module")
    for example in data["examples"]:
        model = full_size(example["family"])
        network = network_on(model, example["network_dim"], example["network_alpha"], **example["network_args"])
        modules = modules_of(network, model)
        found = {k: [m.lora_dim, float(m.alpha)] for k, m in modules.items() if k.startswith("lora_unet")}
        ranks.add(example["case"], found, example["modules"])
        if "param_groups" in example:
            groups, names = network.prepare_optimizer_params(5e-5, 1e-4, 1e-3)
            ours = {n: [g["lr"], len(g["params"])] for n, g in zip(names, groups, strict=True)}
            theirs = dict(zip(example["lr_descriptions"], example["param_groups"], strict=True))
            ranks.add(f"{example['case']} groups", ours, theirs)
        for name, number in (example["block_index"] or {}).items():
            indices.add(name, block_index(name, example["family"] == "sdxl"), number)
    yield from (ranks, indices)

    groups_of = Comparison("learning rate, size and name of each parameter group", relative=1e-12)
    for case in data["param_groups"]:
        network = small_network(case["family"], **case["network_args"])
        rates = (case["text_encoder_lr"], case["unet_lr"], case["learning_rate"])
        groups, names = network.prepare_optimizer_params(*rates)
        ours = [names, [[group["lr"], len(group["params"])] for group in groups]]
        groups_of.add(str(case["network_args"]), ours, [case["descriptions"], case["groups"]])
    yield groups_of

    odd = Comparison("odd block arguments", relative=1e-12)
    for case in data["odd_arguments"]:
        arguments = case["network_args"]
        theirs = "raises" if "raises" in case else [case["lr_weight"], case["modules"]]
        try:
            network = network_on(full_size(case["family"]), 4, 1, **arguments)
            ours: Any = [network.arguments.lr_weights, len(network.loras)]
        except ValueError:
            ours = "raises"
        silent = list(arguments) in (["block_alphas"], ["conv_block_dims"])
        odd.add(str(arguments), ours, theirs, NOT_SILENT if silent and theirs != "raises" else None)
    yield odd
