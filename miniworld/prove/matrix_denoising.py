"""Telling signal from noise in a matrix that was measured twice: Gavish and Donoho's threshold and shrinkage, with the
noise level taken from two halves of the data. Each equation is a function; m x n matrices, the last two dimensions.

Gavish and Donoho, "The optimal hard threshold for singular values is 4 / sqrt(3)" (2014), eq. 11; "Optimal shrinkage of
singular values" (2017), eq. 7 (Frobenius loss).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST = 1e-6  # of the largest eigenvalue: directions with less are left out of an inverse


def noise_level(first: Tensor, second: Tensor) -> Tensor:
    """Standard deviation of an entry's noise in the mean of two independent halves: rms(first - second) / 2."""
    return ((first - second) ** 2).mean((-2, -1)).sqrt() / 2


def hard_threshold(rows: int, columns: int) -> float:
    """tau / sigma: the singular value above which a direction is worth keeping in noise of deviation sigma (eq. 11)."""
    beta = min(rows, columns) / max(rows, columns)
    cut = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    return cut * math.sqrt(max(rows, columns))


def optimal_shrinkage(values: Tensor, sigma: Tensor, rows: int, columns: int) -> Tensor:
    """The singular values that lose least in the Frobenius norm (eq. 7): sqrt((y^2 - beta - 1)^2 - 4 beta) / y, or 0.

    0 inside the bulk of the noise. y = value / (sigma sqrt(n)), n the larger side; `sigma` has the batch's shape.
    """
    beta, unit = min(rows, columns) / max(rows, columns), sigma[..., None] * math.sqrt(max(rows, columns))
    y = values / unit
    inside = ((y**2 - beta - 1) ** 2 - 4 * beta).clamp(min=0).sqrt() / y
    return torch.where(y > 1 + math.sqrt(beta), inside, 0.0) * unit


def significant(first: Tensor, second: Tensor) -> Tensor:
    """How many singular values of the halves' mean exceed the threshold for the noise in which the halves differ."""
    values = torch.linalg.svdvals((first + second) / 2)
    return (values > hard_threshold(*first.shape[-2:]) * noise_level(first, second)[..., None]).sum(-1)


def above_difference(first: Tensor, second: Tensor) -> Tensor:
    """How many singular values of the halves' mean exceed the largest of half their difference.

    Half the difference has the noise of the mean and none of the signal, whatever the noise's spectrum is.
    """
    values, noise = (torch.linalg.svdvals(part / 2) for part in (first + second, first - second))
    return (values > noise[..., :1]).sum(-1)


def confirmed(first: Tensor, second: Tensor) -> Tensor:
    """How many singular directions of one half, from the first on, the other has at least half of: mean of both."""
    counts = []
    for one, other in ((first, second), (second, first)):
        u, s, vh = torch.linalg.svd(one, full_matrices=False)
        seen = torch.einsum("...oi,...op,...ip->...i", u, other, vh)
        counts.append((seen > s / 2).long().cumprod(-1).sum(-1))
    return (counts[0] + counts[1] + 1) // 2


def root(symmetric: Tensor) -> Tensor:
    """The square root of a positive semidefinite matrix."""
    return _power(symmetric, 0.5)


def inverse_root(symmetric: Tensor) -> Tensor:
    """Its inverse, on the directions that have more than SMALLEST of the largest."""
    return _power(symmetric, -0.5)


def _power(symmetric: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(symmetric)
    alive = values > SMALLEST * values[..., -1:]
    powers = torch.where(alive, values.clamp(min=1e-300) ** exponent, 0.0)
    return vectors * powers.unsqueeze(-2) @ vectors.mT
