"""Distances between two sets of pictures by their features, as pure functions in float64.

Features are (pictures, dimensions), arrays or tensors on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Features = Any
"""(pictures, dimensions): an array, or a tensor on the CPU."""


def frechet_distance(features: Features, others: Features) -> float:
    """Of two sets of features, taken for normally distributed (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the root is the sum of the square roots of the eigenvalues
    of C1 C2, and is found without a matrix root, which may become complex. The fewer pictures, the larger the distance
    of samples of the same two laws, so only figures of equally many pictures can be compared.
    """
    first, second = np.asarray(features, np.float64), np.asarray(others, np.float64)
    shift = first.mean(0) - second.mean(0)
    a, b = _centred(first), _centred(second)
    # tr (A'A B'B)^(1/2) is the nuclear norm of A B' where C1 = A'A and C2 = B'B.
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + (a**2).sum() + (b**2).sum() - 2 * root)


def _centred(features: np.ndarray) -> np.ndarray:
    """A with A'A = the covariance."""
    return (features - features.mean(0)) / np.sqrt(max(1, len(features) - 1))


def polynomial_kernel(features: Features, others: Features) -> np.ndarray:
    """(x y / dimensions + 1)^3, the kernel of KID (Binkowski et al. 2018, section 3): (pictures, others)."""
    x, y = np.asarray(features, np.float64), np.asarray(others, np.float64)
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def gaussian_kernel(features: Features, others: Features, sigma: float = 10.0) -> np.ndarray:
    """exp(-|x - y|^2 / 2 sigma^2), the kernel of CMMD (Jayasumana et al. 2024, section 4)."""
    x, y = np.asarray(features, np.float64), np.asarray(others, np.float64)
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.exp(-np.maximum(squares, 0.0) / (2 * sigma**2))


def squared_mmd(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, *, unbiased: bool = True) -> float:
    """Squared maximum mean discrepancy from a kernel's values within and between two sets (Gretton et al. 2012).

    Unbiased (eq. 3) leaves out every picture with itself, is 0 on average for two samples of one law, and so may be
    below 0; biased (eq. 5) keeps them and is never below 0.
    """
    if not unbiased:
        return float(xx.mean() + yy.mean() - 2 * xy.mean())
    m, n = len(xx), len(yy)
    within = (xx.sum() - np.trace(xx)) / (m * (m - 1)) + (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def kernel_distance(features: Features, others: Features) -> float:
    """KID: the unbiased squared discrepancy under the polynomial kernel, over all pictures at once."""
    return squared_mmd(
        polynomial_kernel(features, features), polynomial_kernel(others, others), polynomial_kernel(features, others)
    )


def unit(features: Features) -> np.ndarray:
    """Each row at length 1; a row of zeros stays."""
    rows = np.asarray(features, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def likeness(features: Features, references: Features) -> np.ndarray:
    """Each picture's mean cosine with all references: (pictures,)."""
    return unit(features) @ unit(references).mean(0)


def likeness_to_mean(features: Features, references: Features) -> np.ndarray:
    """Each picture's cosine with the mean direction of the references: (pictures,)."""
    return unit(features) @ unit(unit(references).mean(0))


def likeness_of_folders(features: Features, references: Features) -> float:
    """The cosine of the two sets' mean directions. Higher than the mean of the cosines, more so for mixed sets."""
    return float(unit(unit(features).mean(0)) @ unit(unit(references).mean(0)))


def nearest(features: Features, references: Features) -> tuple[np.ndarray, np.ndarray]:
    """Which reference is most like each picture, and its cosine: (pictures,) indices, (pictures,) cosines."""
    cosines = unit(features) @ unit(references).T
    best = cosines.argmax(1)
    return best, cosines[np.arange(len(best)), best]


def nearest_among_themselves(references: Features) -> np.ndarray:
    """Each reference's cosine with the most similar other one: (references,)."""
    cosines = unit(references) @ unit(references).T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.max(1)
