"""Distances between sets: other programs' formulas, and what must hold of two samples of one law."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg

from library.metrics import distances
from library.metrics.distances import frechet_distance, gaussian_kernel, kernel_distance, squared_mmd


def spectrum(n: int, dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of a normal law with variances 1/i, as features tend to have, of trace 1."""
    variances = 1 / np.arange(1, dimensions + 1)
    return rng.normal(size=(n, dimensions)) * np.sqrt(variances / variances.sum())


def test_the_frechet_distance_is_the_formula_with_scipys_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6)) + 0.5
    ca, cb = np.cov(a.T), np.cov(b.T)
    root: Any = linalg.sqrtm(ca @ cb)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-8)


def test_a_set_is_at_no_frechet_distance_from_itself_even_with_fewer_pictures_than_dimensions():
    rows = spectrum(15, 2048, np.random.default_rng(0))
    assert abs(frechet_distance(rows, rows)) <= 1e-6 * np.trace(rows.T @ rows) / 14


def test_kid_of_two_samples_of_one_law_is_zero_on_average():
    rng = np.random.default_rng(0)
    drawn = [kernel_distance(spectrum(15, 64, rng), spectrum(20, 64, rng)) for _ in range(200)]
    assert abs(np.mean(drawn)) <= 2 * np.std(drawn, ddof=1) / np.sqrt(200)
    assert min(drawn) < 0


def test_kid_sees_a_shift():
    rng = np.random.default_rng(0)
    near, far = spectrum(30, 64, rng), spectrum(30, 64, rng) + 0.1
    assert kernel_distance(near, spectrum(30, 64, rng)) < kernel_distance(far, spectrum(30, 64, rng))


def test_the_discrepancy_is_that_of_gretton_written_as_loops():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)) + 3

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / 200))

    within_x = sum(k(x[i], x[j]) for i in range(4) for j in range(4) if i != j) / 12
    within_y = sum(k(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / 20
    between = sum(k(a, b) for a in x for b in y) / 20
    kernels = gaussian_kernel(x, x), gaussian_kernel(y, y), gaussian_kernel(x, y)
    assert squared_mmd(*kernels) == pytest.approx(within_x + within_y - 2 * between, rel=1e-9)
    biased = (12 * within_x + 4) / 16 + (20 * within_y + 5) / 25 - 2 * between
    assert squared_mmd(*kernels, unbiased=False) == pytest.approx(biased, rel=1e-9)


def test_likeness_is_the_mean_cosine_and_that_of_folders_is_higher():
    references = np.array([[2.0, 0.0], [0.0, 3.0]])
    pictures = np.array([[5.0, 0.0], [1.0, 1.0]])
    assert distances.likeness(pictures, references) == pytest.approx([0.5, np.sqrt(0.5)])
    assert distances.likeness_to_mean(pictures, references) == pytest.approx([np.sqrt(0.5), 1.0])
    assert distances.likeness_of_folders(references, references) == pytest.approx(1.0)


def test_the_nearest_reference_is_found_and_references_are_not_their_own_neighbours():
    references = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    which, cosines = distances.nearest(np.array([[0.0, 7.0], [3.0, 0.1]]), references)
    assert which.tolist() == [1, 0]
    assert cosines[0] == pytest.approx(1.0)
    assert distances.nearest_among_themselves(references) == pytest.approx([0.6, 0.8, 0.8])
