"""Singular values of a product of two factors, without ever forming the product.

With up = Q1 R1 and down^T = Q2 R2 (Q with orthonormal columns), up down = Q1 (R1 R2^T) Q2^T, and the matrix in the
middle is only rank x rank: its singular value decomposition is that of the product. Everything is in float64, because
ranks are chosen where singular values cross a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
