"""Colours brought back to the degraded picture's, as pure functions on pictures (batch, 3, height, width)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5  # everything coarser than 2^5 = 32 pixels comes from the degraded picture


def wavelet(restored: Tensor, degraded: Tensor) -> Tensor:
    """The restored picture's details on the degraded picture's coarse colours."""
    return restored - coarse(restored) + coarse(degraded)


def adain(restored: Tensor, degraded: Tensor) -> Tensor:
    """Each channel with the degraded picture's mean and standard deviation (Huang & Belongie 2017, eq. 8)."""
    mean, std = _statistics(restored)
    wanted_mean, wanted_std = _statistics(degraded)
    return (restored - mean) / std.clamp_min(1e-6) * wanted_std + wanted_mean


def unchanged(restored: Tensor, degraded: Tensor) -> Tensor:
    return restored


COLOUR_FIXES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "wavelet": wavelet,
    "adain": adain,
    "none": unchanged,
}


def coarse(pictures: Tensor, levels: int = LEVELS) -> Tensor:
    """What is left after `levels` of the à trous transform: each blurs with taps 1, 2, 4, 8, 16 pixels apart."""
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=pictures.dtype, device=pictures.device)
    kernel = (taps[:, None] * taps)[None, None].expand(pictures.shape[1], 1, 3, 3)
    for level in range(levels):
        apart = 2**level
        mirrored = F.pad(pictures, (apart,) * 4, mode="replicate")
        pictures = F.conv2d(mirrored, kernel, groups=pictures.shape[1], dilation=apart)
    return pictures


def _statistics(pictures: Tensor) -> tuple[Tensor, Tensor]:
    flat = pictures.flatten(2)
    return flat.mean(-1)[..., None, None], flat.std(-1)[..., None, None]
