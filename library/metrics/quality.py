"""How far pictures are from their originals, and a set of pictures from another, as pure functions.

Pictures are (batch, channels, height, width) in [0, 1].
"""

from __future__ import annotations

import numpy as np
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


def frechet_distance(features: np.ndarray, others: np.ndarray) -> float:
    """Of two sets of features (pictures, dimensions), taken for normally distributed (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)); the trace of the root is the sum of the product's singular values'
    roots, which is computed without a matrix root that may become complex.
    """
    first, second = features.astype(np.float64), others.astype(np.float64)
    shift = first.mean(0) - second.mean(0)
    a, b = _centred(first), _centred(second)
    # tr (A'A B'B)^(1/2) is the nuclear norm of A B' where C1 = A'A and C2 = B'B.
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + (a**2).sum() + (b**2).sum() - 2 * root)


def _centred(features: np.ndarray) -> np.ndarray:
    """A with A'A = the covariance."""
    return (features - features.mean(0)) / np.sqrt(max(1, len(features) - 1))
