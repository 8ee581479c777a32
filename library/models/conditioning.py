"""SDXL's size conditioning: the U-Net is told how large a picture was, where it was cropped, how large it should be."""

from __future__ import annotations

import torch
from torch import Tensor

from library.models.accelerator import to_device


def size_ids(original_sizes: Tensor, crops: Tensor, target_sizes: Tensor) -> Tensor:
    """The six numbers of each picture (Podell et al. 2023, section 2.2).

    Sizes are (batch, 2) as (height, width) in pixels, crops (batch, 2) as (top, left). Returns (batch, 6).
    """
    return torch.cat([original_sizes, crops, target_sizes], dim=1)


def added_conditions(pooled: Tensor, original_sizes: Tensor, crops: Tensor, target_sizes: Tensor) -> dict[str, Tensor]:
    """What diffusers' SDXL U-Net takes as `added_cond_kwargs`, on the device and in the dtype of `pooled`."""
    ids = size_ids(original_sizes, crops, target_sizes)
    return {"text_embeds": pooled, "time_ids": to_device(ids, pooled.device, pooled.dtype)}
