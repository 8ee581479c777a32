"""Restorers' weights under the names that each program gives them, as pure functions on tensors.

A file is told by its tensors' names and shapes, never by its own name:

- DiffBIR v1: everything in one file. `model.diffusion_model.` is G, `control_model.` E, `first_stage_model.` the VAE,
  `cond_stage_model.` the text encoder, `cond_encoder.` another copy of the VAE's encoder, `preprocess_model.` the
  cleaner R; the rest is the noise schedule's numbers.
- DiffBIR v2 and v2.1: E alone, under the names that it has behind `control_model.` in v1.
- diffusers: E alone, under `IRControlNet`'s own names.

E's names follow from G's architecture, so that models of any width and depth are converted, and a conversion is a
renaming: what is written back is bit for bit what was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from torch import Tensor

from library.errors import UserError
from library.models.original_names import Names, inverted, rename, unet_names

Tensors = dict[str, Tensor]

CONTROL = "control_model."
CONDITION_ENCODER = "cond_encoder."
CLEANER = "preprocess_model."
_FIRST = "input_blocks.0.0.weight"
_WRAPPED = "module."  # as DataParallel names what is inside it
_EXPECTED = "Expected is an IRControlNet: a DiffBIR file (v1, v2 or v2.1), or one in diffusers' layout."


class Layout(Enum):
    """Whose names a file's tensors have."""

    DIFFBIR_V1 = "diffbir_v1"
    DIFFBIR_V2 = "diffbir_v2"
    DIFFUSERS = "diffusers"


def recognise(tensors: Mapping[str, Tensor], path: Path) -> Layout:
    """Which layout a file with an E has. Raises `UserError` for another kind of file, saying what it looks like."""
    first = tensors.get(CONTROL + _FIRST)
    if first is not None:
        _require_eight_channels(first, path)
        return Layout.DIFFBIR_V1
    first = tensors.get(_FIRST)
    if first is not None and "zero_convs.0.0.weight" in tensors:
        _require_eight_channels(first, path)
        return Layout.DIFFBIR_V2
    first = tensors.get("conv_in.weight")
    if first is not None and "controlnet_down_blocks.0.weight" in tensors:
        _require_eight_channels(first, path)
        return Layout.DIFFUSERS
    if first is not None:
        raise UserError(f"'{path}' looks like a U-Net, which has no outputs for another one. {_EXPECTED}")
    if any(name.startswith("model.diffusion_model.") for name in tensors):
        raise UserError(f"'{path}' is a Stable Diffusion model without a ControlNet in it. {_EXPECTED}")
    raise UserError(f"'{path}' holds {len(tensors)} tensors, none of them a ControlNet's. {_EXPECTED}")


def is_whole_restorer(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file is a DiffBIR v1 checkpoint: a whole model with its E."""
    return CONTROL + _FIRST in tensors and any(name.startswith("model.diffusion_model.") for name in tensors)


def unwrapped(tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors without the `module.` that training on several devices puts in front of every name."""
    if tensors and all(name.startswith(_WRAPPED) for name in tensors):
        return {name.removeprefix(_WRAPPED): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def under(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def encoder_names(config: Mapping[str, Any]) -> Names:
    """E's table, DiffBIR's names to diffusers'; `config` is E's or G's."""
    names = unet_names({**config, "up_block_types": []})
    types, layers = config["down_block_types"], config["layers_per_block"]
    per_level = [layers] * len(types) if isinstance(layers, int) else list(layers)
    outputs = 1 + sum(per_level) + len(types) - 1  # the first convolution, every layer, every downsampling
    names |= {f"zero_convs.{i}.0": f"controlnet_down_blocks.{i}" for i in range(outputs)}
    return names | {"middle_block_out.0": "controlnet_mid_block"}


def encoder_from(tensors: Mapping[str, Tensor], layout: Layout, config: Mapping[str, Any]) -> Tensors:
    """E's tensors under diffusers' names, out of a file of any layout."""
    if layout is Layout.DIFFUSERS:
        return dict(tensors)
    names = encoder_names(config)
    mine = under(tensors, CONTROL) if layout is Layout.DIFFBIR_V1 else tensors
    return {rename(name, names): tensor for name, tensor in mine.items()}


def encoder_to(tensors: Mapping[str, Tensor], layout: Layout, config: Mapping[str, Any]) -> Tensors:
    """E's tensors under a layout's names: the inverse of `encoder_from`."""
    if layout is Layout.DIFFUSERS:
        return dict(tensors)
    names = inverted(encoder_names(config))
    prefix = CONTROL if layout is Layout.DIFFBIR_V1 else ""
    return {prefix + rename(name, names): tensor for name, tensor in tensors.items()}


def _require_eight_channels(first: Tensor, path: Path) -> None:
    channels = int(first.shape[1])
    if channels != 8:
        raise UserError(
            f"'{path}' is an ordinary ControlNet, which reads {channels} channels; an IRControlNet reads 8, the noisy "
            f"and the degraded picture's latents. {_EXPECTED}"
        )
