"""Singular values of a product of two factors, without ever forming the product.

With up = Q1 R1 and down^T = Q2 R2 (Q with orthonormal columns), up down = Q1 (R1 R2^T) Q2^T, and the matrix in the
middle is only rank x rank: its singular value decomposition is that of the product. Everything is in float64, because
ranks are chosen where singular values cross a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 24  # of subspace iteration, which take less time than the whole decomposition
SETTLED = 1e-6  # share of what is left out (squared) that a further round may still find
NOTHING = 1e-24  # share of the whole (squared) that is rounding


@dataclass(frozen=True)
class Decomposed:
    """The singular values of a product, falling (k,), and its singular vectors as products: basis @ inner."""

    values: Tensor
    left_basis: Tensor  # (out, m), orthonormal columns
    left_inner: Tensor  # (m, k)
    right_inner: Tensor  # (k, n)
    right_basis: Tensor  # (n, in), orthonormal rows

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """up (out, rank) and down (rank, in) of the best approximation of that rank; the values go into up."""
        up = self.left_basis @ (self.left_inner[:, :rank] * self.values[:rank])
        return up, self.right_inner[:rank] @ self.right_basis


@torch.no_grad()
def decompose(up: Tensor, down: Tensor) -> Decomposed:
    """The singular value decomposition of up (out, rank) @ down (rank, in); k = min(out, rank, in), in float64."""
    q_up, r_up = torch.linalg.qr(up.double())
    q_down, r_down = torch.linalg.qr(down.double().mT)
    left, values, right = torch.linalg.svd(r_up @ r_down.mT, full_matrices=False)
    return Decomposed(values, q_up, left, right, q_down.mT)


@torch.no_grad()
def leading(matrix: Tensor, rank: int) -> Decomposed:
    """The `rank` largest singular values and vectors of a matrix (out, in), in float64.

    Subspace iteration from a fixed start (Halko, Martinsson and Tropp 2011, algorithm 4.4), until a round takes less
    than a millionth off what is left out; the whole decomposition where the rounds do not suffice (there is hardly
    anything to choose between then: noise), or where so much is asked for that it is quicker.
    """
    matrix = matrix.double()
    width = rank + max(rank // 2, 8)
    if 3 * width >= min(matrix.shape):
        return _whole(matrix, rank)
    total = before = matrix.square().sum()
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.linalg.qr(matrix @ start.to(matrix.device))[0]
    for _ in range(ROUNDS):
        right_basis = torch.linalg.qr(matrix.mT @ basis)[0]
        basis, core = torch.linalg.qr(matrix @ right_basis)
        left, values, right = torch.linalg.svd(core, full_matrices=False)
        left_out = total - values[:rank].square().sum()
        if before - left_out <= SETTLED * before or left_out <= NOTHING * total:
            return Decomposed(values[:rank], basis, left[:, :rank], right[:rank], right_basis.mT)
        before = left_out
    return _whole(matrix, rank)


def _whole(matrix: Tensor, rank: int) -> Decomposed:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    identity = torch.eye(len(values), dtype=matrix.dtype, device=matrix.device)
    return Decomposed(values[:rank], left, identity[:, :rank], identity[:rank], right)
