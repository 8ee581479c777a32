"""Which part of a LoRA module is signal: AC-LoRA's threshold and its spectra, as equations.

Cui et al. 2024, sections 3.1-3.4 and Algorithm 1. A module is Delta W = B A (eq. 1), A (R x in) and B (out x R), and
M is A or B transposed. No large matrix is decomposed: the singular values of A, of B and of B A follow from the Gram
matrices A A^T and B^T B, which are R x R and are summed up in float64.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch
from torch import Tensor

GRAM_COLUMNS = 2048  # so many products are added in float32 before they go into the float64 sum
ZERO = 1e-14  # eigenvalues below this share of the largest are rounding errors of zero


def separation_strength(epoch: float, total_epochs: int) -> float:
    """alpha, eq. 6 with Algorithm 1's denominator: from 1 in the first epoch (0) to 2 in the last."""
    return epoch / max(total_epochs - 1, 1) + 1


def energy_threshold(mean_loss: float, strength: float, lowest: float = 0.0, highest: float = 1.0) -> float:
    """p = 1 - L ** alpha, eq. 5: the share of the energy that is signal. L is clamped to [0, 1] first, p to its bounds.

    ValueError if L is not a number.
    """
    if mean_loss != mean_loss:
        raise ValueError("AC-LoRA's threshold needs the training loss, which is not a number (nan)")
    return min(max(1 - min(max(mean_loss, 0.0), 1.0) ** strength, lowest), highest)


def signal_rank(singular_values: Tensor, p: float, squared: bool = True, reach: bool = False) -> Tensor:
    """|S| of eq. 3: how many of the progressive sums Sum_i = sum_{j <= i} D_j ** 2 are below Sum * p, and at least 1.

    With `reach` one more: the smallest number whose sum reaches Sum * p. `singular_values` (..., R) are descending; the
    result is (...,). It is 0 where all of them are: nothing of zero is signal.
    """
    energy = singular_values.double() ** 2 if squared else singular_values.double()
    sums = energy.cumsum(-1)
    total = sums[..., -1:]
    below = (sums < total * p).sum(-1)
    rank = below + 1 if reach else below.clamp(min=1)
    return torch.where(total[..., 0] > 0, rank, 0)


def union_of_signal_ranks(ranks: Sequence[Tensor]) -> Tensor:
    """Eq. 7: the signal indexes of a module are those of any of its matrices, so that I is the largest |S|."""
    return torch.stack(list(ranks)).amax(0)


# --- spectra


def gram(matrix: Tensor) -> Tensor:
    """M M^T in float64; `matrix` is (..., R, n) in float32 (float64 stays exact)."""
    total = None
    for columns in matrix.split(GRAM_COLUMNS, dim=-1):
        part = (columns @ columns.mT).double()
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def spectrum(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of (..., R, R), descending, rounding errors of zero made zero, and the eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(symmetric)
    values, vectors = values.flip(-1), vectors.flip(-1)
    return values * (values > ZERO * values[..., :1]), vectors


class ProductSpectrum(NamedTuple):
    """Singular values of B A, and the r x r matrices that bring A and B into the basis of its singular vectors.

    `to_down @ A` has the rows sqrt(s_i) v_i, `to_up @ B^T` the rows sqrt(s_i) u_i: the balanced gauge.
    """

    singular_values: Tensor  # (..., R)
    to_down: Tensor  # (..., R, R)
    to_up: Tensor


def product_spectrum(gram_of_down: Tensor, gram_of_up: Tensor) -> ProductSpectrum:
    """The spectrum of B A, from A A^T and B^T B, (..., R, R) each.

    With B^T B = V diag(w) V^T, the matrix C = sqrt(w) V^T A has the singular values and right singular vectors of B A.
    """
    w, v = spectrum(gram_of_up)
    root = w.sqrt()
    inverse_root = torch.where(w > 0, 1 / root, 0)
    to_c = root.unsqueeze(-1) * v.mT
    squares, basis = spectrum(to_c @ gram_of_down @ to_c.mT)
    s = squares.sqrt()
    quarter = s.sqrt().unsqueeze(-1)
    inverse_quarter = torch.where(quarter > 0, 1 / quarter, 0)
    to_down = inverse_quarter * (basis.mT @ to_c)
    to_up = quarter * (basis.mT @ (inverse_root.unsqueeze(-1) * v.mT))
    return ProductSpectrum(s, to_down, to_up)
