"""VAEs whose convolutions pad by reflection instead of zeros, as some that were trained further (EQ-VAE) need."""

from __future__ import annotations

from typing import Any

from torch import nn

REFLECT = "reflect"


def pad_by_reflection(vae: Any) -> None:
    """Let every convolution that pads do so by reflection; the VAE's config says so from then on."""
    for module in vae.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):
            module.padding_mode = REFLECT
    vae.register_to_config(padding_mode=REFLECT)


def pads_by_reflection(vae: Any) -> bool:
    return vae.config.get("padding_mode") == REFLECT
