"""Thresholds for noisy matrices, held against the published numbers and against matrices whose signal is known."""

from __future__ import annotations

import math

import pytest
import torch

from miniworld.prove.matrix_denoising import (
    above_difference,
    confirmed,
    hard_threshold,
    inverse_root,
    noise_level,
    optimal_shrinkage,
    root,
    significant,
)


def test_the_threshold_of_a_square_matrix_is_four_over_the_root_of_three():
    assert hard_threshold(100, 100) == pytest.approx(4 / math.sqrt(3) * 10)
    assert hard_threshold(50, 100) == hard_threshold(100, 50) == pytest.approx(1.9786 * 10, rel=1e-4)  # their Table I


def test_the_noise_level_is_that_of_the_mean_of_both_halves():
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(200, 300, dtype=torch.float64, generator=generator) * 9
    first, second = (signal + torch.randn(200, 300, dtype=torch.float64, generator=generator) for _ in range(2))
    assert float(noise_level(first, second)) == pytest.approx(1 / math.sqrt(2), rel=0.01)


def test_shrinkage_keeps_nothing_of_noise_and_approaches_the_value_where_it_is_large():
    sigma = torch.tensor(0.5, dtype=torch.float64)
    edge = 2 * 0.5 * 10  # of a 100 x 100 matrix of noise
    values = torch.tensor([edge - 0.1, math.sqrt(8) * 5, 1000.0], dtype=torch.float64)
    shrunk = optimal_shrinkage(values, sigma, 100, 100)
    assert shrunk[0] == 0
    assert float(shrunk[1]) == pytest.approx(10, rel=1e-9)  # sqrt(y^2 - 4) of y = sqrt(8), times 5
    assert float(shrunk[2]) == pytest.approx(1000, rel=1e-3)


def test_roots_and_their_inverses_undo_each_other_where_there_is_anything():
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator)
    matrix = factor @ factor.mT  # of rank 4
    assert torch.allclose(root(matrix) @ root(matrix), matrix)
    projector = inverse_root(matrix) @ matrix @ inverse_root(matrix)
    assert torch.allclose(projector @ projector, projector, atol=1e-8)
    assert float(projector.diagonal(dim1=-2, dim2=-1).sum()) == pytest.approx(8)


def test_the_rules_count_the_directions_that_were_planted_in_noise_and_none_where_there_is_only_noise():
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    u, v = (torch.linalg.qr(normal(n, 3))[0] for n in (60, 80))
    signal = u * torch.tensor([90.0, 60.0, 40.0]) @ v.mT
    for planted, matrix in ((3, signal), (0, 0 * signal)):
        first, second = matrix + normal(60, 80), matrix + normal(60, 80)
        assert int(significant(first, second)) == int(confirmed(first, second)) == planted
    assert int(above_difference(signal + normal(60, 80), signal + normal(60, 80))) == 3
