"""Files of AC-LoRA: modules cut to the slots that they need, and taken up again at full rank.

A cut file is a plain LoRA: each module has its own rank I', and every loader computes the same update. Cutting goes
through the singular values of B A, whatever RESTART works on.

All modules of a file have one alpha: where they differ, diffusers (0.42) gives attention layers that of the majority,
and so a wrong scale. What alpha / I' is off from alpha / R goes into A and B.
"""

from __future__ import annotations

import os
from typing import Any, Mapping, Sequence

import safetensors.torch
import torch
from torch import Tensor, nn

from networks.ac_lora_options import Export
from networks.ac_lora_restart import Module, as_matrices, batches, full_precision
from networks.ac_lora_spectra import gram, product_spectrum, signal_rank


@torch.no_grad()
def cut_modules(
    modules: Sequence[Module], export: Export, found: Mapping[str, int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A (I', in, ...) and B (out, I', ...) of every module on the CPU, in float32 and the balanced gauge.

    `energy:<x>` leaves at most sqrt(1 - x) of ||B A|| out. `found` are ranks by module; one without keeps all that it
    has. A module that is zero keeps one slot of zeros.
    """
    cut: dict[str, tuple[Tensor, Tensor]] = {}
    with full_precision():
        for batch in batches(modules):
            down, up = as_matrices(batch)
            s, to_down, to_up = product_spectrum(gram(down), gram(up))
            most = (s > 0).sum(-1)
            if export.kind == "energy":
                rank = torch.minimum(signal_rank(s, export.value, reach=True), most)
            elif export.kind == "rank":
                rank = most.clamp(max=int(export.value))
            else:
                rank = torch.minimum(most, most.new_tensor([found.get(module.name, s.shape[-1]) for module in batch]))
            ranks = rank.clamp(min=1).tolist()
            highest = max(ranks)
            new_down = to_down[:, :highest].to(down.dtype) @ down
            new_up = to_up[:, :highest].to(up.dtype) @ up
            for i, (module, r) in enumerate(zip(batch, ranks, strict=True)):
                cut[module.name] = (
                    new_down[i, :r].reshape(r, *module.down.shape[1:]).float().cpu().contiguous(),
                    new_up[i, :r].mT.reshape(-1, r, *module.up.shape[2:]).float().cpu().contiguous(),
                )
    return cut


def with_one_alpha(
    cut: Mapping[str, tuple[Tensor, Tensor]], loras: Sequence[Any]
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """A, B and alpha of each module, in its dtype: alpha is the same for all, the updates are those of alpha / R.

    The common alpha is the mean of alpha I' / R: loaders then scale by what is near the scale of the training.
    """
    alpha = sum(float(lora.scale) * cut[lora.lora_name][0].shape[0] for lora in loras) / len(loras)
    out = {}
    for lora in loras:
        down, up = cut[lora.lora_name]
        factor = (float(lora.scale) * down.shape[0] / alpha) ** 0.5
        dtype = lora.lora_down.weight.dtype
        out[lora.lora_name] = ((down * factor).to(dtype), (up * factor).to(dtype), torch.tensor(alpha))
    return out


@torch.no_grad()
def padded(tensors: Mapping[str, Tensor], loras: Sequence[Any], file: str) -> dict[str, Tensor]:
    """The tensors of a file at the ranks of `loras`: its slots, then those that the modules have, with B zero.

    The scale of the file, alpha' / I', is brought to the modules' own. ValueError where a module is too small or the
    file is another network's.
    """
    out = dict(tensors)
    matched = 0
    for lora in loras:
        name = lora.lora_name
        down, up = tensors.get(f"{name}.lora_down.weight"), tensors.get(f"{name}.lora_up.weight")
        if down is None or up is None:
            continue
        matched += 1
        own_down, own_up = lora.lora_down.weight, lora.lora_up.weight
        rank, size = down.shape[0], own_down.shape[0]
        if rank > size:
            raise ValueError(f"{name} has rank {rank} in {file}, but {size} here: set network_dim to {rank} or more")
        if down[0].numel() != own_down[0].numel() or up.shape[0] != own_up.shape[0]:
            raise ValueError(
                f"{name} is {tuple(down.shape)} in {file}, but {tuple(own_down.shape)} here: "
                "it was made for another model"
            )
        alpha = tensors.get(f"{name}.alpha")
        scale = (float(alpha) / rank if alpha is not None else 1.0) / float(lora.scale)
        new_down, new_up = own_down.detach().clone().cpu(), torch.zeros_like(own_up, device="cpu")
        new_down[:rank] = down.reshape(rank, *own_down.shape[1:])
        new_up[:, :rank] = (up.float() * scale if abs(scale - 1) > 1e-6 else up).reshape(-1, rank, *own_up.shape[2:])
        out[f"{name}.lora_down.weight"], out[f"{name}.lora_up.weight"] = new_down, new_up
        out[f"{name}.alpha"] = torch.as_tensor(lora.alpha).detach().cpu()
    if not matched:
        raise ValueError(
            f"no tensor of {file} belongs to this network. The file has for example {', '.join(list(tensors)[:3])}; "
            f"the network {', '.join(lora.lora_name for lora in loras[:3])}"
        )
    return out


def narrow(network: Any, ranks: Mapping[str, int]) -> None:
    """Give every module of a new network its own rank; alpha / rank stays, and modules without a rank are left out.

    The rows of a fresh A are drawn alike, so that the first ones are a fresh A of the lower rank.
    """
    loras = [*network.text_encoder_loras, *network.unet_loras]
    if not any(ranks.get(lora.lora_name) for lora in loras):
        known = ", ".join(lora.lora_name for lora in loras[:3])
        raise ValueError(f"no module of rank_pattern is one of this model, which has for example {known}")
    for lora in loras:
        rank, size = ranks.get(lora.lora_name, 0), lora.lora_down.weight.shape[0]
        if rank > size:
            raise ValueError(f"rank_pattern gives {lora.lora_name} rank {rank}: set network_dim to {rank} or more")
        if not rank:
            continue
        for layer, first, size_name in (
            (lora.lora_down, slice(rank), "out"),
            (lora.lora_up, (slice(None), slice(rank)), "in"),
        ):
            layer.weight = nn.Parameter(layer.weight.detach()[first].clone())
            suffix = "features" if isinstance(layer, nn.Linear) else "channels"
            setattr(layer, f"{size_name}_{suffix}", rank)
        lora.lora_dim = rank
        lora.alpha = torch.as_tensor(lora.alpha) * (rank / size)
    network.text_encoder_loras = [lora for lora in network.text_encoder_loras if ranks.get(lora.lora_name)]
    network.unet_loras = [lora for lora in network.unet_loras if ranks.get(lora.lora_name)]


def refuse_what_is_no_product(lora: Any) -> None:
    """ValueError for a module whose update is not (alpha / rank) B A: nothing here would be true of it."""
    name = getattr(lora, "lora_name", type(lora).__name__)
    down, up = getattr(lora, "lora_down", None), getattr(lora, "lora_up", None)
    kinds = (nn.Linear, nn.Conv2d)
    what = None
    if not isinstance(down, kinds) or not isinstance(up, kinds):
        what = f"is a {type(lora).__name__} without the layers lora_down and lora_up"
    elif getattr(lora, "lora_mid", None) is not None or up.weight.shape[1] != down.weight.shape[0]:
        what = "has a third factor (Tucker decomposition)"
    elif up.weight[0, 0].numel() != 1:
        what = "has a kernel in lora_up"
    elif isinstance(getattr(lora, "scalar", None), nn.Parameter) or getattr(lora, "wd", False):
        what = "has a trained scale beside its factors (DoRA, use_scalar)"
    elif getattr(lora, "start_down", None) is not None:
        what = "subtracts where it started (t_start of networks.t_lora)"
    elif abs(float(lora.scale) * down.weight.shape[0] / float(lora.alpha) - 1) > 1e-4:
        what = f"is scaled by {float(lora.scale):g} and not by alpha / rank (rs_lora)"
    if what:
        raise ValueError(
            f"AC-LoRA works on (alpha / rank) B A, but {name} {what}; use plain LoRA modules in base_module"
        )


def read_file(file: str) -> dict[str, Tensor]:
    if os.path.splitext(file)[1] == ".safetensors":
        return safetensors.torch.load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)
