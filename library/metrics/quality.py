"""How far pictures are from their originals, as pure functions.

Pictures are (batch, channels, height, width) in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(pictures: Tensor, originals: Tensor) -> Tensor:
    """Peak signal to noise ratio of each picture, decibels: (batch,); infinite for identical ones."""
    error = torch.mean((pictures.double() - originals.double()) ** 2, dim=(1, 2, 3))
    return -10.0 * torch.log10(error)


def ssim(pictures: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each picture: Gaussian windows of 11 pixels, mean over all: (batch,).

    Windows that reach over the edge are left out.
    """
    x, y = pictures.double(), originals.double()
    distances = torch.arange(WINDOW, dtype=torch.float64, device=x.device) - WINDOW // 2
    line = torch.exp(-(distances**2) / (2 * SIGMA**2))
    line = line / line.sum()
    channels = x.shape[1]
    kernel = (line[:, None] * line)[None, None].expand(channels, 1, -1, -1)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, kernel, groups=channels)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (luminance * structure).mean(dim=(1, 2, 3))
