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
    """left * values @ right; left (out, k) and right (k, in) orthonormal, values (k,) falling."""

    left: Tensor
    values: Tensor
    right: Tensor

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """up (out, rank) and down (rank, in) of the best approximation of that rank; the values go into up."""
        return self.left[:, :rank] * self.values[:rank], self.right[:rank]


@torch.no_grad()
def decompose(up: Tensor, down: Tensor) -> Decomposed:
    """The singular value decomposition of up (out, rank) @ down (rank, in); k = min(out, rank, in), in float64."""
    q_up, r_up = torch.linalg.qr(up.double())
    q_down, r_down = torch.linalg.qr(down.double().mT)
    left, values, right = torch.linalg.svd(r_up @ r_down.mT, full_matrices=False)
    return Decomposed(q_up @ left, values, right @ q_down.mT)
