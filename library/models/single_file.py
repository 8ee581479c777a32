"""One model as one file in the original Stable Diffusion layout: its tensors, both ways.

Names come from the tables of `original_names`; what remains are the three places where the layouts differ in more than
names: the VAE's attention (1x1 convolutions against matrices), open_clip's fused query, key and value, and its
transposed projection. A model here is `Parts`: for each part ("unet", "vae", "text_encoder", "text_encoder_2"), its
state dict under the names its own class uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from library.models.family import Family
from library.models.original_names import Names, inverted, open_clip_names, rename, unet_names, vae_names

Tensors = dict[str, Tensor]
Parts = dict[str, Tensors]
Configs = Mapping[str, Mapping[str, Any]]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
SD1_TEXT = "cond_stage_model.transformer.text_model."
SD1_TEXT_SHORT = "cond_stage_model.transformer."  # some early files left `text_model` out
SD2_TEXT = "cond_stage_model.model."
SDXL_TEXT_1 = "conditioner.embedders.0.transformer.text_model."
SDXL_TEXT_2 = "conditioner.embedders.1.model."
_NOT_WEIGHTS = ("position_ids", "logit_scale")
_LOGIT_SCALE = 4.6052  # ln 100, where CLIP's training clamps it; no part of generating uses it


def from_original(tensors: Mapping[str, Tensor], family: Family, configs: Configs) -> Parts:
    """Sort a single file's tensors into parts and bring each to the names and shapes of its class.

    Names that no table knows keep their name inside their part, so that comparing with the module shows them.
    Tensors of no part (EMA copies, noise schedules) are left out.
    """
    unet = _renamed(_under(tensors, UNET), unet_names(configs["unet"]))
    parts: Parts = {"unet": unet, "vae": vae_from_original(_under(tensors, VAE), configs["vae"])}
    if family is Family.SD1:
        text = _under(tensors, SD1_TEXT) or _under(tensors, SD1_TEXT_SHORT)
        parts["text_encoder"] = _weights_only(text)
    elif family is Family.SD2:
        parts["text_encoder"] = open_clip_to_clip(_under(tensors, SD2_TEXT), configs["text_encoder"])
    else:
        parts["text_encoder"] = _weights_only(_under(tensors, SDXL_TEXT_1))
        second = open_clip_to_clip(_under(tensors, SDXL_TEXT_2), configs["text_encoder_2"], projection=True)
        parts["text_encoder_2"] = {_inside_projection_model(name): tensor for name, tensor in second.items()}
    return parts


def to_original(parts: Mapping[str, Mapping[str, Tensor]], family: Family, configs: Configs) -> Tensors:
    """Join parts into a single file's tensors: the inverse of `from_original`."""
    tensors: Tensors = {}
    tensors |= _prefixed(UNET, _renamed(parts["unet"], inverted(unet_names(configs["unet"]))))
    tensors |= _prefixed(VAE, vae_to_original(parts["vae"], configs["vae"]))
    first = _weights_only(parts["text_encoder"])
    if family is Family.SD1:
        tensors |= _prefixed(SD1_TEXT, first)
    elif family is Family.SD2:
        text = clip_to_open_clip(first, configs["text_encoder"], unused_last_layer=True)
        tensors |= _prefixed(SD2_TEXT, text)
    else:
        tensors |= _prefixed(SDXL_TEXT_1, first)
        second = {name.removeprefix("text_model."): tensor for name, tensor in parts["text_encoder_2"].items()}
        text = clip_to_open_clip(second, configs["text_encoder_2"])
        text["logit_scale"] = torch.tensor(_LOGIT_SCALE, dtype=text["ln_final.weight"].dtype)
        tensors |= _prefixed(SDXL_TEXT_2, text)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def vae_from_original(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensors:
    """A VAE's tensors in diffusers' names; its attention matrices were 1x1 convolutions."""
    renamed = _renamed(tensors, vae_names(config))
    return {name: t.flatten(1) if _is_vae_attention_matrix(name) else t for name, t in renamed.items()}


def vae_to_original(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensors:
    """A VAE's tensors in the original names; its attention matrices become 1x1 convolutions (out, in, 1, 1)."""
    as_convolutions = {n: t[..., None, None] if _is_vae_attention_matrix(n) else t for n, t in tensors.items()}
    return _renamed(as_convolutions, inverted(vae_names(config)))


def open_clip_to_clip(tensors: Mapping[str, Tensor], config: Mapping[str, Any], *, projection: bool = False) -> Tensors:
    """An open_clip text encoder's tensors under CLIPTextModel's names.

    Layers beyond the config's are dropped: SD2 was trained on the last but one layer of 24, so its encoder has 23.
    """
    layers = int(config["num_hidden_layers"])
    names = open_clip_names(layers)
    clip: Tensors = {}
    for name, tensor in _weights_only(tensors).items():
        layer = _resblock(name)
        if layer is not None and layer >= layers:
            continue
        if name == "text_projection":
            if projection:
                clip["text_projection.weight"] = tensor.T.contiguous()
        elif layer is not None and ".attn.in_proj_" in name:
            kind = name.rpartition("_")[2]  # weight or bias
            for projected, third in zip("qkv", tensor.chunk(3), strict=True):
                clip[f"encoder.layers.{layer}.self_attn.{projected}_proj.{kind}"] = third.contiguous()
        else:
            clip[rename(name, names)] = tensor
    return clip


def clip_to_open_clip(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], *, unused_last_layer: bool = False
) -> Tensors:
    """CLIPTextModel's tensors under open_clip's names: the inverse of `open_clip_to_clip`.

    `unused_last_layer` repeats the last layer once more: readers of SD2 files build it, and never run it.
    """
    layers = int(config["num_hidden_layers"])
    names = inverted(open_clip_names(layers))
    fused = {
        f"transformer.resblocks.{layer}.attn.in_proj_{kind}": torch.cat(
            [tensors[f"encoder.layers.{layer}.self_attn.{projected}_proj.{kind}"] for projected in "qkv"]
        )
        for layer in range(layers)
        for kind in ("weight", "bias")
    }
    open_clip = fused | {
        rename(name, names): tensor.T if name == "text_projection.weight" else tensor
        for name, tensor in _weights_only(tensors).items()
        if ".self_attn." not in name or ".out_proj." in name
    }
    if unused_last_layer:
        last, unused = f"transformer.resblocks.{layers - 1}.", f"transformer.resblocks.{layers}."
        open_clip |= {unused + name: tensor.clone() for name, tensor in _under(open_clip, last).items()}
    return open_clip


def _under(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((prefix + name, tensor) for name, tensor in tensors.items())


def _renamed(tensors: Mapping[str, Tensor], names: Names) -> Tensors:
    return {rename(name, names): tensor for name, tensor in tensors.items()}


def _weights_only(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_NOT_WEIGHTS)}


def _is_vae_attention_matrix(name: str) -> bool:
    return ".attentions." in name and name.endswith(".weight") and "group_norm" not in name


def _resblock(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["transformer", "resblocks"] else None


def _inside_projection_model(name: str) -> str:
    return name if name.startswith("text_projection.") else f"text_model.{name}"
