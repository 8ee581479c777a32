"""The base module, the products B A that its LoRA modules are made of, and the tensors that hold them in a file.

The base module is the network module of this trainer and this model: it makes the LoRA modules.

Most modules are one product. A split module (`split_dims` in modules for FLUX, Stable Diffusion 3, Lumina and
HunyuanImage) has its lora_down and lora_up as lists, one A and B for each of q, k, v: there each pair is a product of
its own, with its own rank, and is called by its number: `lora_unet_double_blocks_0_img_attn_qkv.0`.

A file has a split module as one LoRA again, A one below the other and B along a diagonal, so that the loaders of
ComfyUI, diffusers and the base module read it. They cut it into equal parts: all pairs of a module have one rank there,
the largest that one of them wants.
"""

from __future__ import annotations

import importlib
import os
import re
from types import ModuleType
from typing import Any, Mapping, Optional, Sequence, cast

import torch
from torch import Tensor, nn

from networks.ac_lora_restart import Module

LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d)
CHOOSING_LAYERS = r"(?<!conv)_dims?$|pattern|preset|indices|target"
"""In the names of a base module's arguments that may leave no layer of the model."""


# --- the base module


def base_module(name: str) -> ModuleType:
    """The network module that makes the LoRA modules. ValueError if there is none of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not name.startswith(error.name):
            raise  # the module is there, and lacks something itself
        raise ValueError(
            f"`base_module = {name}` cannot be found; it is an import path such as networks.lora"
        ) from None


def function_of(base: ModuleType, name: str) -> Any:
    """A function of a base module. ValueError if it is made for another trainer's contract."""
    function = getattr(base, name, None)
    if function is None:
        raise ValueError(
            f"`base_module = {base.__name__}` has no {name}, so it is not of this trainer; {names_beside(base)}"
        )
    return function


def refuse_a_network_without_layers(
    network: Any, base: ModuleType, unet: Any, arguments: Optional[Mapping[str, Any]] = None
) -> None:
    """ValueError if the base module found no layer of its own kind: it is made for another model.

    Text encoders are much the same everywhere, and modules for another model find layers there. So none in the model
    itself is refused too, unless `arguments` choose layers, which may leave none: a file's, or those of a person.
    """
    lists = [getattr(network, name, None) for name in ("text_encoder_loras", "unet_loras")]
    empty = [found is not None and not len(found) for found in lists]
    is_chosen = arguments is None or any(re.search(CHOOSING_LAYERS, name) for name in arguments)
    if all(empty) or (empty[1] and not is_chosen):
        raise ValueError(
            f"`base_module = {base.__name__}` finds no layer to train in a {type(unet).__name__}; {names_beside(base)}"
        )


def names_beside(base: ModuleType) -> str:
    """What to set, with the network modules for other models that lie where this one does."""
    package, _, own = base.__name__.rpartition(".")
    folder = os.path.dirname(getattr(base, "__file__", None) or "")
    files = sorted(os.listdir(folder)) if package and folder else []
    names = [name[:-3] for name in files if re.fullmatch(r"lora(_[a-z0-9_]+)?\.py", name)]
    others = [f"{package}.{name}" for name in names if name != own and makes_networks(f"{folder}/{name}.py")]
    text = "set base_module in network_args to the trainer's network module for this model"
    return f"{text}, here one of {', '.join(others)}" if others else text


def makes_networks(file: str) -> bool:
    with open(file, encoding="utf-8") as source:
        return re.search(r"^def create_(arch_)?network\(", source.read(), re.MULTILINE) is not None


# --- its modules


def is_split(lora: Any) -> bool:
    return isinstance(getattr(lora, "lora_down", None), nn.ModuleList)


def loras_of(network: Any) -> list[Any]:
    """All LoRA modules of a network."""
    return [*network.text_encoder_loras, *network.unet_loras]


def layers_of(lora: Any) -> list[tuple[Any, Any]]:
    """The layers of A and B of every product of a LoRA module."""
    return list(zip(lora.lora_down, lora.lora_up, strict=True)) if is_split(lora) else [(lora.lora_down, lora.lora_up)]


def names_of(lora: Any) -> list[str]:
    """The names of a LoRA module's products."""
    return [f"{lora.lora_name}.{i}" for i in range(len(lora.lora_down))] if is_split(lora) else [lora.lora_name]


def products_of(loras: Sequence[Any]) -> list[Module]:
    """Name, A and B of every product of these LoRA modules."""
    return [
        Module(name, down.weight, up.weight)
        for lora in loras
        for name, (down, up) in zip(names_of(lora), layers_of(lora), strict=True)
    ]


def joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A (n R, in) and B (out, n R) of one LoRA with the update of all `parts`, whose outputs follow each other."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([down for down, _ in parts]), torch.block_diag(*(up for _, up in parts))


def separated(down: Tensor, up: Tensor, outputs: Sequence[int]) -> Optional[list[tuple[Tensor, Tensor]]]:
    """The parts that `joined` made one of, by the widths of their `outputs`; None if this is not such a LoRA."""
    if len(down) % len(outputs) or len(up) != sum(outputs):
        return None
    rank = len(down) // len(outputs)
    rows, blocks = up.split(list(outputs)), []
    for i, block in enumerate(rows):
        own = slice(i * rank, (i + 1) * rank)
        if block[:, : own.start].any() or block[:, own.stop :].any():
            return None
        blocks.append((down[own], block[:, own].contiguous()))
    return blocks


def parts_in(tensors: Mapping[str, Tensor], lora: Any) -> Optional[list[tuple[Tensor, Tensor]]]:
    """A and B of each product of `lora` in the tensors of a file, however they lie there. None if the file lacks it.

    A LoRA of the whole layer, which no split module can hold at its rank, is given to every part in full.
    """
    name, numbers = lora.lora_name, range(len(layers_of(lora)))
    down, up = tensors.get(f"{name}.lora_down.weight"), tensors.get(f"{name}.lora_up.weight")
    if not is_split(lora):
        return None if down is None or up is None else [(down, up)]
    if down is not None and up is not None:
        outputs = [layer.weight.shape[0] for layer in lora.lora_up]
        if len(up) != sum(outputs):
            return [(down, up)] * len(outputs)  # whoever compares the shapes says so
        return separated(down, up, outputs) or [(down, part) for part in up.split(outputs)]
    if f"{name}.lora_down.0.weight" not in tensors:
        return None
    return [(tensors[f"{name}.lora_down.{i}.weight"], tensors[f"{name}.lora_up.{i}.weight"]) for i in numbers]


def refuse_what_is_no_product(lora: Any) -> None:
    """ValueError for a module whose update is not (alpha / rank) B A: nothing here would be true of it."""
    name = getattr(lora, "lora_name", type(lora).__name__)
    what = reason_against(lora)
    if what:
        raise ValueError(
            f"AC-LoRA works on (alpha / rank) B A, but {name} {what}; use plain LoRA modules in base_module"
        )


def reason_against(lora: Any) -> Optional[str]:
    """What makes a module's update something else than a scaled product; None if it is one."""
    down: Any = getattr(lora, "lora_down", None)
    up: Any = getattr(lora, "lora_up", None)
    if is_split(lora) and (not isinstance(up, nn.ModuleList) or len(up) != len(lora.lora_down)):
        return "has a list lora_down without a list lora_up of its length"
    pairs = cast(Any, layers_of(lora) if is_split(lora) else [(down, up)])
    if not all(isinstance(layer, LAYERS) for pair in pairs for layer in pair):
        return f"is a {type(lora).__name__} without the layers lora_down and lora_up"
    if getattr(lora, "lora_mid", None) is not None or any(u.weight.shape[1] != d.weight.shape[0] for d, u in pairs):
        return "has a third factor (Tucker decomposition)"
    if any(u.weight[0, 0].numel() != 1 for _, u in pairs):
        return "has a kernel in lora_up"
    if isinstance(getattr(lora, "scalar", None), nn.Parameter) or getattr(lora, "wd", False):
        return "has a trained scale beside its factors (DoRA, use_scalar)"
    if getattr(lora, "start_down", None) is not None:
        return "subtracts where it started (t_start of networks.t_lora)"
    if any(abs(float(lora.scale) * d.weight.shape[0] / float(lora.alpha) - 1) > 1e-4 for d, _ in pairs):
        return f"is scaled by {float(lora.scale):g} and not by alpha / rank (rs_lora)"
    return None
