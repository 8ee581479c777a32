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
from networks.ac_lora_products import is_split, joined, layers_of, names_of, parts_in, products_of
from networks.ac_lora_restart import Module, as_matrices, batches, full_precision
from networks.ac_lora_spectra import gram, product_spectrum, signal_rank

Pair = tuple[Tensor, Tensor]


@torch.no_grad()
def cut_modules(
    modules: Sequence[Module], export: Export, found: Mapping[str, int], lowest: Mapping[str, int] | None = None
) -> dict[str, Pair]:
    """A (I', in, ...) and B (out, I', ...) of every module on the CPU, in float32 and the balanced gauge.

    `energy:<x>` leaves at most sqrt(1 - x) of ||B A|| out. `found` are ranks by module; one without keeps all that it
    has. A module that is zero keeps one slot of zeros. `lowest` are ranks that modules have at least.
    """
    cut: dict[str, Pair] = {}
    with full_precision():
        for batch in batches(modules):
            down, up = as_matrices(batch)
            s, to_down, to_up = product_spectrum(gram(down), gram(up))
            ranks = [
                max(rank, (lowest or {}).get(module.name, 1))
                for rank, module in zip(ranks_to_keep(s, batch, export, found), batch, strict=True)
            ]
            highest = max(ranks)
            new_down = to_down[:, :highest].to(down.dtype) @ down
            new_up = to_up[:, :highest].to(up.dtype) @ up
            for i, (module, r) in enumerate(zip(batch, ranks, strict=True)):
                cut[module.name] = (
                    new_down[i, :r].reshape(r, *module.down.shape[1:]).float().cpu().contiguous(),
                    new_up[i, :r].mT.reshape(-1, r, *module.up.shape[2:]).float().cpu().contiguous(),
                )
    return cut


def ranks_to_keep(s: Tensor, batch: Sequence[Module], export: Export, found: Mapping[str, int]) -> list[int]:
    """I' of each module of a batch by its singular values `s`; at least 1."""
    most = (s > 0).sum(-1)
    if export.kind == "energy":
        rank = torch.minimum(signal_rank(s, export.value, reach=True), most)
    elif export.kind == "rank":
        rank = most.clamp(max=int(export.value))
    else:
        rank = torch.minimum(most, most.new_tensor([found.get(module.name, s.shape[-1]) for module in batch]))
    return rank.clamp(min=1).tolist()


@torch.no_grad()
def cut_loras(loras: Sequence[Any], export: Export, found: Mapping[str, int]) -> dict[str, list[Pair]]:
    """`cut_modules` for LoRA modules: the cut products of each, all of one rank where the module is split."""
    lowest: dict[str, int] = {}
    wanted: dict[str, int] = {}
    split = [lora for lora in loras if is_split(lora)]
    with full_precision():
        for batch in batches(products_of(split)):
            down, up = as_matrices(batch)
            s = product_spectrum(gram(down), gram(up)).singular_values
            ranks = ranks_to_keep(s, batch, export, found)
            wanted.update(zip([module.name for module in batch], ranks, strict=True))
    for lora in split:
        lowest.update(dict.fromkeys(names_of(lora), max(wanted[name] for name in names_of(lora))))
    cut = cut_modules(products_of(loras), export, found, lowest)
    return {lora.lora_name: [cut[name] for name in names_of(lora)] for lora in loras}


def with_one_alpha(
    cut: Mapping[str, Sequence[Pair]], loras: Sequence[Any], is_joined: bool = True
) -> dict[str, tuple[list[Pair], Tensor]]:
    """A and B of each module's parts in its dtype, and alpha: it is the same for all, the updates are the module's.

    The common alpha is the mean of alpha I' / R: loaders then scale by what is near the scale of the training. The
    parts of a split module become one, or stay apart if not `is_joined`; a loader divides by the rank of what it finds.
    """
    parts = {name: [joined(pairs)] if is_joined else list(pairs) for name, pairs in cut.items()}
    alpha = sum(float(lora.scale) * parts[lora.lora_name][0][0].shape[0] for lora in loras) / len(loras)
    out = {}
    for lora in loras:
        own, dtype = parts[lora.lora_name], layers_of(lora)[0][0].weight.dtype
        factor = (float(lora.scale) * own[0][0].shape[0] / alpha) ** 0.5
        scaled = [((down * factor).to(dtype), (up * factor).to(dtype)) for down, up in own]
        out[lora.lora_name] = (scaled, torch.tensor(alpha))
    return out


def scaled_to_one(cut: Mapping[str, Sequence[Pair]], loras: Sequence[Any]) -> dict[str, Pair]:
    """A and B of each module in its dtype, with its update at a scale of 1 (alpha is the rank)."""
    out = {}
    for lora in loras:
        (down, up), factor = cut[lora.lora_name][0], abs(float(lora.scale)) ** 0.5
        dtype = lora.lora_down.weight.dtype
        out[lora.lora_name] = (
            (down * factor).to(dtype).contiguous(),
            (up * (float(lora.scale) / factor)).to(dtype).contiguous(),
        )
    return out


def put_into(tensors: dict[str, Tensor], cut: Mapping[str, Sequence[Pair]], loras: Sequence[Any]) -> None:
    """Replace the LoRA modules in the tensors of the base module's file by the cut ones, in its own layout."""
    is_joined = not any(f"{lora.lora_name}.lora_down.0.weight" in tensors for lora in loras)
    for name, (pairs, alpha) in with_one_alpha(cut, loras, is_joined).items():
        for i, (down, up) in enumerate(pairs):
            number = "" if len(pairs) == 1 else f"{i}."
            tensors[f"{name}.lora_down.{number}weight"], tensors[f"{name}.lora_up.{number}weight"] = down, up
        tensors[f"{name}.alpha"] = alpha


def alpha_of_file(lora: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    """alpha of a split module as its file needs it: loaders divide it by the rank of all parts together.

    The base modules write the alpha that a single part has, so that their file does a third or a quarter of what was
    trained.
    """
    alpha = torch.as_tensor(lora.alpha).detach().cpu()
    return alpha * len(names_of(lora)) if f"{lora.lora_name}.lora_down.weight" in tensors else alpha


@torch.no_grad()
def padded(tensors: Mapping[str, Tensor], loras: Sequence[Any], file: str) -> dict[str, Tensor]:
    """The tensors of a file at the ranks of `loras`: its slots, then those that the modules have, with B zero.

    The scale of the file, alpha' / I', is brought to the modules' own; the parts of split modules get tensors of their
    own. ValueError where a module is too small or the file is another network's.
    """
    out = dict(tensors)
    matched = 0
    for lora in loras:
        name = lora.lora_name
        parts = parts_in(tensors, lora)
        if parts is None:
            continue
        matched += 1
        whole = out.pop(f"{name}.lora_down.weight", None)
        out.pop(f"{name}.lora_up.weight", None)
        divisor = parts[0][0].shape[0] if whole is None else whole.shape[0]
        alpha = tensors.get(f"{name}.alpha")
        scale = (float(alpha) / divisor if alpha is not None else 1.0) / float(lora.scale)
        for i, ((down, up), layers) in enumerate(zip(parts, layers_of(lora), strict=True)):
            number = f"{i}." if is_split(lora) else ""
            new_down, new_up = padded_pair(name, (down, up), (layers[0].weight, layers[1].weight), scale, file)
            out[f"{name}.lora_down.{number}weight"], out[f"{name}.lora_up.{number}weight"] = new_down, new_up
        out[f"{name}.alpha"] = torch.as_tensor(lora.alpha).detach().cpu()
    if not matched:
        raise ValueError(
            f"no tensor of {file} belongs to this network. The file has for example {', '.join(list(tensors)[:3])}; "
            f"the network {', '.join(lora.lora_name for lora in loras[:3])}"
        )
    return out


def padded_pair(name: str, pair: Pair, own: Pair, scale: float, file: str) -> Pair:
    """A and B of a file in the shapes of a module's `own`, on the CPU, B times `scale`."""
    (down, up), (own_down, own_up) = pair, own
    rank, size = down.shape[0], own_down.shape[0]
    if rank > size:
        raise ValueError(f"{name} has rank {rank} in {file}, but {size} here: set network_dim to {rank} or more")
    if down[0].numel() != own_down[0].numel() or up.shape[0] != own_up.shape[0]:
        raise ValueError(
            f"{name} is {tuple(down.shape)} in {file}, but {tuple(own_down.shape)} here: it was made for another model"
        )
    new_down, new_up = own_down.detach().clone().cpu(), torch.zeros_like(own_up, device="cpu")
    new_down[:rank] = down.reshape(rank, *own_down.shape[1:])
    new_up[:, :rank] = (up.float() * scale if abs(scale - 1) > 1e-6 else up).reshape(-1, rank, *own_up.shape[2:])
    return new_down, new_up


def narrow(network: Any, ranks: Mapping[str, int]) -> None:
    """Give every module of a new network its own rank; alpha / rank stays, and modules without a rank are left out.

    The rows of a fresh A are drawn alike, so that the first ones are a fresh A of the lower rank. The parts of a split
    module get the largest of their ranks.
    """
    loras = [*network.text_encoder_loras, *network.unet_loras]
    wanted = {
        lora.lora_name: max(ranks.get(name, ranks.get(lora.lora_name, 0)) for name in names_of(lora)) for lora in loras
    }
    if not any(wanted.values()):
        known = ", ".join(lora.lora_name for lora in loras[:3])
        raise ValueError(f"no module of rank_pattern is one of this model, which has for example {known}")
    for lora in loras:
        rank, size = wanted[lora.lora_name], layers_of(lora)[0][0].weight.shape[0]
        if rank > size:
            raise ValueError(f"rank_pattern gives {lora.lora_name} rank {rank}: set network_dim to {rank} or more")
        if not rank:
            continue
        for down, up in layers_of(lora):
            for layer, first, size_name in ((down, slice(rank), "out"), (up, (slice(None), slice(rank)), "in")):
                layer.weight = nn.Parameter(layer.weight.detach()[first].clone())
                suffix = "features" if isinstance(layer, nn.Linear) else "channels"
                setattr(layer, f"{size_name}_{suffix}", rank)
        lora.lora_dim = rank
        lora.alpha = torch.as_tensor(lora.alpha) * (rank / size)
    network.text_encoder_loras = [lora for lora in network.text_encoder_loras if wanted[lora.lora_name]]
    network.unet_loras = [lora for lora in network.unet_loras if wanted[lora.lora_name]]


def read_file(file: str) -> dict[str, Tensor]:
    if os.path.splitext(file)[1] == ".safetensors":
        return safetensors.torch.load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)
